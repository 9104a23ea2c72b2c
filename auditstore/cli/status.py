"""``auditstore status``: how far each stream is, and what holds it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import click
from rich.text import Text
from sqlalchemy import Connection

from auditstore import database, streams, transport
from auditstore.cli import stream_view
from auditstore.cli.context import Session
from auditstore.cli.daemons import is_alive
from auditstore.cli.display import Column, Row, heading, listing, note, plain, show, write_json
from auditstore.cli.options import json_option
from auditstore.cli.wording import age, ago, number
from auditstore.ledger import LedgerFile
from auditstore.sql import events, fence, leases, progress, server
from auditstore.sql.streams import last_position
from auditstore.streams import Stream

#: An open writer this old, in seconds, is shown as what holds the export back.
_LONG_OPEN_S = 1.0


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far one stream is; ``waiting`` events, the oldest since ``oldest``."""

    stream: Stream
    waiting: int
    oldest: datetime | None
    last_file: LedgerFile | None

    def lag(self, now: datetime) -> float:
        """Seconds since the oldest event that is not in the store was appended."""
        return 0.0 if self.oldest is None else max(0.0, (now - self.oldest).total_seconds())


@dataclass(frozen=True, slots=True)
class Overview:
    """All that `status` shows, at the server's time ``now``."""

    now: datetime
    position: int
    streams: Sequence[StreamProgress]
    daemons: Sequence[Any]
    writers: Sequence[fence.OpenWriter]


@click.command()
@json_option
@click.pass_obj
def status(session: Session, *, as_json: bool) -> None:
    """How far each stream is, and what holds it up."""
    with session.reading() as connection:
        seen = overview(connection)
    if weak := transport.weakness(database.database_url(session.database_url)):
        note(weak[0].upper() + weak[1:])
    if as_json:
        write_json(_as_json(seen))
    else:
        _show(seen)


def overview(connection: Connection) -> Overview:
    """Ask the database."""
    return Overview(
        # The clock last, so that nothing seems to lie in the future.
        position=last_position(connection),
        writers=fence.open_writers(connection),
        streams=[_progress(connection, stream) for stream in streams.find(connection)],
        daemons=leases.list_daemons(connection),
        now=server.clock(connection),
    )


def _progress(connection: Connection, stream: Stream) -> StreamProgress:
    sealed = progress.undelivered(connection, stream.stream_id)
    count, oldest = (
        events.waiting(connection, stream.flow_id, after=stream.sealed_position)
        if stream.enabled
        else (0, None)
    )
    return StreamProgress(
        stream=stream,
        waiting=sealed.events + count,
        oldest=min((each for each in (sealed.oldest, oldest) if each), default=None),
        last_file=progress.last_delivered(connection, stream.stream_id),
    )


def _show(seen: Overview) -> None:
    _show_daemons(seen)
    _show_writers(seen)
    heading("Streams")
    if not seen.streams:
        show("None. Add one with `auditstore stream add --flow ID --to URL`.")
        return
    columns = (
        Column("STREAM", right=True), Column("FLOW", shrinking=True), Column("STATE"),
        Column("WAITING", right=True), Column("LAG", right=True), Column("LAST FILE"),
    )  # fmt: skip
    listing(columns, [_row(each, seen.now) for each in seen.streams])


def _show_daemons(seen: Overview) -> None:
    alive = [daemon for daemon in seen.daemons if is_alive(daemon)]
    if not alive:
        show(Text.assemble(
            ("No exporter is running", "red"), ": nothing is delivered. Start one with "
            "`auditstore export run`.",
        ))  # fmt: skip
        return
    heading_text = f"{number(len(alive), 'exporter')} running"
    show(heading_text, style="green")
    for daemon in alive:
        show(
            f"{daemon.host}, process {daemon.pid}, version {daemon.version}, up "
            f"{age((seen.now - daemon.started_at).total_seconds())}, seen "
            f"{age(daemon.silent_for)} ago" + _fence(daemon, seen),
            indent="  ", style="dim",
        )  # fmt: skip


def _fence(daemon: Any, seen: Overview) -> str:
    if daemon.fence_position is None:
        return ""
    behind = seen.position - daemon.fence_position
    return f", safe to read up to position {number(daemon.fence_position)}" + (
        f" ({number(behind, 'position')} behind)" if behind > 0 else ""
    )


def _show_writers(seen: Overview) -> None:
    # One whose age is hidden may be the oldest of all.
    long_open = [each for each in seen.writers if each.age is None or each.age >= _LONG_OPEN_S]
    if not long_open:
        return
    heading("Held back by")
    show("These transactions have appended and are not over. What was appended after they "
         "began cannot be delivered before.")  # fmt: skip
    columns = (
        Column("PID", right=True), Column("USER", shrinking=True), Column("APPLICATION"),
        Column("OPEN FOR", right=True), Column("STATE"),
    )  # fmt: skip
    listing(
        columns,
        [
            Row(
                (
                    plain(each.pid or "-"), plain(each.user_name or "-"),
                    plain(each.application or "-"),
                    plain("-" if each.age is None else age(each.age)),
                    plain("prepared" if each.prepared else each.state or "-"),
                ),
                (plain(f"prepared transaction {each.prepared}" if each.prepared
                       else each.query or "(its query is hidden from this user)", "dim"),),
            )
            for each in long_open
        ],
        indent="  ",
    )  # fmt: skip


def _row(each: StreamProgress, now: datetime) -> Row:
    stream = each.stream
    lag = each.lag(now)
    late = lag > stream.limits.max_delay + 10
    last = each.last_file
    return Row(
        (
            plain(stream.stream_id), plain(stream.flow_id), stream_view.state_text(stream),
            plain(number(each.waiting) if each.waiting else "-"),
            plain(age(lag) if each.waiting else "-", "yellow" if late else ""),
            plain("-" if last is None or last.delivered_at is None
                  else f"#{last.sealed.sequence}, {ago(last.delivered_at, now)}"),
        ),
        (stream_view.place(stream), *stream_view.trouble(stream, now)),
    )  # fmt: skip


def _as_json(seen: Overview) -> dict[str, Any]:
    return {
        "now": seen.now,
        "last_position": seen.position,
        "streams": [
            stream_view.as_json(each.stream)
            | {
                "waiting_events": each.waiting,
                "lag_seconds": round(each.lag(seen.now), 3),
                "last_file": None if each.last_file is None else {
                    "sequence": each.last_file.sealed.sequence,
                    "object_key": each.last_file.sealed.object_key,
                    "event_count": each.last_file.sealed.event_count,
                    "delivered_at": each.last_file.delivered_at,
                },
            }
            for each in seen.streams
        ],
        "daemons": [
            {name: getattr(daemon, name) for name in daemon._fields} | {"alive": is_alive(daemon)}
            for daemon in seen.daemons
        ],
        "open_writers": [asdict(each) for each in seen.writers],
    }  # fmt: skip
