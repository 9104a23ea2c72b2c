"""Appending to the outbox and reading from it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import psycopg
from sqlalchemy import Connection, Select, bindparam, cast, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import BigInteger, Text

from auditstore.events import Event, StoredEvent, first_id_at
from auditstore.sql.failures import is_stale
from auditstore.sql.tables import events
from auditstore.taking import Key

# Column by column and without `position`: a position must be handed out by the server, after
# the append's lock on the table is held, or the fence would not see it coming.
_COPY: Final = (
    "COPY auditstore.events (event_id, flow_id, lead_id, type, outcome, reason, step_id,"
    " started_at, ended_at, payload, size_bytes, sha256) FROM STDIN (FORMAT BINARY)"
)
# How the driver dumps each value. On the wire json is its bytes, as bytea is; named "json" the
# driver would serialise the snapshot a second time.
_COPY_TYPES: Final = (
    "text", "text", "text", "text", "text", "text", "text",
    "timestamptz", "timestamptz", "bytea", "int4", "bytea",
)  # fmt: skip
# In the driver's own form: building it by SQLAlchemy costs as much as running it. The driver
# prepares it at its sixth use on a connection.
_INSERT: Final = (
    "INSERT INTO auditstore.events (event_id, flow_id, lead_id, type, outcome, reason, step_id,"
    " started_at, ended_at, payload, size_bytes, sha256)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', true)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
_HASHES: Final = text(
    "SELECT flow_id, event_id, sha256 FROM auditstore.stored_hashes(:flow_ids, :event_ids)"
).bindparams(bindparam("flow_ids", type_=ARRAY(Text)), bindparam("event_ids", type_=ARRAY(Text)))


def insert(connection: Connection, event: Event) -> bool:
    """Insert one event unless its key is stored already; return whether it was inserted."""
    # As text, whose type the server takes from the column: json.
    result = connection.exec_driver_sql(_INSERT, _row(event, event.payload.decode()))
    return result.rowcount == 1


def copy(connection: Connection, rows: Iterable[Event]) -> None:
    """COPY events in; raises psycopg's UniqueViolation if a key is stored already.

    The caller has begun a transaction on ``connection``; on an asynchronous driver this must
    run inside ``run_sync``.
    """
    driver = connection.connection.driver_connection
    with _watched(connection):
        if isinstance(driver, psycopg.AsyncConnection):
            from sqlalchemy.util import await_only  # noqa: PLC0415  # greenlet: asyncio callers only

            await_only(_copy_async(driver, rows))
            return
        assert isinstance(driver, psycopg.Connection)  # noqa: S101  # the repository checked the dialect
        with driver.cursor() as cursor, cursor.copy(_COPY) as stream:
            stream.set_types(_COPY_TYPES)
            for event in rows:
                stream.write_row(_row(event, event.payload))


async def _copy_async(driver: psycopg.AsyncConnection[Any], rows: Iterable[Event]) -> None:
    async with driver.cursor() as cursor, cursor.copy(_COPY) as stream:
        stream.set_types(_COPY_TYPES)
        for event in rows:
            await stream.write_row(_row(event, event.payload))


@contextmanager
def _watched(connection: Connection, *, ours: bool = False) -> Iterator[None]:
    """Tell SQLAlchemy of a connection that is over, or stale where it is ``ours``.

    It does not watch what COPY does on the driver's own connection, so it would go on using
    one that is over, and keep one in its pool that goes by settings lifted since.
    """
    driver: Any = connection.connection.driver_connection
    try:
        yield
    except psycopg.Error as error:
        if driver.closed or (ours and is_stale(error)):
            connection.invalidate(error)
        raise


def _row(event: Event, payload: bytes | str) -> tuple[object, ...]:
    return (
        event.event_id, event.flow_id, event.lead_id, event.type, event.outcome, event.reason,
        event.step_id, event.started_at, event.ended_at, payload, event.size_bytes, event.sha256,
    )  # fmt: skip


def begin_durably(connection: Connection) -> None:
    """Begin a transaction whose commit waits for the disk, in one round trip.

    So it does with every setting but ``off``; what waits for standbys too is left alone.
    """
    connection.begin()
    driver: Any = connection.connection.driver_connection
    with _watched(connection), driver.pipeline():
        driver.execute(_DURABLE)


def stored_hashes(connection: Connection, keys: Sequence[Key]) -> dict[Key, bytes]:
    """The SHA-256 of those of ``keys`` (flow id, event id) that are stored."""
    found = connection.execute(
        _HASHES,
        {"flow_ids": [flow for flow, _ in keys], "event_ids": [event for _, event in keys]},
    )
    return {(row.flow_id, row.event_id): row.sha256 for row in found}


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to read; ``None`` means any.

    ``start`` (inclusive) and ``end`` (exclusive) bound the creation time in the event id, to
    the second. ``after_id`` and ``before_id`` are exclusive. ``flow_ids`` are the flows that
    the reader may see.
    """

    flow_id: str | None = None
    lead_id: str | None = None
    event_id: str | None = None
    type: str | None = None
    outcome: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    after_id: str | None = None
    before_id: str | None = None
    flow_ids: frozenset[str] | None = None


