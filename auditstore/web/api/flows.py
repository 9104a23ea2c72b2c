"""LeadConduit's `GET` and `PUT /flows/{id}`: the firehose object, kept as streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, NoReturn

from fastapi import APIRouter, Path, Query
from sqlalchemy import Connection

from auditstore import streams
from auditstore.destinations import Destination
from auditstore.errors import ConfigurationError, NotFound
from auditstore.sql.console import newest_of_flows
from auditstore.streams import NewStream, Stream
from auditstore.web.api.auth import Caller, Operator, Viewer
from auditstore.web.api.firehose_form import (
    SCHEMES,
    Asked,
    FlowShown,
    FlowToSet,
    OlderFirehose,
    asked_of,
    firehose_of,
    newest_of,
)
from auditstore.web.api.places import insist_on_place
from auditstore.web.api.problems import FieldFault, Refused, answers
from auditstore.web.api.state import FlowId, InApi
from auditstore.web.reach import credentials_for

router = APIRouter(prefix="/flows", tags=["LeadConduit"])

Flow = Annotated[FlowId, Path(description="The flow's id.")]


@router.get("/{flow_id:path}", responses=answers())
def get_flow(
    api: InApi, caller: Viewer, flow_id: Flow,
    firehose: Annotated[
        Literal["newer", "older"], Query(description="The form; the older one knows only S3.")
    ] = "newer",
) -> FlowShown:  # fmt: skip
    """A flow with its firehose object; NotFound for one with neither events nor streams."""
    caller.insist_on(flow_id)
    with api.reading() as connection:
        return _shown(connection, flow_id, older=firehose == "older")


@router.put("/{flow_id:path}", responses=answers(409))
def put_flow(api: InApi, caller: Operator, flow_id: Flow, given: FlowToSet) -> FlowShown:
    """Set a flow's firehose: all that it asks for, or nothing.

    Another bucket or prefix is another stream, which covers every event appended from now on;
    the one before it stops. What the object does not have (format, sizes) stays as it was.
    """
    caller.insist_on(flow_id)
    with api.changing() as connection:
        of_flow = streams.find(connection, flow_id=flow_id)
        for each in asked_of(given.firehose):
            _set(connection, caller, flow_id, of_flow, each)
        older = isinstance(given.firehose, OlderFirehose)
        return _shown(connection, flow_id, older=older)


def _shown(connection: Connection, flow_id: str, *, older: bool) -> FlowShown:
    of_flow = streams.find(connection, flow_id=flow_id)
    newest = newest_of_flows(connection, [flow_id]).get(flow_id)
    if newest is None and not of_flow:
        raise NotFound(
            f"there is no event and no stream of the flow {flow_id}",
            hint="PUT its firehose object, or append its first event.",
        )
    return FlowShown(
        id=flow_id, name=newest.name if newest else None,
        firehose=firehose_of(of_flow, older=older),
    )  # fmt: skip


def _set(
    connection: Connection, caller: Caller, flow_id: str, of_flow: list[Stream], asked: Asked
) -> None:
    now = newest_of(asked.service, of_flow)
    place = _place(asked, now)
    target = now if place is None else _at(place, of_flow)
    if now is not None and now.enabled and (not asked.enabled or now is not target):
        streams.disable(connection, now.stream_id, actor=caller.actor)
    if target is None:
        if place is not None:
            _add(connection, caller, flow_id, place, asked, now)
        return
    settings = _settings(connection, caller, asked, target)
    if settings:
        endpoint = settings.get("endpoint_url", target.endpoint_url)
        insist_on_place(
            caller, replace(target.destination, endpoint_url=endpoint), before=target,
            has_secret=settings.get("credential_id", target.credential_id) is not None,
        )  # fmt: skip
        streams.change(connection, target.stream_id, settings, actor=caller.actor)
    if asked.enabled:
        streams.enable(connection, target.stream_id, actor=caller.actor)


def _place(asked: Asked, now: Stream | None) -> Destination | None:
    """Where the service is to deliver: what is left out is as it was."""
    before = now.destination if now is not None else None
    bucket = asked.values.bucket if "bucket" in asked.given else before and before.bucket
    if not bucket:
        if asked.enabled:
            _refuse(asked, "bucket", "an enabled service needs a bucket")
        return None
    prefix = asked.values.prefix if "prefix" in asked.given else before and before.prefix
    endpoint = _given(asked, "endpoint_url", now.endpoint_url if now is not None else None)
    try:
        return Destination(SCHEMES[asked.service], bucket, (prefix or "").strip("/"), endpoint)
    except ConfigurationError as error:
        _refuse(asked, "bucket", error.message, error.hint)


def _refuse(asked: Asked, field: str, message: str, hint: str = "") -> NoReturn:
    raise Refused(
        422, "configuration", f"{asked.service}: {message}", hint=hint or "Nothing was changed.",
        errors=[FieldFault(field=f"body.firehose.services.{asked.service}.{field}",
                           message=message)],
    )  # fmt: skip


def _at(place: Destination, of_flow: list[Stream]) -> Stream | None:
    same = [each for each in of_flow if each.url == place.url]
    return max(same, key=lambda each: (each.enabled, each.changed_at), default=None)


def _given(asked: Asked, name: str, before: Any) -> Any:
    return (getattr(asked.values, name) or None) if name in asked.given else before


def _credential_id(
    connection: Connection, caller: Caller, asked: Asked, before: int | None
) -> int | None:
    number = asked.values.credential_id
    if "credential_id" not in asked.given:
        return before
    if number is None:
        return None
    known = credentials_for(connection, caller.flows)
    found = [each for each in known if str(each.credential_id) == number]
    kind = SCHEMES[asked.service]
    if not found or found[0].kind != kind:
        _refuse(asked, "credential_id", f"there is no {kind} credential number {number}",
                "GET /api/v1/credentials lists them.")  # fmt: skip
    return found[0].credential_id


def _settings(
    connection: Connection, caller: Caller, asked: Asked, target: Stream
) -> dict[str, Any]:
    wanted = {
        "endpoint_url": _given(asked, "endpoint_url", target.endpoint_url),
        "region": _given(asked, "region", target.region),
        "credential_id": _credential_id(connection, caller, asked, target.credential_id),
    }
    before = {name: getattr(target, name) for name in wanted}
    return {name: value for name, value in wanted.items() if value != before[name]}


def _add(  # noqa: PLR0917  # called once, above, with what it says
    connection: Connection, caller: Caller, flow_id: str, place: Destination, asked: Asked,
    now: Stream | None,
) -> None:  # fmt: skip
    """A stream for the new place, with the settings of the one before it."""
    kept: dict[str, Any] = {}
    if now is not None:
        kept = {
            "options": now.options, "format": now.format, "key_template": now.key_template,
            "limits": now.limits,
        }  # fmt: skip
    new = NewStream(
        flow_id=flow_id, url=place.url, endpoint_url=place.endpoint_url,
        region=_given(asked, "region", now.region if now else None),
        credential_id=_credential_id(connection, caller, asked, now.credential_id if now else None),
        enabled=asked.enabled, **kept,
    )  # fmt: skip
    insist_on_place(caller, place, has_secret=new.credential_id is not None, before=now)
    streams.add(connection, new, actor=caller.actor)
