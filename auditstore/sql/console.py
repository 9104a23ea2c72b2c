"""What the console's lists ask; each answer is one page, found through an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, func, or_, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from auditstore.events import first_id_at
from auditstore.ledger import LedgerFile
from auditstore.sql.events import EventFilter
from auditstore.sql.ledger import one_file
from auditstore.sql.tables import (
    changes,
    credentials,
    events,
    files,
    readings,
    reconciliations,
    streams,
)

# From flow to flow by the index: PostgreSQL has no skip scan of its own for this, and reading
# all events to find a thousand flows would be the whole table.
_FLOWS: Final = text(
    "WITH RECURSIVE found (flow_id) AS ("
    " (SELECT flow_id FROM auditstore.events WHERE flow_id > :after ORDER BY flow_id LIMIT 1)"
    " UNION ALL"
    " SELECT (SELECT e.flow_id FROM auditstore.events e WHERE e.flow_id > found.flow_id"
    "   ORDER BY e.flow_id LIMIT 1) FROM found WHERE found.flow_id IS NOT NULL)"
    " SELECT flow_id FROM found WHERE flow_id IS NOT NULL"
    " AND (:part = '' OR strpos(lower(flow_id), lower(:part)) > 0) LIMIT :limit"
)


def flows_with_events(
    connection: Connection, *, after: str = "", part: str = "", limit: int
) -> list[str]:
    """Flow ids behind ``after`` in byte order that hold ``part``, whatever its case."""
    found = connection.execute(_FLOWS, {"after": after, "part": part, "limit": limit})
    return [row.flow_id for row in found]


def flows_with_streams(
    connection: Connection, *, after: str = "", part: str = "", limit: int
) -> list[str]:
    """The same of the flows that have a stream, with events or without."""
    statement = (
        select(streams.c.flow_id).distinct().where(streams.c.flow_id > after)
        .order_by(streams.c.flow_id).limit(limit)
    )  # fmt: skip
    if part:
        found_at = func.strpos(func.lower(streams.c.flow_id), part.lower())
        statement = statement.where(found_at > 0)
    return list(connection.execute(statement).scalars())


@dataclass(frozen=True, slots=True)
class NewestEvent:
    """When a flow's newest event was recorded, and how the snapshot names the flow."""

    flow_id: str
    name: str | None
    recorded_at: datetime


_NEWEST: Final = text(
    "SELECT f.flow_id, e.name, e.recorded_at FROM unnest(:flow_ids) AS f (flow_id)"
    " CROSS JOIN LATERAL (SELECT payload #>> '{vars,flow,name}' AS name, recorded_at"
    "   FROM auditstore.events WHERE flow_id = f.flow_id ORDER BY position DESC LIMIT 1) e"
).bindparams(bindparam("flow_ids", type_=ARRAY(Text(collation="C"))))


def newest_of_flows(connection: Connection, flow_ids: Sequence[str]) -> dict[str, NewestEvent]:
    """The newest event of each flow that has one."""
    found = connection.execute(_NEWEST, {"flow_ids": list(flow_ids)})
    return {row.flow_id: NewestEvent(*row) for row in found}


_PER_DAY: Final = text(
    "SELECT flow_id, (('x' || left(event_id, 8))::bit(32)::bigint / 86400)::int AS day,"
    " count(*) AS events FROM auditstore.events"
    " WHERE flow_id = ANY (:flow_ids) AND event_id >= :first GROUP BY 1, 2"
).bindparams(bindparam("flow_ids", type_=ARRAY(Text(collation="C"))))
_EPOCH: Final = date(1970, 1, 1)


def events_per_day(
    connection: Connection, flow_ids: Sequence[str], since: datetime
) -> dict[str, dict[date, int]]:
    """Events by the UTC day in their id, from ``since`` on; from the primary key alone."""
    counted: dict[str, dict[date, int]] = {}
    parameters = {"flow_ids": list(flow_ids), "first": first_id_at(since)}
    for row in connection.execute(_PER_DAY, parameters):
        counted.setdefault(row.flow_id, {})[_EPOCH + timedelta(days=row.day)] = row.events
    return counted