Order = Literal["asc", "desc"]

# The payload as text: the driver must not parse it.
_PAYLOAD = cast(events.c.payload, Text).label("payload_text")
_READ = (
    events.c.position, events.c.recorded_at, events.c.event_id, events.c.flow_id,
    events.c.lead_id, events.c.type, events.c.outcome, events.c.reason, events.c.step_id,
    events.c.started_at, events.c.ended_at, _PAYLOAD, events.c.sha256,
)  # fmt: skip


def page(
    connection: Connection,
    wanted: EventFilter,
    *,
    order: Order,
    limit: int,
    after: Key | None = None,
) -> list[StoredEvent]:
    """The next ``limit`` events by id (then flow), after the key ``after`` in that order."""
    statement = _page(select(*_READ), wanted, order=order, limit=limit, after=after)
    return [_stored(row) for row in connection.execute(statement)]


def keys(
    connection: Connection,
    wanted: EventFilter,
    *,
    order: Order,
    limit: int,
    after: Key | None = None,
) -> list[Key]:
    """The keys alone of what :func:`page` would find."""
    columns = select(events.c.flow_id, events.c.event_id)
    statement = _page(columns, wanted, order=order, limit=limit, after=after)
    return [(row.flow_id, row.event_id) for row in connection.execute(statement)]


def snapshots(connection: Connection, wanted: Sequence[Key]) -> list[bytes]:
    """The snapshots of these events, all of which are stored, in the same order."""
    key = tuple_(events.c.flow_id, events.c.event_id)
    statement = select(events.c.flow_id, events.c.event_id, _PAYLOAD).where(
        key.in_(wanted), events.c.event_id.in_([event_id for _, event_id in wanted])
    )
    found = {
        (row.flow_id, row.event_id): row.payload_text.encode()
        for row in connection.execute(statement)
    }
    return [found[each] for each in wanted]


def _page(
    statement: Select[Any], wanted: EventFilter, *, order: Order, limit: int, after: Key | None
) -> Select[Any]:
    key = tuple_(events.c.event_id, events.c.flow_id)
    statement = statement.limit(limit)
    if order == "asc":
        statement = statement.order_by(events.c.event_id, events.c.flow_id)
    else:
        statement = statement.order_by(events.c.event_id.desc(), events.c.flow_id.desc())
    for column in ("flow_id", "lead_id", "event_id", "type", "outcome"):
        value = getattr(wanted, column)
        if value is not None:
            statement = statement.where(events.c[column] == value)
    if wanted.flow_ids is not None:
        statement = statement.where(events.c.flow_id.in_(wanted.flow_ids))
    statement = _bounded(statement, wanted)
    if after is not None:
        flow_id, event_id = after
        bound = tuple_(event_id, flow_id)
        # The first comparison is implied by the second; it lets the planner prune partitions.
        if order == "asc":
            statement = statement.where(events.c.event_id >= event_id, key > bound)
        else:
            statement = statement.where(events.c.event_id <= event_id, key < bound)
    return statement


def _bounded(statement: Select[Any], wanted: EventFilter) -> Select[Any]:
    if wanted.start is not None:
        statement = statement.where(events.c.event_id >= first_id_at(wanted.start))
    if wanted.end is not None:
        statement = statement.where(events.c.event_id < first_id_at(wanted.end))
    if wanted.after_id is not None:
        statement = statement.where(events.c.event_id > wanted.after_id)
    if wanted.before_id is not None:
        statement = statement.where(events.c.event_id < wanted.before_id)
    return statement


def _stored(row: Any) -> StoredEvent:
    return StoredEvent(
        position=row.position,
        recorded_at=row.recorded_at,
        event=Event(
            event_id=row.event_id, flow_id=row.flow_id, lead_id=row.lead_id, type=row.type,
            outcome=row.outcome, reason=row.reason, step_id=row.step_id,
            started_at=row.started_at, ended_at=row.ended_at,
            payload=row.payload_text.encode(), sha256=row.sha256,
        ),
    )  # fmt: skip


_TAIL_PAGE: Final = 1000


class TailRow(NamedTuple):
    """What sealing knows of an event: its place, its size without the line end, its time."""

    position: int
    size_bytes: int
    recorded_at: datetime


def tail(
    connection: Connection, flow_id: str, *, after: int, upto: int, limit: int
) -> Iterator[TailRow]:
    """The flow's events with ``after`` < position <= ``upto``, in order; index only, in pages.

    Below a safe fence nothing changes, so pages of different snapshots fit together.
    """
    while limit > 0:
        page_size = min(limit, _TAIL_PAGE)
        statement = (
            select(events.c.position, events.c.size_bytes, events.c.recorded_at)
            .where(events.c.flow_id == flow_id)
            .where(events.c.position > after, events.c.position <= upto)
            .order_by(events.c.position)
            .limit(page_size)
        )
        rows = connection.execute(statement).all()
        yield from map(TailRow._make, rows)
        if len(rows) < page_size:
            return
        after, limit = rows[-1].position, limit - len(rows)


