"""Append over HTTP: one event, an array or a line each, with an answer for every event.

A body's events go in one transaction. Each stands for itself: a refused one takes nothing from
the others. Sending the same body again changes nothing and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from auditstore.errors import EventConflict, EventRefused
from auditstore.events import Event, FieldRefused
from auditstore.repository import EventRepository
from auditstore.web.api.auth import Caller, Operator
from auditstore.web.api.bodies import JSON, NDJSON, taken_apart
from auditstore.web.api.problems import Refused, answers
from auditstore.web.api.state import Api, FlowId, InApi

router = APIRouter(tags=["Events"])

Result = Literal["appended", "existing", "conflict", "refused"]
_MOST_EVENTS: Final = 10_000
_IMMUTABLE: Final = "Events are immutable: give changed content an id of its own."


class Answer(BaseModel):
    """What became of one event of the body."""

    index: int = Field(description="Its place in the body, from 0.")
    id: str | None = Field(description="The event's id, where it could be read.")
    result: Result = Field(
        description="existing: stored before, with the same content. conflict: stored before, "
        "with other content. refused: cannot be stored."
    )
    field: str | None = Field(default=None, description="Which field it was refused for.")
    message: str | None = Field(default=None, description="What is wrong.")
    hint: str | None = Field(default=None, description="What to do about it.")


class Appended(BaseModel):
    """What became of every event of the body, in its order."""

    appended: int
    existing: int
    refused: int = Field(description="Those in conflict, too.")
    events: list[Answer]


class EventBody(BaseModel):
    """What every event has; all other fields are kept as they are sent."""

    id: str = Field(pattern="^[0-9a-fA-F]{24}$", description="A BSON ObjectId.")
    vars: EventVars


class EventVars(BaseModel):
    """All data known when the step began."""

    flow: Owner
    lead: Owner | None = None


class Owner(BaseModel):
    """The flow or the lead that the event belongs to."""

    id: str = Field(min_length=1, max_length=60)


EventBody.model_rebuild()
_EVENT: Final = EventBody.model_json_schema(ref_template="#/components/schemas/{model}")
#: The schemas that the body's refer to, for the application's description.
SCHEMAS: Final[dict[str, Any]] = {
    **_EVENT.pop("$defs"), "EventBody": _EVENT,
}  # fmt: skip
_REF: Final = {"$ref": "#/components/schemas/EventBody"}
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"anyOf": [
                _REF, {"type": "array", "items": _REF, "maxItems": _MOST_EVENTS},
            ]}},
            NDJSON[0]: {"schema": {"type": "string", "description": "An event a line."}},
        },
    }
}  # fmt: skip
_ANSWERS: Final = answers(409, 415) | {
    201: {"description": "All are stored, some of them by this call.", "model": Appended},
    207: {"description": "Some are refused; see each event's answer.", "model": Appended},
}  # fmt: skip


@router.post(
    "/events", response_model=Appended, openapi_extra=_BODY, responses=_ANSWERS,
    response_description="All were stored before this call.",
)  # fmt: skip
async def append_events(  # noqa: PLR0917  # FastAPI calls it by name
    api: InApi, caller: Operator, request: Request, response: Response,
    flow_id: Annotated[
        FlowId | None, Query(description="For events that carry no vars.flow.id.")
    ] = None,
    lead_id: Annotated[
        FlowId | None, Query(description="For events that carry no vars.lead.id.")
    ] = None,
) -> Appended:  # fmt: skip
    """Append events, each for itself: a refused one takes nothing from the others.

    A single event that is refused is a problem, 422 or 409; of several, each has its answer.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(
            415, "unsupported-media-type", "a compressed body is not taken",
            hint="Send it as it is.",
        )  # fmt: skip
    try:
        body = await request.body()
    except ClientDisconnect:
        raise Refused(400, "bad-request", "the body did not come to its end") from None
    kind = request.headers.get("content-type", "")
    done = await run_in_threadpool(_append, api, caller, body, kind, flow_id, lead_id)
    response.status_code = 207 if done.refused else 201 if done.appended else 200
    return done


def _append(  # noqa: PLR0917  # called once, above, with what it says
    api: Api, caller: Caller, body: bytes, kind: str, flow_id: str | None, lead_id: str | None
) -> Appended:
    given = taken_apart(body, kind)
    if len(given) > _MOST_EVENTS and isinstance(given, list):
        raise Refused(
            413, "too-many-events", f"{len(given):,} events at once are too many",
            hint=f"Send at most {_MOST_EVENTS:,}.",
        )  # fmt: skip
    batch = _Batch(api.settings.max_event, caller, flow_id, lead_id)
    with api.changing() as connection:
        if isinstance(given, bytes):
            batch.one(connection, given)
            found = [Answer(index=0, id=batch.last_id, result=batch.last_result)]
        else:
            found = batch.many(connection, given)
    results = [each.result for each in found]
    return Appended(
        appended=results.count("appended"), existing=results.count("existing"),
        refused=results.count("refused") + results.count("conflict"), events=found,
    )  # fmt: skip


class _Batch:
    def __init__(
        self, max_bytes: int, caller: Caller, flow_id: str | None, lead_id: str | None
    ) -> None:
        self._max_bytes = max_bytes
        self._caller = caller
        self._flow_id, self._lead_id = flow_id, lead_id
        self._repository = EventRepository(max_event_bytes=max_bytes)
        self.last_id: str | None = None
        self.last_result: Result = "appended"

    def one(self, connection: Connection, snapshot: bytes) -> None:
        """Append one; EventRefused, EventConflict or Refused where it is not stored."""
        self.last_id = None
        event = self._taken(0, snapshot)
        self.last_id = event.event_id
        done = self._repository.append(connection, event)
        self.last_result = "appended" if done.appended else "existing"

    def many(self, connection: Connection, snapshots: Sequence[bytes]) -> list[Answer]:
        """All at once where all are good and new; otherwise one by one, to tell them apart."""
        try:
            taken = [self._taken(index, each) for index, each in enumerate(snapshots)]
            with connection.begin_nested() as all_of_them:
                done = self._repository.append(connection, taken)
                if done.existing:
                    all_of_them.rollback()
        except (EventRefused, EventConflict, Refused):
            return [self._told(connection, *each) for each in enumerate(snapshots)]
        if done.existing:
            return [self._told(connection, *each) for each in enumerate(snapshots)]
        return [
            Answer(index=index, id=event.event_id, result="appended")
            for index, event in enumerate(taken)
        ]

    def _told(self, connection: Connection, index: int, snapshot: bytes) -> Answer:
        try:
            with connection.begin_nested():
                self.one(connection, snapshot)
        except EventRefused as error:
            return Answer(index=index, id=error.event_id, result="refused", field=error.field,
                          message=error.reason, hint="Correct it and append it again.")  # fmt: skip
        except EventConflict as error:
            return Answer(index=index, id=error.event_id, result="conflict",
                          message=error.message, hint=_IMMUTABLE)  # fmt: skip
        except Refused as error:
            return Answer(index=index, id=self.last_id, result="refused", field="vars.flow.id",
                          message=error.message, hint=error.hint)  # fmt: skip
        return Answer(index=index, id=self.last_id, result=self.last_result)

    def _taken(self, index: int, snapshot: bytes) -> Event:
        try:
            event = Event.from_json(
                snapshot, flow_id=self._flow_id, lead_id=self._lead_id, max_bytes=self._max_bytes
            )
        except FieldRefused as error:
            raise EventRefused(
                index=index, event_id=error.event_id, field=error.field, reason=error.reason
            ) from error
        self._caller.insist_on(event.flow_id)
        return event
