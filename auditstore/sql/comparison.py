"""What reconciliation asks: short statements over pages, so that none holds a snapshot long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, bindparam, false, func, literal, select, text, true
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from auditstore.sql.tables import events, files, stream_intervals


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the outbox without its payload.

    ``intact`` is false if the payload is not what ``sha256`` says; ``None`` if nobody asked.
    """

    position: int
    event_id: str
    lead_id: str | None
    type: str | None
    outcome: str | None
    sha256: bytes
    size_bytes: int
    recorded_at: datetime
    intact: bool | None

    @property
    def names(self) -> dict[str, Any]:
        """What a finding says of which event it is."""
        return {
            "position": self.position, "event_id": self.event_id, "lead_id": self.lead_id,
            "type": self.type, "outcome": self.outcome,
        }  # fmt: skip


_ENTRY: Final = (
    events.c.position, events.c.event_id, events.c.lead_id, events.c.type, events.c.outcome,
    events.c.sha256, events.c.size_bytes, events.c.recorded_at,
)  # fmt: skip
_PAYLOAD_BYTES: Final = func.convert_to(sql_cast(events.c.payload, Text), "UTF8")


def entries(
    connection: Connection, flow_id: str, *, first: int, last: int, limit: int, verify: bool
) -> list[Entry]:
    """The first ``limit`` events of a range, in order; with ``verify`` payloads are hashed too."""
    intact = func.sha256(_PAYLOAD_BYTES) == events.c.sha256 if verify else literal(None)
    statement = (
        select(
            *_ENTRY, intact.label("intact"),
        )
        .where(events.c.flow_id == flow_id, events.c.position.between(first, last))
        .order_by(events.c.position)
        .limit(limit)
    )  # fmt: skip
    return [_entry(row, intact=row.intact) for row in connection.execute(statement)]


def entries_by_id(connection: Connection, flow_id: str, event_ids: Sequence[str]) -> list[Entry]:
    """Those of the events that are stored, in no promised order."""
    statement = select(*_ENTRY).where(events.c.flow_id == flow_id, events.c.event_id.in_(event_ids))
    return [_entry(row, intact=None) for row in connection.execute(statement)]


def payload(connection: Connection, flow_id: str, event_id: str) -> bytes | None:
    """An event's snapshot as it is kept; ``None`` if it is not."""
    statement = select(_PAYLOAD_BYTES).where(
        events.c.flow_id == flow_id, events.c.event_id == event_id
    )
    found = connection.execute(statement).scalar_one_or_none()
    return None if found is None else bytes(found)