# --- events -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as a list shows it, without its snapshot."""

    position: int
    recorded_at: datetime
    event_id: str
    lead_id: str | None
    type: str | None
    outcome: str | None
    reason: str | None
    step_id: str | None
    size_bytes: int
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found, newest first, and how far back it looked.

    ``looked_to`` is the oldest id that was looked at where events remain behind it, ``None``
    where the search came to the end.
    """

    rows: Sequence[EventRow]
    looked_to: str | None


_ROW = (
    events.c.position, events.c.recorded_at, events.c.event_id, events.c.lead_id, events.c.type,
    events.c.outcome, events.c.reason, events.c.step_id, events.c.size_bytes,
    events.c.started_at, events.c.ended_at,
)  # fmt: skip


def search(
    connection: Connection,
    wanted: EventFilter,
    *,
    reason: str = "",
    words: str = "",
    limit: int,
    look_at: int,
) -> Searched:
    """Up to ``limit`` events of one flow, among the newest ``look_at`` that no index tells apart.

    ``reason`` and ``words`` are looked for in the reason and in the whole snapshot, whatever
    their case. A search that found less looks no further by itself: no request reads a flow
    from end to end.
    """
    statement = _by_index(wanted)
    near = statement.order_by(events.c.event_id.desc()).limit(look_at + 1).subquery()
    columns = [near.c[column.name] for column in _ROW]
    matching = select(*columns).order_by(near.c.event_id.desc()).limit(limit + 1)
    if wanted.type is not None:
        matching = matching.where(near.c.type == wanted.type)
    if wanted.outcome is not None:
        matching = matching.where(near.c.outcome == wanted.outcome)
    if reason:
        matching = matching.where(func.strpos(func.lower(near.c.reason), reason.lower()) > 0)
    if words:
        snapshot = func.lower(func.cast(near.c.payload, Text))
        matching = matching.where(func.strpos(snapshot, words.lower()) > 0)
    rows = [EventRow(*row) for row in connection.execute(matching)]
    if len(rows) > limit:
        return Searched(rows[:limit], rows[limit - 1].event_id)
    ids = (
        statement.with_only_columns(events.c.event_id)
        .order_by(events.c.event_id.desc()).offset(look_at - 1).limit(2)
    )  # fmt: skip
    edge = list(connection.execute(ids).scalars())
    return Searched(rows, edge[0] if len(edge) == 2 else None)


def _by_index(wanted: EventFilter) -> Select[Any]:
    """What the indexes narrow: flow, lead, and the period in the ids."""
    statement = select(*_ROW, events.c.payload).where(events.c.flow_id == wanted.flow_id)
    if wanted.lead_id is not None:
        statement = statement.where(events.c.lead_id == wanted.lead_id)
    if wanted.start is not None:
        statement = statement.where(events.c.event_id >= first_id_at(wanted.start))
    if wanted.end is not None:
        statement = statement.where(events.c.event_id < first_id_at(wanted.end))
    if wanted.before_id is not None:
        statement = statement.where(events.c.event_id < wanted.before_id)
    return statement


_TIMELINE_LIMIT: Final = 200


def timeline(connection: Connection, flow_id: str, lead_id: str) -> list[EventRow]:
    """A lead's events in one flow in the order they were recorded, the first 200."""
    statement = (
        select(*_ROW)
        .where(events.c.lead_id == lead_id, events.c.flow_id == flow_id)
        .order_by(events.c.position).limit(_TIMELINE_LIMIT)
    )  # fmt: skip
    return [EventRow(*row) for row in connection.execute(statement)]


# --- deliveries -------------------------------------------------------------------


def latest_files(
    connection: Connection, stream_id: int, *, before: int | None = None, limit: int
) -> list[LedgerFile]:
    """A stream's files with a sequence below ``before``, the newest first."""
    statement = select(files.c.sequence).where(files.c.stream_id == stream_id)
    if before is not None:
        statement = statement.where(files.c.sequence < before)
    found = connection.execute(statement.order_by(files.c.sequence.desc()).limit(limit)).scalars()
    read = (one_file(connection, stream_id, sequence) for sequence in list(found))
    return [file for file in read if file is not None]


def delays(connection: Connection, stream_id: int, *, limit: int) -> list[tuple[datetime, float]]:
    """Of the newest delivered files, oldest first: when, and how many seconds after their
    first event was recorded.
    """
    delay = func.extract("epoch", files.c.delivered_at - files.c.first_recorded_at)
    statement = (
        select(files.c.delivered_at, delay)
        .where(files.c.stream_id == stream_id, files.c.delivered_at.is_not(None))
        .order_by(files.c.sequence.desc()).limit(limit)
    )  # fmt: skip
    return [(at, float(seconds)) for at, seconds in connection.execute(statement)][::-1]


# --- changes ----------------------------------------------------------------------


def latest_changes(
    connection: Connection,
    *,
    flow_id: str | None = None,
    before: int | None = None,
    limit: int,
) -> Sequence[Any]:
    """Changes of streams and credentials, the newest first; of a flow, those of its streams and
    of the credentials that they use now.
    """
    statement = select(changes).order_by(changes.c.change_id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(changes.c.change_id < before)
    if flow_id is not None:
        own = select(streams.c.stream_id).where(streams.c.flow_id == flow_id)
        used = select(credentials.c.credential_id).join(streams).where(streams.c.flow_id == flow_id)
        statement = statement.where(
            or_(
                (changes.c.subject == "stream") & changes.c.subject_id.in_(own),
                (changes.c.subject == "credential") & changes.c.subject_id.in_(used),
            )
        )
    return connection.execute(statement).all()


def latest_readings(
    connection: Connection,
    *,
    flow_id: str | None = None,
    before: int | None = None,
    limit: int,
) -> Sequence[Any]:
    """Who opened which event, the newest first."""
    statement = select(readings).order_by(readings.c.reading_id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(readings.c.reading_id < before)
    if flow_id is not None:
        statement = statement.where(readings.c.flow_id == flow_id)
    return connection.execute(statement).all()


def kept_reports(connection: Connection, flow_id: str, *, limit: int) -> Sequence[Any]:
    """The kept reports that were made of one flow, the newest first: number, started_at, actor,
    scope, result, counts.
    """
    table = reconciliations.c
    statement = (
        select(
            table.reconciliation_id.label("number"), table.started_at, table.actor, table.scope,
            table.result, table.counts,
        )
        .where(table.scope["flow"].astext == flow_id, table.scope["views"].astext.is_(None))
        .order_by(table.reconciliation_id.desc())
        .limit(limit)
    )  # fmt: skip
    return connection.execute(statement).all()
