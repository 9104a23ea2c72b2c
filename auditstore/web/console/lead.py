"""A test lead, sent from the page and watched from the append to the object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from starlette.responses import Response

from auditstore import streams
from auditstore.cli.daemons import any_alive
from auditstore.cli.object_urls import object_key, object_url
from auditstore.errors import ConfigurationError
from auditstore.events import StoredEvent
from auditstore.repository import EventRepository
from auditstore.sql import progress, server
from auditstore.sql.console import newest_of_flows
from auditstore.streams import Stream
from auditstore.web.console.flows import frame
from auditstore.web.console.pages import Visit, moved, shown

_STOPPED = ("blocked", "halted")


@dataclass(frozen=True, slots=True)
class Watched:
    """One event on its way to one stream's store."""

    stored: StoredEvent
    stream: Stream
    state: str
    key: str | None
    delivered_at: datetime | None

    @property
    def delay(self) -> float | None:
        """Seconds from the append to the delivery, by the server's clock."""
        if self.delivered_at is None:
            return None
        return (self.delivered_at - self.stored.recorded_at).total_seconds()


def send(visit: Visit) -> Response:
    """Append a test lead's events, unless they could not arrive; then say why."""
    from auditstore.demo.flow_engine import test_lead  # noqa: PLC0415  # only a test needs it

    flow_id = visit.flow_id
    with visit.reading() as connection:
        refusal = _refusal(connection, flow_id)
        newest = newest_of_flows(connection, [flow_id]).get(flow_id)
    if refusal is not None:
        return shown(
            visit, "lead.html", status=409, frame=frame(visit, flow_id), refusal=refusal,
            lead_id="", watched=[], now=None, finished=True,
        )  # fmt: skip
    # Under the flow's own name, or the newest event would give it another one.
    name = newest.name if newest else None
    lead = test_lead(flow_id, time.time, flow_name=name or flow_id)
    with visit.changing() as connection:
        EventRepository().append(connection, lead.events, flow_id=flow_id)
    return moved(visit, "/flow/lead", id=flow_id, lead=lead.lead_id)


def watch(visit: Visit) -> Response:
    """How far the test lead's events are; asks again by itself until all have arrived."""
    flow_id, lead_id = visit.flow_id, visit.query.get("lead", "")
    with visit.reading() as connection:
        watched, of_flow = _watched(connection, flow_id, lead_id)
        now, exporting = server.clock(connection), any_alive(connection)
        refusal = None if exporting and of_flow else _refusal(connection, flow_id)
    stopped = next((each for each in of_flow if each.shown_state in _STOPPED), None)
    if stopped is not None:
        refusal = _stopped(stopped)
    finished = all(each.state == "delivered" for each in watched)
    template = "lead_progress.html" if visit.query.get("part") else "lead.html"
    return shown(
        visit, template, frame=frame(visit, flow_id) if template == "lead.html" else None,
        refusal=None if finished and watched else refusal, lead_id=lead_id, watched=watched,
        now=now, finished=finished,
    )  # fmt: skip


def _watched(
    connection: Connection, flow_id: str, lead_id: str
) -> tuple[list[Watched], Sequence[Stream]]:
    stored = [
        each
        for each in EventRepository().lead(connection, lead_id)
        if each.event.flow_id == flow_id
    ] if lead_id else []  # fmt: skip
    of_flow = [each for each in streams.find(connection, flow_id=flow_id) if each.enabled]
    return [_on_its_way(connection, each, stream) for stream in of_flow for each in stored], of_flow


def _on_its_way(connection: Connection, stored: StoredEvent, stream: Stream) -> Watched:
    file = progress.file_holding(connection, stream.stream_id, stored.position)
    if file is None:
        return Watched(stored, stream, "appended", None, None)
    state = "sealed" if file.delivered_at is None else "delivered"
    try:
        key = object_url(stream, object_key(stream, stored, file))
    except ConfigurationError:
        key = None
    return Watched(stored, stream, state, key, file.delivered_at)


def _refusal(connection: Connection, flow_id: str) -> ConfigurationError | None:
    """Why a test lead could not arrive."""
    of_flow = streams.find(connection, flow_id=flow_id)
    running = [each for each in of_flow if each.enabled]
    if not running:
        return ConfigurationError(
            "the flow's events are not streamed, so a test lead would not arrive anywhere",
            hint="Switch the Event Stream on first: the icon at the upper right.",
        )
    stopped = next((each for each in running if each.shown_state in _STOPPED), None)
    if stopped is not None:
        return _stopped(stopped)
    if not any_alive(connection):
        return ConfigurationError(
            "no exporter is running, so nothing is delivered",
            hint="Start one with `auditstore export run`, then send the test lead.",
        )
    return None


def _stopped(stream: Stream) -> ConfigurationError:
    return ConfigurationError(
        f"stream {stream.stream_id} is {stream.shown_state}: {stream.status.cause}",
        hint=stream.status.hint or "",
    )
