"""Checks of a stream in the database: its state, who works on it, what it covers, what waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final

from sqlalchemy import Connection

from auditstore.cli.daemons import is_alive
from auditstore.cli.doctor.findings import DENIED, INCOMPLETE, NO_FILES, Finding, Result
from auditstore.cli.doctor.refusals import is_denial
from auditstore.cli.overview import StreamProgress
from auditstore.cli.stream_view import intervals
from auditstore.cli.wording import age, ago, number, utc
from auditstore.sql import events
from auditstore.streams import Stream

_RESULTS: Final[dict[str, Result]] = {
    "halted": "fails", "blocked": "fails", "retrying": "warning",
}  # fmt: skip


def check_daemons(daemons: Sequence[Any]) -> Finding:
    """At least one exporter is alive, and none of another version than this program."""
    alive = [each for each in daemons if is_alive(each)]
    if not alive:
        seen = f"; the last one was seen {age(daemons[-1].silent_for)} ago" if daemons else ""
        return Finding(
            "exporter", "fails", f"no exporter is running{seen}",
            "Start one: auditstore export run", (NO_FILES,),
        )  # fmt: skip
    where = ", ".join(f"{each.host} (process {each.pid})" for each in alive)
    mine = version("auditstore")
    others = sorted({each.version for each in alive} - {mine})
    if others:
        return Finding(
            "exporter", "warning", f"running on {where}, of version {', '.join(others)}; this is "
            f"{mine}", "Restart the exporters with the version that is installed here.",
        )  # fmt: skip
    return Finding("exporter", "ok", f"running on {where}")


def check_state(stream: Stream, now: datetime) -> Finding:
    """What the exporter, or whoever disabled it, last said of it."""
    status = stream.status
    lasting = f"for {age((now - status.since).total_seconds())}"
    if not stream.enabled:
        return Finding(
            "state", "warning", f"disabled, {lasting}: nothing more is delivered",
            f"Start it: auditstore stream enable {stream.stream_id} (--catch-up covers what was "
            "appended meanwhile, too)", (NO_FILES, INCOMPLETE),
        )  # fmt: skip
    if status.state not in _RESULTS:
        return Finding("state", "ok", f"{status.state}, {lasting}")
    explains = (NO_FILES, INCOMPLETE, *((DENIED,) if is_denial(status.code or "") else ()))
    return Finding(
        "state", _RESULTS[status.state], f"{status.state}, {lasting}: {status.cause}",
        status.hint or "", explains,
    )  # fmt: skip


def check_keeper(progress: StreamProgress, daemons: Sequence[Any]) -> Finding | None:
    """One of the living exporters works on it; nothing to say where none should or could."""
    if not progress.stream.enabled or not any(map(is_alive, daemons)):
        return None
    daemon = progress.daemon
    if daemon is not None:
        return Finding("worked on", "ok", f"by the exporter on {daemon.host}, process {daemon.pid}")
    return Finding(
        "worked on", "fails", "no running exporter has taken this stream",
        "A new stream is taken within three seconds, one of an exporter that died within 15. If "
        "it stays so, look at the exporters' logs.", (NO_FILES,),
    )  # fmt: skip


def check_waiting(progress: StreamProgress, now: datetime) -> Finding:
    """What came last, what waits, and for how long."""
    file = progress.last_file
    last = "no file was delivered yet"
    if file is not None and file.delivered_at is not None:
        last = f"file #{file.sealed.sequence} was delivered {ago(file.delivered_at, now)}"
    if not progress.waiting:
        return Finding("files", "ok", f"{last}; nothing waits")
    waits = f"{number(progress.waiting, 'event')} wait{'s' if progress.waiting == 1 else ''}"
    message = f"{last}; {waits}, the oldest for {age(progress.lag(now))}"
    if not progress.is_late(now):
        return Finding("files", "ok", message)
    return Finding(
        "files", "warning", message,
        "What is wrong above holds them up. Nothing is lost: they are delivered once it is mended.",
        (NO_FILES, INCOMPLETE),
    )  # fmt: skip


def check_coverage(connection: Connection, stream: Stream) -> Iterator[Finding]:
    """Events of the flow that the stream does not cover, and so never delivers."""
    newest = events.newest(connection, stream.flow_id)
    if newest is None:
        yield Finding(
            "flow", "warning", f"no event of the flow {stream.flow_id} was ever appended",
            "See whether the flow engine appends at all, and whether this is the flow's id: "
            "auditstore events list", (NO_FILES,),
        )  # fmt: skip
        return
    yield Finding("flow", "ok", f"its newest event was recorded at {utc(newest)}")
    covered = intervals(connection, stream.stream_id)
    missed = [
        (after, upto)
        for after, upto in _gaps(covered)
        if events.any_between(connection, stream.flow_id, after=after, upto=upto)
    ]
    if not missed:
        yield Finding("coverage", "ok", "it covers every event of its flow")
        return
    where = ", ".join(_in_words(after, upto) for after, upto in missed)
    yield Finding(
        "coverage", "note",
        f"events of the flow at positions {where} were appended while the stream was not "
        "enabled; it does not deliver them",
        f"If they should be there, see auditstore stream show {stream.stream_id}: a stream covers "
        "what is appended while it is enabled, and with enable --catch-up what came meanwhile.",
        (INCOMPLETE,),
    )  # fmt: skip


def _gaps(covered: Sequence[tuple[int, int | None]]) -> Iterator[tuple[int, int | None]]:
    """What lies before, between and after the covered intervals: exclusive to inclusive."""
    after = 0
    for start, end in covered:
        if start > after:
            yield after, start
        if end is None:
            return
        after = max(after, end)
    yield after, None


def _in_words(after: int, upto: int | None) -> str:
    if upto is None:
        return f"from {number(after + 1)} on"
    return f"{number(after + 1)} to {number(upto)}"
