"""The outbox as one of the views that are compared: pages in the order of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, cast, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from auditstore.sql.tables import events
from auditstore.taking import Key


@dataclass(frozen=True, slots=True)
class Known:
    """An event of the outbox without its payload."""

    event_id: str
    flow_id: str
    lead_id: str | None
    type: str | None
    outcome: str | None
    sha256: bytes
    position: int
    recorded_at: datetime


_KNOWN: Final = (
    events.c.event_id, events.c.flow_id, events.c.lead_id, events.c.type, events.c.outcome,
    events.c.sha256, events.c.position, events.c.recorded_at,
)  # fmt: skip


def known_page(
    connection: Connection,
    *,
    flow_id: str | None,
    first_id: str,
    end_id: str,
    after: Key | None,
    limit: int,
) -> list[Known]:
    """The next events with ``first_id`` <= id < ``end_id``, by id and flow, after ``after``."""
    statement = (
        select(*_KNOWN)
        .where(events.c.event_id >= first_id, events.c.event_id < end_id)
        .order_by(events.c.event_id, events.c.flow_id)
        .limit(limit)
    )
    if flow_id is not None:
        statement = statement.where(events.c.flow_id == flow_id)
    if after is not None:
        flow, event_id = after
        # The first comparison is implied; it lets the planner prune partitions.
        statement = statement.where(
            events.c.event_id >= event_id,
            tuple_(events.c.event_id, events.c.flow_id) > tuple_(event_id, flow),
        )
    return [
        Known(*row[:5], sha256=bytes(row[5]), position=row[6], recorded_at=row[7])
        for row in connection.execute(statement)
    ]


_KEYS: Final = (
    " FROM unnest(:flow_ids, :event_ids) AS asked (flow_id, event_id)"
    ' JOIN auditstore.events e ON e.flow_id = asked.flow_id COLLATE "C"'
    ' AND e.event_id = asked.event_id COLLATE "C"'
)
_ARRAYS: Final = (
    bindparam("flow_ids", type_=ARRAY(Text)),
    bindparam("event_ids", type_=ARRAY(Text)),
)
_PAYLOADS: Final = text(
    "SELECT e.flow_id, e.event_id, e.payload::text AS payload" + _KEYS
).bindparams(*_ARRAYS)
_PLACES: Final = text("SELECT e.flow_id, e.event_id, e.position, e.recorded_at" + _KEYS).bindparams(
    *_ARRAYS
)


def _asked(keys: Sequence[Key]) -> dict[str, list[str]]:
    return {"flow_ids": [flow for flow, _ in keys], "event_ids": [event for _, event in keys]}


def payloads_of(connection: Connection, keys: Sequence[Key]) -> dict[Key, bytes]:
    """The snapshots of those of ``keys`` that are stored, byte for byte."""
    found = connection.execute(_PAYLOADS, _asked(keys))
    return {(row.flow_id, row.event_id): row.payload.encode() for row in found}


def places_of(connection: Connection, keys: Sequence[Key]) -> dict[Key, tuple[int, datetime]]:
    """Position and time of recording of those of ``keys`` that are stored."""
    found = connection.execute(_PLACES, _asked(keys))
    return {(row.flow_id, row.event_id): (row.position, row.recorded_at) for row in found}


def first_events_of_leads(connection: Connection, lead_ids: Sequence[str]) -> dict[str, str]:
    """Of these leads, those that are known, each with its first event's id."""
    found = connection.execute(
        select(events.c.lead_id, func.min(events.c.event_id))
        .where(events.c.lead_id == func.any(cast(lead_ids, ARRAY(Text))))
        .group_by(events.c.lead_id)
    )
    return {row[0]: row[1] for row in found}


def leads_of_events(connection: Connection, event_ids: Sequence[str]) -> dict[str, str]:
    """The leads of those of the events that are stored and have one."""
    found = connection.execute(
        select(events.c.event_id, events.c.lead_id).where(
            events.c.event_id == func.any(cast(event_ids, ARRAY(Text))),
            events.c.lead_id.is_not(None),
        )
    )
    return {row[0]: row[1] for row in found}