_OLDEST_WAITING: Final = text(
    "SELECT s.stream_id, e.recorded_at FROM auditstore.streams s"
    " CROSS JOIN LATERAL (SELECT recorded_at FROM auditstore.events"
    "   WHERE flow_id = s.flow_id AND position > s.sealed_position AND position <= :fence"
    "   ORDER BY position LIMIT 1) e"
    " WHERE s.stream_id = ANY (:stream_ids)"
).bindparams(bindparam("stream_ids", type_=ARRAY(BigInteger)))


def oldest_waiting(
    connection: Connection, stream_ids: Sequence[int], *, fence: int
) -> dict[int, datetime]:
    """Of these streams, those with events up to ``fence`` to seal: when the first was recorded."""
    found = connection.execute(_OLDEST_WAITING, {"stream_ids": list(stream_ids), "fence": fence})
    return {row.stream_id: row.recorded_at for row in found}


def waiting(
    connection: Connection, flow_id: str, *, after: int, upto: int | None = None
) -> tuple[int, datetime | None]:
    """How many of the flow's events lie behind ``after``, and when the oldest was recorded."""
    statement = select(func.count(), func.min(events.c.recorded_at)).where(
        events.c.flow_id == flow_id, events.c.position > after
    )
    if upto is not None:
        statement = statement.where(events.c.position <= upto)
    count, oldest = connection.execute(statement).one()
    return count, oldest


def newest(connection: Connection, flow_id: str) -> datetime | None:
    """When the flow's event with the highest position was recorded; ``None`` without any."""
    found: datetime | None = connection.execute(
        select(events.c.recorded_at)
        .where(events.c.flow_id == flow_id)
        .order_by(events.c.position.desc())
        .limit(1)
    ).scalar_one_or_none()
    return found


def any_between(connection: Connection, flow_id: str, *, after: int, upto: int | None) -> bool:
    """Whether the flow has an event with ``after`` < position <= ``upto``, or with no end."""
    statement = select(events.c.position).where(
        events.c.flow_id == flow_id, events.c.position > after
    )
    if upto is not None:
        statement = statement.where(events.c.position <= upto)
    return connection.execute(statement.limit(1)).scalar_one_or_none() is not None


_PAYLOADS: Final = (
    "COPY (SELECT payload FROM auditstore.events WHERE flow_id = %s AND position BETWEEN %s AND %s"
    " ORDER BY position) TO STDOUT (FORMAT BINARY)"
)
_PAYLOADS_AND_IDS: Final = (
    "COPY (SELECT position, payload, event_id, lead_id FROM auditstore.events"
    " WHERE flow_id = %s AND position BETWEEN %s AND %s"
    " ORDER BY position) TO STDOUT (FORMAT BINARY)"
)


def payloads(
    connection: Connection, flow_id: str, first: int, last: int
) -> Generator[bytes, None, None]:
    """The snapshots of a range in position order, their bytes untouched, streamed.

    Close it if it is not read to its end: until then the connection can do nothing else.
    """
    for row in _copy_out(connection, _PAYLOADS, (flow_id, first, last)):
        yield row[0]


def payloads_and_ids(
    connection: Connection, flow_id: str, first: int, last: int
) -> Generator[tuple[int, bytes, str, str | None], None, None]:
    """As :func:`payloads`: position, snapshot, event id and lead id."""
    for row in _copy_out(connection, _PAYLOADS_AND_IDS, (flow_id, first, last)):
        position, snapshot, event_id, lead_id = row
        yield (
            int.from_bytes(position, "big"), snapshot, event_id.decode(),
            None if lead_id is None else lead_id.decode(),
        )  # fmt: skip


def _copy_out(
    connection: Connection, statement: str, parameters: tuple[object, ...]
) -> Iterator[tuple[Any, ...]]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101  # only our own engines get here
    with (
        _watched(connection, ours=True),
        driver.cursor() as cursor,
        cursor.copy(statement, parameters) as stream,
    ):
        yield from stream.rows()


def hashes(
    connection: Connection, flow_id: str, *, first: int, last: int
) -> Iterator[tuple[int, str, bytes]]:
    """Position, event id and SHA-256 of a range in position order, streamed."""
    statement = (
        select(events.c.position, events.c.event_id, events.c.sha256)
        .where(events.c.flow_id == flow_id, events.c.position.between(first, last))
        .order_by(events.c.position)
        .execution_options(yield_per=2000)
    )
    for position, event_id, sha256 in connection.execute(statement):
        yield position, event_id, bytes(sha256)


def range_summary(
    connection: Connection, flow_id: str, *, first: int, last: int
) -> tuple[int, int]:
    """How many events a range holds now, and their content bytes, line ends included."""
    statement = select(func.count(), func.coalesce(func.sum(events.c.size_bytes + 1), 0)).where(
        events.c.flow_id == flow_id, events.c.position.between(first, last)
    )
    count, size = connection.execute(statement).one()
    return int(count), int(size)
