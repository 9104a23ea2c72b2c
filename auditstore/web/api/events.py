"""LeadConduit's `GET /events` and `GET /events/{id}`: snapshots, byte for byte as appended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from auditstore.errors import NotFound
from auditstore.events import is_event_id
from auditstore.repository import EventRepository
from auditstore.sql import events as sql
from auditstore.sql.accounts import insert_readings
from auditstore.sql.events import EventFilter, Order
from auditstore.taking import Key, key
from auditstore.web.api.auth import Viewer
from auditstore.web.api.fields import Shape, fields_of, shape
from auditstore.web.api.problems import Refused, answers
from auditstore.web.api.rules import Rule, parse_rules
from auditstore.web.api.state import Api, EventId, FlowId, InApi

router = APIRouter(tags=["LeadConduit"])

#: How many snapshots are in memory at once.
_CHUNK: Final = 50
_MOMENT: Final = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d([.,]\d+)?)?([Zz]|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)


def moment(value: Any) -> datetime | None:
    """A time of ISO 8601, in UTC unless it says otherwise."""
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("write a time like 2026-11-24T09:00:00Z")
    found = datetime.fromisoformat(value.upper())
    return found if found.tzinfo else found.replace(tzinfo=UTC)


Moment = Annotated[
    datetime | None, BeforeValidator(moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]  # fmt: skip


class EventsAsked(BaseModel):
    """The parameters of `GET /events`; others are refused, so that none is mistyped in vain."""

    model_config = ConfigDict(extra="forbid")

    after_id: EventId | None = Field(
        default=None, description="Only events after this id (exclusive)."
    )
    before_id: EventId | None = Field(
        default=None, description="Only events before this id (exclusive)."
    )
    start: Moment = Field(
        default=None,
        description="Only events created at or after this time, to the second of their id.",
    )
    end: Moment = Field(default=None, description="Only events created at or before this time.")
    rules: str | None = Field(
        default=None, max_length=20_000,
        description="A JSON array of rules, `[{lhv, op, rhv}]`, all of which must be true.",
        json_schema_extra={"contentMediaType": "application/json"},
    )  # fmt: skip
    include: list[str] = Field(
        default=[], description="Only these fields, repeated or with commas."
    )
    exclude: list[str] = Field(default=[], description="All but these fields. Not with include.")
    limit: int = Field(
        default=100, ge=1, le=1000,
        description="The most events to answer. Where flows share the last one's id, all of them "
        "come, so that no page begins between them.",
    )  # fmt: skip
    sort: Order = Field(
        default="desc", description="asc for the oldest first, desc for the newest."
    )


_ARRAY: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The events, as they were appended.",
        "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}},
    }
}  # fmt: skip
_OBJECT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The event, as it was appended.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}  # fmt: skip


@router.get("/events", response_class=StreamingResponse, responses=_ARRAY | answers())
def list_events(api: InApi, caller: Viewer, asked: Annotated[EventsAsked, Query()]) -> Response:
    """Events by the order of their ids, across all flows. What is answered is recorded as read."""
    cut = shape(asked.include, asked.exclude)
    rule = parse_rules(asked.rules) if asked.rules else None
    wanted = EventFilter(
        after_id=asked.after_id and asked.after_id.lower(),
        before_id=asked.before_id and asked.before_id.lower(),
        start=asked.start, end=_beyond(asked.end), flow_ids=caller.flows,
    )  # fmt: skip
    with api.changing() as connection:
        if rule is None:
            found = _first(connection, wanted, asked)
        else:
            found = _matching(api, connection, wanted, rule, asked)
        insert_readings(connection, caller.actor, found)
    return StreamingResponse(_array(api, found, cut), media_type="application/json")


@router.get("/events/{event_id}", response_class=Response, responses=_OBJECT | answers(409))
def get_event(
    api: InApi, caller: Viewer, event_id: EventId,
    flow_id: Annotated[FlowId | None, Query(description="Where flows share the id.")] = None,
) -> Response:  # fmt: skip
    """One event. That it was read is recorded."""
    assert is_event_id(event_id)  # noqa: S101  # its type
    with api.changing() as connection:
        found = [
            each for each in EventRepository().get(connection, event_id, flow_id=flow_id)
            if caller.may_see(each.event.flow_id)
        ]  # fmt: skip
        if not found:
            raise NotFound(
                f"there is no event {event_id}", hint="GET /events?limit=1 answers the newest."
            )
        if len(found) > 1:
            flows = ", ".join(each.event.flow_id for each in found)
            raise Refused(
                409, "event-in-several-flows", f"several flows have an event {event_id}: {flows}",
                hint="Name one with flow_id.",
            )  # fmt: skip
        event = found[0].event
        insert_readings(connection, caller.actor, [key(event)])
    return Response(event.payload, media_type="application/json")


def _beyond(end: datetime | None) -> datetime | None:
    """The first second behind an inclusive end; none behind the end of all times."""
    if end is None:
        return None
    try:
        return end.replace(microsecond=0) + timedelta(seconds=1)
    except OverflowError:
        return None


def _first(connection: Connection, wanted: EventFilter, asked: EventsAsked) -> list[Key]:
    """The keys of the first events, and of those that other flows keep under the last id.

    A client goes on after the last id: what shares it would never be asked for.
    """
    found = sql.keys(connection, wanted, order=asked.sort, limit=asked.limit)
    is_full = len(found) == asked.limit
    while is_full:
        last = found[-1]
        more = sql.keys(connection, wanted, order=asked.sort, limit=_CHUNK, after=last)
        same = list(takewhile(lambda each: each[1] == last[1], more))  # noqa: B023  # used at once
        found += same
        is_full = len(same) == _CHUNK
    return found


def _matching(
    api: Api, connection: Connection, wanted: EventFilter, rule: Rule, asked: EventsAsked
) -> list[Key]:
    """As :func:`_first`, of those for which the rules hold; Refused if that takes too long.

    Never fewer than there are: a client would take a short page for the last one.
    """
    found: list[Key] = []
    looked_at = 0
    after: Key | None = None
    while True:
        page = sql.page(connection, wanted, order=asked.sort, limit=_CHUNK, after=after)
        for each in page:
            if len(found) >= asked.limit and each.event.event_id != found[-1][1]:
                return found
            if rule(fields_of(each.event.payload)):
                found.append(key(each.event))
        if len(page) < _CHUNK:
            return found
        looked_at += len(page)
        after = key(page[-1].event)
        if looked_at >= api.settings.looked_at and len(found) < asked.limit:
            raise Refused(
                422, "rules-too-broad",
                f"{looked_at:,} events were looked at and the rules hold for {len(found):,}",
                hint=f"Narrow it with start and end, or ask for at most limit={len(found) or 1}: "
                f"it looked as far as {after[1]}.",
            )  # fmt: skip


def _array(api: Api, found: list[Key], cut: Shape | None) -> Iterator[bytes]:
    separator = b"["
    for first in range(0, len(found), _CHUNK):
        with api.reading() as connection:
            snapshots = sql.snapshots(connection, found[first : first + _CHUNK])
        # A chunk at once: each piece that is yielded passes from thread to thread.
        yield separator + b",".join(map(cut, snapshots) if cut else snapshots)
        separator = b","
    yield b"[]" if separator == b"[" else b"]"