def _entry(row: Any, *, intact: bool | None) -> Entry:
    return Entry(
        row.position, row.event_id, row.lead_id, row.type, row.outcome, bytes(row.sha256),
        row.size_bytes, row.recorded_at, intact,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Side:
    """The outbox's side of one file: its events' hashes end to end, in order of position.

    ``intact`` is false if some payload is not what its hash says, true if nobody asked.
    """

    events: int
    digests: bytes
    intact: bool


# The order is that of the inner statement, which an index has: an ORDER BY in the aggregate would
# be sorted on servers before PostgreSQL 16. An order that was lost could only show as a difference.
_SIDE: Final = (
    "SELECT count(*) AS events, coalesce(string_agg(sha256, ''::bytea), ''::bytea) AS digests,"
    " coalesce(bool_and(intact), true) AS intact"
    " FROM (SELECT sha256, {intact} AS intact FROM auditstore.events"
    " WHERE flow_id = :flow_id AND position BETWEEN :first AND :last"
    " ORDER BY position LIMIT :limit) s"
)
_SIDES: Final = {
    False: text(_SIDE.format(intact="true")),
    True: text(_SIDE.format(intact="sha256(convert_to(payload::text, 'UTF8')) = sha256")),
}


def side(
    connection: Connection, flow_id: str, *, first: int, last: int, limit: int, verify: bool
) -> Side:
    """The first ``limit`` events of a range in one row; with ``verify`` payloads are hashed too."""
    row = connection.execute(
        _SIDES[verify], {"flow_id": flow_id, "first": first, "last": last, "limit": limit}
    ).one()
    return Side(row.events, bytes(row.digests), row.intact)


def event_names(
    connection: Connection, flow_id: str, *, first: int, last: int, limit: int
) -> list[tuple[str, str | None]]:
    """Event and lead ids of the first ``limit`` events of a range, in order."""
    found = connection.execute(
        select(events.c.event_id, events.c.lead_id)
        .where(events.c.flow_id == flow_id, events.c.position.between(first, last))
        .order_by(events.c.position)
        .limit(limit)
    )
    return [(row.event_id, row.lead_id) for row in found]


_RANGE_SUMMARIES: Final = text(
    "SELECT s.events, s.bytes"
    " FROM unnest(:firsts, :lasts) WITH ORDINALITY AS r (first, last, number)"
    " CROSS JOIN LATERAL ("
    "   SELECT count(*) AS events, coalesce(sum(size_bytes + 1), 0)::bigint AS bytes"
    "   FROM auditstore.events"
    "   WHERE flow_id = :flow_id AND position BETWEEN r.first AND r.last) s"
    " ORDER BY r.number"
).bindparams(
    bindparam("firsts", type_=ARRAY(BigInteger)), bindparam("lasts", type_=ARRAY(BigInteger))
)


def range_summaries(
    connection: Connection, flow_id: str, ranges: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """For each range, how many events it holds now and their content bytes; index only."""
    if not ranges:
        return []
    found = connection.execute(
        _RANGE_SUMMARIES,
        {
            "flow_id": flow_id,
            "firsts": [first for first, _ in ranges],
            "lasts": [last for _, last in ranges],
        },
    )
    return [(row.events, row.bytes) for row in found]


def sequence_window(
    connection: Connection,
    stream_id: int,
    *,
    since: datetime | None,
    until: datetime | None,
    upto: int,
) -> tuple[int, int]:
    """The first and last of the files up to ``upto`` that may hold an event of the interval.

    Where there is none, the place between two files at which one would be: (n + 1, n).
    """
    of_stream = (files.c.stream_id == stream_id) & (files.c.sequence <= upto)
    first, last = connection.execute(
        select(func.min(files.c.sequence), func.max(files.c.sequence)).where(
            of_stream,
            files.c.last_recorded_at >= since if since is not None else true(),
            files.c.first_recorded_at < until if until is not None else true(),
        )
    ).one()
    if first is not None:
        return first, last
    before = connection.execute(
        select(func.coalesce(func.max(files.c.sequence), 0)).where(
            of_stream, files.c.last_recorded_at < since if since is not None else false()
        )
    ).scalar_one()
    return before + 1, before


def open_interval_since(connection: Connection, stream_id: int) -> datetime | None:
    """When the stream was last enabled, if it still is."""
    opened: datetime | None = connection.execute(
        select(stream_intervals.c.opened_at).where(
            stream_intervals.c.stream_id == stream_id, stream_intervals.c.to_position.is_(None)
        )
    ).scalar_one_or_none()
    return opened


def waiting(
    connection: Connection,
    flow_id: str,
    *,
    after: int,
    since: datetime | None,
    until: datetime | None,
    late_before: datetime,
) -> tuple[int, int, datetime | None]:
    """Of the flow's events behind ``after`` recorded in the interval: how many, how many of
    them before ``late_before``, and when the oldest."""
    late = func.count().filter(events.c.recorded_at < late_before)
    count, overdue, oldest = connection.execute(
        select(func.count(), late, func.min(events.c.recorded_at)).where(
            events.c.flow_id == flow_id,
            events.c.position > after,
            events.c.recorded_at >= since if since is not None else true(),
            events.c.recorded_at < until if until is not None else true(),
        )
    ).one()
    return count, overdue, oldest


def named_keys(connection: Connection, stream_id: int, keys: Sequence[str]) -> set[str]:
    """Those of ``keys`` that are the key of a file of the stream."""
    return set(
        connection.scalars(
            select(files.c.object_key).where(
                files.c.stream_id == stream_id,
                files.c.format == "ndjson.gz",
                files.c.object_key.in_(keys),
            )
        )
    )


def event_ranges(
    connection: Connection, stream_id: int, *, after: int, limit: int
) -> list[tuple[int, int, int]]:
    """Sequence, first and last position of the stream's files that are one object an event."""
    found = connection.execute(
        select(files.c.sequence, files.c.first_position, files.c.last_position)
        .where(files.c.stream_id == stream_id, files.c.format == "json", files.c.sequence > after)
        .order_by(files.c.sequence)
        .limit(limit)
    )
    return [(row.sequence, row.first_position, row.last_position) for row in found]
