"""The Deliveries tab: a stream's files, their delay, and what stands in the way."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from auditstore import streams
from auditstore.cli.overview import progress_of
from auditstore.errors import NotFound
from auditstore.sql import console as sql
from auditstore.sql import leases, server
from auditstore.web.console import charts
from auditstore.web.console.flows import frame, worst_first
from auditstore.web.console.pages import Visit, moved, shown
from auditstore.web.console.stream_wish import SERVICE_NAMES

_PAGE: Final = 50
_CHARTED: Final = 200


def deliveries(visit: Visit) -> Response:
    """The files of one of the flow's streams, the newest first; blocked streams before all."""
    flow_id = visit.flow_id
    with visit.reading() as connection:
        daemons, now = leases.list_daemons(connection), server.clock(connection)
        standing = worst_first(
            [progress_of(connection, each, daemons, now)
             for each in streams.find(connection, flow_id=flow_id)], now,
        )  # fmt: skip
        chosen = next(
            (each for each in standing if str(each.stream.stream_id) == visit.query.get("stream")),
            standing[0] if standing else None,
        )
        before = visit.query.get("before", "")
        files, points = [], []
        if chosen is not None:
            stream_id = chosen.stream.stream_id
            files = sql.latest_files(
                connection, stream_id, limit=_PAGE + 1,
                before=int(before) if before.isdecimal() and len(before) < 19 else None,
            )  # fmt: skip
            points = sql.delays(connection, stream_id, limit=_CHARTED)
        now = server.clock(connection)
    more = files[_PAGE - 1].sealed.sequence if len(files) > _PAGE else None
    template = "deliveries_body.html" if visit.query.get("part") else "deliveries.html"
    return shown(
        visit, template, frame=frame(visit, flow_id), standing=standing, chosen=chosen,
        files=files[:_PAGE], more=more, before=before, now=now, service_names=SERVICE_NAMES,
        chart=charts.lag(points, chosen.stream.limits.max_delay) if points and chosen else None,
    )  # fmt: skip


def resume(visit: Visit) -> Response:
    """Let a blocked or halted stream try again at once."""
    flow_id = visit.flow_id
    number = visit.form.get("stream", "")
    with visit.changing() as connection:
        found = [
            each for each in streams.find(connection, flow_id=flow_id)
            if str(each.stream_id) == number
        ]  # fmt: skip
        if not found:
            raise NotFound("there is no such stream of this flow", hint="Reload the page.")
        streams.resume(connection, found[0].stream_id, actor=visit.actor)
    return moved(visit, "/flow", id=flow_id, done="resumed")
