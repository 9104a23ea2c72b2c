"""How a stream is shown, in words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from rich.text import Text
from sqlalchemy import Connection

from auditstore.cli.display import Column, Row, heading, listing, pairs, plain, show
from auditstore.cli.schedule_view import schedules_as_json, show_schedules
from auditstore.cli.wording import age, ago, number, size, utc
from auditstore.destinations import INSECURE_HTTP
from auditstore.sql import streams as sql
from auditstore.sql.schedules import Schedule
from auditstore.streams import Limits, Stream

_STATE_STYLES: Final = {
    "streaming": "green", "retrying": "yellow", "blocked": "red", "halted": "bold red",
    "disabled": "dim",
}  # fmt: skip

#: How many changes of state people are shown; programs get more.
SHOWN_STATES: Final = 5
ALL_STATES: Final = 100


@dataclass(frozen=True, slots=True)
class Details:
    """All that `stream show` shows; ``now`` is the server's."""

    stream: Stream
    intervals: Sequence[tuple[int, int | None]]
    changes: Sequence[Any]
    state_changes: Sequence[Any]
    now: datetime
    schedules: Sequence[Schedule] = ()


def intervals(connection: Connection, stream_id: int) -> list[tuple[int, int | None]]:
    """What a stream covers, touching intervals joined and empty ones left out."""
    joined: list[tuple[int, int | None]] = []
    for start, end in sql.intervals(connection, stream_id):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif start != end:
            joined.append((start, end))
    return joined


def state_text(stream: Stream) -> Text:
    """The state in one coloured word."""
    return plain(stream.shown_state, _STATE_STYLES.get(stream.shown_state, ""))


def trouble(stream: Stream, now: datetime) -> list[Text]:
    """What went wrong, what to do, since when, and when it tries again; nothing while all is
    well.
    """
    status = stream.status
    if not stream.enabled or not status.cause:
        return []
    lines = [Text.assemble(plain(f"{status.code}: " if status.code else "", "bold"),
                           plain(status.cause))]  # fmt: skip
    if status.hint:
        lines.append(Text.assemble(("Try: ", "bold"), plain(status.hint)))
    again = next_try(stream, now)
    since = f"Since {utc(status.since)}, {age((now - status.since).total_seconds())}. "
    lines.append(plain(since + (f"{again[0].upper()}{again[1:]}" if again else ""), "dim"))
    return lines


def next_try(stream: Stream, now: datetime) -> str | None:
    """``tries again in 20 s (4 failed so far)``."""
    at = stream.status.next_try_at
    if at is None:
        return None
    wait = (at - now).total_seconds()
    when = f"in {age(wait)}" if wait > 0 else "now"
    return f"tries again {when} ({stream.status.attempts} failed so far)"


def show_list(found: Sequence[Stream]) -> None:
    """A line for each stream, its place below."""
    columns = (
        Column("STREAM", right=True), Column("FLOW", shrinking=True), Column("STATE"),
        Column("FORMAT"), Column("CREDENTIAL", optional=1), Column("CHANGED", optional=2),
    )  # fmt: skip
    listing(
        columns,
        [
            Row(
                (
                    plain(each.stream_id), plain(each.flow_id), state_text(each),
                    plain(each.format), plain(each.credential_name or "-"),
                    plain(utc(each.changed_at)),
                ),
                (place(each),),
            )
            for each in found
        ],
    )  # fmt: skip


def place(stream: Stream) -> Text:
    """The URL, with the server where it is not the cloud's own."""
    text = plain(stream.url, "cyan")
    if stream.endpoint_url:
        text += plain(f" at {stream.endpoint_url}", "dim")
    if INSECURE_HTTP in stream.options:
        text += plain(" (may go unencrypted)", "yellow")
    return text


