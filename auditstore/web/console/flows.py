"""The list of flows, and a flow's first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import Connection
from starlette.responses import Response

from auditstore import streams
from auditstore.cli.daemons import any_alive
from auditstore.cli.overview import StreamProgress, progress_of
from auditstore.sql import console as sql
from auditstore.sql import leases, server
from auditstore.streams import Stream
from auditstore.web.console import charts
from auditstore.web.console.day_counts import DAYS, DayCounts
from auditstore.web.console.pages import Visit, shown
from auditstore.web.console.stream_wish import SERVICE_NAMES

_PAGE: Final = 50
_WORST_FIRST: Final = ("halted", "blocked", "retrying", "late", "streaming", "disabled")


@dataclass(frozen=True, slots=True)
class FlowLine:
    """A flow in the list, with the worst state of its streams."""

    flow_id: str
    newest: sql.NewestEvent | None
    streams: Sequence[Stream]

    @property
    def state(self) -> str:
        """The worst state of the flow's streams in one word."""
        states = {each.shown_state for each in self.streams}
        return next((each for each in _WORST_FIRST if each in states), "no stream")

    @property
    def services(self) -> list[str]:
        """Where it is delivered to, in people's words."""
        kinds = [each.url.partition(":")[0] for each in self.streams if each.enabled]
        return [SERVICE_NAMES[kind] for kind in dict.fromkeys(kinds)]


def flows(visit: Visit) -> Response:
    """Every flow that the store has seen, a page of them."""
    part, after = visit.query.get("search", "").strip(), visit.query.get("after", "")
    with visit.reading() as connection:
        ids = _flow_ids(connection, visit, after, part)
        lines = _lines(connection, ids[:_PAGE])
        now, exporting = server.clock(connection), any_alive(connection)
    more = ids[_PAGE - 1] if len(ids) > _PAGE else None
    template = "flows_rows.html" if visit.query.get("part") == "rows" else "flows.html"
    return shown(
        visit, template, lines=lines, now=now, exporting=exporting, search=part, more=more,
        after=after, sparks=None if template == "flows.html" else _sparks(visit, lines),
    )  # fmt: skip


def flow(visit: Visit) -> Response:
    """A flow: how its streams stand, and its events of the last days."""
    flow_id = visit.flow_id
    with visit.reading() as connection:
        known = sql.newest_of_flows(connection, [flow_id]).get(flow_id)
        found = streams.find(connection, flow_id=flow_id)
        daemons, now = leases.list_daemons(connection), server.clock(connection)
        standing = [progress_of(connection, each, daemons, now) for each in found]
        exporting = any_alive(connection)
        now = server.clock(connection)
    standing.sort(key=lambda each: (_WORST_FIRST.index(each.standing(now)), -each.stream.stream_id))
    template = "flow_state.html" if visit.query.get("part") == "state" else "flow.html"
    return shown(
        visit, template, frame=frame(visit, flow_id, known, found), standing=standing, now=now,
        exporting=exporting, service_names=SERVICE_NAMES, done=visit.query.get("done", ""),
        chart=None if template == "flow_state.html" else _chart(visit, flow_id),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FlowFrame:
    """What every page of a flow has above its tabs."""

    flow_id: str
    name: str | None
    state: str
    known: bool


def frame(
    visit: Visit, flow_id: str, newest: sql.NewestEvent | None = None,
    found: Sequence[Stream] | None = None,
) -> FlowFrame:  # fmt: skip
    """The frame of a flow's pages; what is not given is asked for."""
    if found is None:
        with visit.reading() as connection:
            newest = sql.newest_of_flows(connection, [flow_id]).get(flow_id)
            found = streams.find(connection, flow_id=flow_id)
    line = FlowLine(flow_id, newest, found)
    return FlowFrame(flow_id, newest.name if newest else None, line.state,
                     known=newest is not None or bool(found))  # fmt: skip


def _flow_ids(connection: Connection, visit: Visit, after: str, part: str) -> list[str]:
    if visit.person.flows is not None:
        mine = sorted(visit.person.flows, key=str.encode)
        return [each for each in mine if each > after and part.lower() in each.lower()]
    found = {
        *sql.flows_with_events(connection, after=after, part=part, limit=_PAGE + 1),
        *sql.flows_with_streams(connection, after=after, part=part, limit=_PAGE + 1),
    }
    return sorted(found, key=str.encode)[: _PAGE + 1]


def _lines(connection: Connection, ids: Sequence[str]) -> list[FlowLine]:
    newest = sql.newest_of_flows(connection, ids)
    of_flow: dict[str, list[Stream]] = {}
    for stream in streams.find(connection):
        of_flow.setdefault(stream.flow_id, []).append(stream)
    return [FlowLine(each, newest.get(each), of_flow.get(each, [])) for each in ids]


# --- events per day -------------------------------------------------------------------


def _sparks(visit: Visit, lines: Sequence[FlowLine]) -> dict[str, Any]:
    per_flow = _per_day(visit, [each.flow_id for each in lines])
    days = charts.days_up_to(_today(), DAYS)
    return {flow_id: charts.spark(per_day, days) for flow_id, per_day in per_flow.items()}


def _chart(visit: Visit, flow_id: str) -> Any | None:
    """The chart, or ``None`` where counting would take too long."""
    per_day = _per_day(visit, [flow_id]).get(flow_id)
    days = charts.days_up_to(_today(), DAYS)
    return None if per_day is None else charts.events_per_day(per_day, days)


def _per_day(visit: Visit, flow_ids: Sequence[str]) -> dict[str, Mapping[date, int]]:
    counts: DayCounts = visit.state.day_counts
    return counts.of(visit.reading, flow_ids, _today())


def _today() -> date:
    return datetime.now(UTC).date()


def worst_first(standing: Sequence[StreamProgress], now: datetime) -> list[StreamProgress]:
    """Blocked and halted streams before those that do well."""
    return sorted(standing, key=lambda each: _WORST_FIRST.index(each.standing(now)))
