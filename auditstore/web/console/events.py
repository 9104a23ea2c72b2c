"""The Events tab: a search, and one event beside its lead's timeline."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from markupsafe import Markup, escape
from sqlalchemy import Connection
from starlette.responses import Response

from auditstore import streams
from auditstore.cli.json_text import laid_out
from auditstore.cli.object_urls import object_key, object_url
from auditstore.errors import AuditStoreError, ConfigurationError, NotFound
from auditstore.events import StoredEvent, is_event_id
from auditstore.repository import EventRepository
from auditstore.sql import console as sql
from auditstore.sql import progress
from auditstore.sql import streams as stream_sql
from auditstore.sql.events import EventFilter
from auditstore.sql.standing import limit_time
from auditstore.streams import Stream
from auditstore.web.console.flows import frame
from auditstore.web.console.pages import Visit, link, shown

TYPES: Final = ("source", "filter", "recipient", "retry", "feedback-received", "feedback-sent")
OUTCOMES: Final = ("success", "failure", "error", "continue", "stop", "skip")
_PAGE: Final = 50
#: How many events one search looks at where no index tells them apart; fewer with their text.
_LOOK_AT: Final = 20_000
_LOOK_AT_TEXT: Final = 5_000
_SEARCHING_S: Final = 5.0
_NAMES: Final = ("start", "end", "type", "outcome", "lead", "reason", "text", "before")
_LARGEST_SHOWN: Final = 512 * 1024


@dataclass(slots=True)
class Asked:
    """The filters as they were typed, and what is wrong with them."""

    typed: dict[str, str]
    start: datetime | None = None
    end: datetime | None = None
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether anything narrows the list."""
        return any(value for name, value in self.typed.items() if name != "before")


def events(visit: Visit) -> Response:
    """A flow's events, newest first."""
    flow_id, asked = visit.flow_id, _asked(visit)
    found, refusal = sql.Searched([], None), None
    if not asked.errors:
        try:
            found = _found(visit, flow_id, asked)
        except AuditStoreError as error:
            refusal = error
    values = {name: value for name, value in asked.typed.items() if name != "before"}
    older = found.looked_to and link("/flow/events", id=flow_id, **values, before=found.looked_to)
    # The newest page renews itself; one that is further back stays as it is.
    is_live = not (asked.errors or refusal or asked.typed["before"])
    return shown(
        visit, "events.html", status=422 if asked.errors else 200, frame=frame(visit, flow_id),
        live=link("/flow/events", id=flow_id, **values) if is_live else None, asked=asked,
        rows=found.rows, older=older, refusal=refusal, types=TYPES, outcomes=OUTCOMES,
        full=len(found.rows) >= _PAGE,
    )  # fmt: skip


def event(visit: Visit) -> Response:
    """One event: its snapshot, its lead's timeline, and where it was delivered."""
    flow_id, event_id = visit.flow_id, visit.query.get("event", "")
    with visit.reading() as connection:
        found = EventRepository().get(connection, event_id, flow_id=flow_id)
        if not found:
            raise NotFound("there is no such event in this flow", hint="It may be in another.")
        (stored,) = found
        lead_id = stored.event.lead_id
        steps = sql.timeline(connection, flow_id, lead_id) if lead_id else []
        places = [
            _place(connection, each, stored) for each in streams.find(connection, flow_id=flow_id)
        ]
    if visit.record_reading is not None:
        # Lead data is personal: who read it, and when, is kept.
        with visit.changing() as connection:
            visit.record_reading(connection, flow_id, event_id)
    template = "event.html" if visit.is_fragment else "event_page.html"
    too_large = stored.event.size_bytes > _LARGEST_SHOWN
    return shown(
        visit, template, frame=None if visit.is_fragment else frame(visit, flow_id),
        flow_id=flow_id, stored=stored, steps=steps, places=places,
        json=None if too_large else coloured(stored.event.payload.decode()),
    )  # fmt: skip


# --- the search -----------------------------------------------------------------------


def _asked(visit: Visit) -> Asked:
    asked = Asked({name: visit.query.get(name, "").strip() for name in _NAMES})
    for name in ("start", "end"):
        text = asked.typed[name]
        if not text:
            continue
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            asked.errors[name] = "Write a date like 2026-11-24, or a time like 2026-11-24T09:00."
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        # A day that is named as the end belongs to the period.
        is_day = name == "end" and len(text) == len("2026-11-24")
        setattr(asked, name, moment + timedelta(days=1) if is_day else moment)
    if asked.start and asked.end and asked.start >= asked.end:
        asked.errors["end"] = "The end lies before the start."
    for name, choices in (("type", TYPES), ("outcome", OUTCOMES)):
        if asked.typed[name] and asked.typed[name] not in choices:
            asked.errors[name] = "Choose one of the list."
    if asked.typed["before"] and not is_event_id(asked.typed["before"]):
        asked.typed["before"] = ""
    for name, text in asked.typed.items():
        if "\0" in text:
            asked.errors[name] = "A NUL character cannot be looked for."
    return asked


def _found(visit: Visit, flow_id: str, asked: Asked) -> sql.Searched:
    typed = asked.typed
    wanted = EventFilter(
        flow_id=flow_id, lead_id=typed["lead"] or None, type=typed["type"] or None,
        outcome=typed["outcome"] or None, start=asked.start, end=asked.end,
        before_id=typed["before"].lower() or None,
    )  # fmt: skip
    with visit.reading() as connection:
        limit_time(connection, seconds=_SEARCHING_S)
        return sql.search(
            connection, wanted, reason=typed["reason"], words=typed["text"], limit=_PAGE,
            look_at=_LOOK_AT_TEXT if typed["text"] else _LOOK_AT,
        )  # fmt: skip


# --- one event ------------------------------------------------------------------------


def _place(connection: Connection, stream: Stream, stored: StoredEvent) -> dict[str, Any]:
    """Where one stream has the event."""
    file = progress.file_holding(connection, stream.stream_id, stored.position)
    if file is None:
        covered = any(
            start < stored.position and (end is None or stored.position <= end)
            for start, end in stream_sql.intervals(connection, stream.stream_id)
        )
        return {"stream": stream, "state": "waiting" if covered else "not covered", "file": None,
                "url": None}  # fmt: skip
    try:
        url = object_url(stream, object_key(stream, stored, file))
    except ConfigurationError:
        url = None
    state = "sealed" if file.delivered_at is None else "delivered"
    return {"stream": stream, "state": state, "file": file, "url": url}


_PART: Final = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|([^\s{}\[\],:"]+)')


def coloured(text: str) -> Markup:
    """A JSON text over several lines with names and values told apart, every byte as it was."""
    out, end = [], 0
    laid = laid_out(text)
    for part in _PART.finditer(laid):
        out.append(str(escape(laid[end : part.start()])))
        kind = "n" if part[2] else "t" if part[1] else "o"
        out.append(f'<span class="{kind}">{escape(part[1] or part[3])}</span>')
        out.append(part[2] or "")
        end = part.end()
    out.append(str(escape(laid[end:])))
    return Markup("".join(out))  # noqa: S704  # every part of the text is escaped above