def show_details(details: Details) -> None:
    """Everything about one stream."""
    stream, now = details.stream, details.now
    pairs((
        ("Stream", str(stream.stream_id)),
        ("Flow", stream.flow_id),
        ("To", place(stream)),
        ("Region", stream.region),
        ("Credential", stream.credential_name or "the environment's own"
         if not stream.url.startswith("file:") else None),
        ("Options", ", ".join(f"{k}={v}" for k, v in stream.options.items()) or None),
        ("Format", stream.format),
        ("Keys", stream.key_template),
        ("A file has", _limits(stream.limits)),
        ("State", state_text(stream) + plain(f" since {utc(stream.status.since)}", "dim")),
    ))  # fmt: skip
    for line in trouble(stream, now):
        show(line, indent="  ")
    _show_state_changes(details.state_changes)
    heading("Where it stands")
    pairs((
        ("Sealed", _mark(stream.sealed_sequence, stream.sealed_position)),
        ("Delivered", _mark(stream.delivered_sequence, stream.delivered_position)),
        ("Chain hash", stream.chain_hash.hex()),
        ("Worker", stream.lease_owner
         if stream.lease_until and stream.lease_until > now else "none"),
    ))  # fmt: skip
    show_schedules(stream, details.schedules, now)
    heading("What it covers")
    if not details.intervals:
        show("Nothing yet.")
    for start, end in details.intervals:
        show(f"Positions {number(start + 1)} to " + ("now on" if end is None else number(end)))
    heading("Changes")
    columns = (Column("WHEN"), Column("WHO", shrinking=True), Column("WHAT"))
    listing(
        columns,
        [
            Row((plain(utc(each.changed_at)), plain(each.actor), plain(each.action)),
                _difference(each))
            for each in details.changes
        ],
    )  # fmt: skip


def _show_state_changes(latest: Sequence[Any]) -> None:
    heading(f"States, the latest {SHOWN_STATES}")
    if not latest:
        show("None yet.")
        return
    columns = (Column("SINCE"), Column("STATE"), Column("BEFORE"))
    listing(
        columns,
        [
            Row(
                (
                    plain(utc(each.changed_at)),
                    plain(each.to_state, _STATE_STYLES.get(each.to_state, "")),
                    plain(each.from_state + _tries(each)),
                ),
                [plain(f"{each.to_code}: {each.cause}" if each.to_code else each.cause, "dim")]
                if each.cause else [],
            )
            for each in latest[:SHOWN_STATES]
        ],
    )  # fmt: skip


def _tries(change: Any) -> str:
    """Of a state that was left for a good one, how often it had failed."""
    good = change.to_state == "streaming" and change.attempts
    return f", {number(change.attempts, 'try', 'tries')} failed" if good else ""


def _limits(limits: Limits) -> str:
    return (
        f"at most {number(limits.max_events, 'event')} and {size(limits.max_bytes)}, "
        f"and waits {limits.max_delay:g} s for more"
    )


def _mark(sequence: int, position: int) -> str:
    if not sequence:
        return "no file yet"
    return f"file {number(sequence)}, up to position {number(position)}"


def _difference(change: Any) -> list[Text]:
    before, after = change.before or {}, change.after or {}
    return [
        plain(f"{name}: {value(before.get(name))} -> {value(new)}", "dim")
        for name, new in after.items()
        if before and before.get(name) != new and name != "enabled"
    ]


def value(setting: Any) -> str:
    """A setting in words."""
    if setting is None or setting == {}:
        return "(none)"
    if isinstance(setting, dict):
        return ",".join(f"{name}={each}" for name, each in setting.items())
    return str(setting)


def as_json(stream: Stream) -> dict[str, Any]:
    """A stream for programs."""
    return {
        "stream_id": stream.stream_id,
        **stream.settings(),
        "state": stream.shown_state,
        **{name: each for name, each in asdict(stream.status).items() if name != "state"},
        "sealed_sequence": stream.sealed_sequence,
        "sealed_position": stream.sealed_position,
        "delivered_sequence": stream.delivered_sequence,
        "delivered_position": stream.delivered_position,
        "chain_hash": stream.chain_hash.hex(),
        "changed_at": stream.changed_at,
    }


_STATE_CHANGE: Final = (
    "changed_at", "from_state", "from_code", "to_state", "to_code", "cause", "attempts",
)  # fmt: skip


def details_as_json(details: Details) -> dict[str, Any]:
    """What `stream show` shows, for programs; positions from exclusive to inclusive."""
    names = ("changed_at", "actor", "database_user", "action", "before", "after")
    return as_json(details.stream) | {
        "intervals": [
            {"from_position": start, "to_position": end} for start, end in details.intervals
        ],
        "changes": [{name: getattr(each, name) for name in names} for each in details.changes],
        "state_changes": [
            {name: getattr(each, name) for name in _STATE_CHANGE} for each in details.state_changes
        ],
        "reconciliations": schedules_as_json(details.schedules),
    }


def age_of(moment: datetime | None, now: datetime) -> str:
    """An age, or a dash where there is none."""
    return "-" if moment is None else ago(moment, now)
