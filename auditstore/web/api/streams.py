"""Streams over HTTP: which flow's events go where, with the command line's own refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from auditstore import credentials, streams
from auditstore.destinations import Destination, parse_destination
from auditstore.errors import ConfigurationError
from auditstore.layout import Format
from auditstore.streams import Limits, NewStream, Stream
from auditstore.web.api.auth import Caller, Operator, Viewer
from auditstore.web.api.places import insist_on_place
from auditstore.web.api.problems import answers
from auditstore.web.api.state import FlowId, InApi, Text
from auditstore.web.reach import insist_on_credential

router = APIRouter(prefix="/streams", tags=["Streams"])

OptionName = Annotated[str, StringConstraints(pattern="^[a-z_]{1,40}$")]
StreamId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The stream's number.")]


class StreamStatus(BaseModel):
    """What the exporter last reported; of a disabled stream only `since` counts."""

    state: str
    code: str | None
    cause: str | None
    hint: str | None
    since: datetime
    attempts: int
    next_try_at: datetime | None


class StreamShown(BaseModel):
    """A stream's settings, and where the exporter stands with it. No secrets."""

    stream_id: int
    flow_id: str
    url: str
    endpoint_url: str | None
    region: str | None
    credential: str | None
    options: dict[str, str]
    format: str
    key_template: str
    max_bytes: int
    max_events: int
    max_delay: float
    enabled: bool
    state: str = Field(description="`disabled`, or what the exporter last reported.")
    status: StreamStatus
    changed_at: datetime
    sealed_sequence: int
    sealed_position: int
    delivered_sequence: int
    delivered_position: int
    chain_hash: str


class Settings(BaseModel):
    """What can be changed of a stream; what is left out stays, `null` takes it away."""

    model_config = ConfigDict(extra="forbid")

    endpoint_url: Text | None = Field(
        default=None, description="Of a server other than the cloud's own."
    )
    region: Text | None = Field(default=None, description="The bucket's region; of S3 only.")
    credential: Text | None = Field(
        default=None, description="Its name; else the environment's own."
    )
    options: dict[OptionName, Text] = Field(
        default={}, description="The store's own; all of them at once.",
        json_schema_extra={"additionalProperties": False},
    )  # fmt: skip
    format: Format = Field(
        default="ndjson.gz", description="Many events a file, or one object an event."
    )
    key_template: Text | None = Field(
        default=None, description="The keys of files, below the prefix."
    )
    max_bytes: int = Field(default=Limits().max_bytes, ge=1, le=1024**3)
    max_events: int = Field(default=Limits().max_events, ge=1, le=1_000_000)
    max_delay: float = Field(default=Limits().max_delay, ge=0, le=3600)


class StreamToAdd(Settings):
    """A new stream: a flow, a place and settings."""

    flow_id: FlowId
    url: Text = Field(
        description="s3://bucket/prefix, azure://container/prefix or file:///folder/prefix."
    )
    enabled: bool = True


class Start(BaseModel):
    """From where on an enabled stream covers events."""

    model_config = ConfigDict(extra="forbid")

    catch_up: bool = Field(default=False, description="Cover what was appended meanwhile, too.")


_FOUND: Final = answers()


@router.get("", responses=answers())
def list_streams(
    api: InApi, caller: Viewer,
    flow_id: Annotated[FlowId | None, Query(description="Of this flow only.")] = None,
) -> list[StreamShown]:  # fmt: skip
    """The streams of the flows that the key may see."""
    with api.reading() as connection:
        found = streams.find(connection, flow_id=flow_id)
    return [stream_shown(each) for each in found if caller.may_see(each.flow_id)]


@router.post("", status_code=201, responses=answers())
def add_stream(api: InApi, caller: Operator, given: StreamToAdd) -> StreamShown:
    """Send a flow's events somewhere: every event appended from now on, if it is enabled."""
    caller.insist_on(given.flow_id)
    destination = parse_destination(given.url, given.endpoint_url)
    values = _checked(destination, given.model_dump(exclude={"flow_id", "url", "enabled"}))
    name = values.pop("credential")
    limits = Limits(**{each: values.pop(each) for each in ("max_bytes", "max_events", "max_delay")})
    with api.changing() as connection:
        insist_on_credential(connection, caller.flows, name)
        new = NewStream(
            flow_id=given.flow_id, url=given.url, enabled=given.enabled, limits=limits,
            credential_id=credentials.id_for(connection, name, destination), **values,
        )  # fmt: skip
        insist_on_place(caller, destination, has_secret=new.credential_id is not None)
        return stream_shown(streams.add(connection, new, actor=caller.actor))


@router.get("/{stream_id}", responses=_FOUND)
def get_stream(api: InApi, caller: Viewer, stream_id: StreamId) -> StreamShown:
    """One stream."""
    with api.reading() as connection:
        return stream_shown(seen_stream(connection, caller, stream_id))


@router.patch("/{stream_id}", responses=_FOUND)
def change_stream(
    api: InApi, caller: Operator, stream_id: StreamId, given: Settings
) -> StreamShown:
    """Change settings, from the next file on. Flow and place are what a stream is."""
    with api.changing() as connection:
        before = seen_stream(connection, caller, stream_id)
        values = _checked(before.destination, given.model_dump(exclude_unset=True))
        if "credential" in values:
            name = values.pop("credential")
            insist_on_credential(connection, caller.flows, name)
            values["credential_id"] = credentials.id_for(connection, name, before.destination)
        if not values:
            return stream_shown(before)
        endpoint = values.get("endpoint_url", before.endpoint_url)
        insist_on_place(
            caller, replace(before.destination, endpoint_url=endpoint), before=before,
            has_secret=values.get("credential_id", before.credential_id) is not None,
        )  # fmt: skip
        return stream_shown(streams.change(connection, stream_id, values, actor=caller.actor))


@router.post("/{stream_id}/enable", responses=_FOUND)
def enable_stream(
    api: InApi, caller: Operator, stream_id: StreamId, given: Start | None = None
) -> StreamShown:
    """Cover every event appended from now on, or with `catch_up` from where it stopped."""
    catch_up = given is not None and given.catch_up
    with api.changing() as connection:
        seen_stream(connection, caller, stream_id)
        after = streams.enable(connection, stream_id, catch_up=catch_up, actor=caller.actor)
        return stream_shown(after)


@router.post("/{stream_id}/disable", responses=_FOUND)
def disable_stream(api: InApi, caller: Operator, stream_id: StreamId) -> StreamShown:
    """Stop at once. What is in no file by then is not covered; what is, is delivered later."""
    with api.changing() as connection:
        seen_stream(connection, caller, stream_id)
        return stream_shown(streams.disable(connection, stream_id, actor=caller.actor))


@router.post("/{stream_id}/resume", responses=_FOUND)
def resume_stream(api: InApi, caller: Operator, stream_id: StreamId) -> StreamShown:
    """Let a blocked or halted stream try again at once."""
    with api.changing() as connection:
        seen_stream(connection, caller, stream_id)
        return stream_shown(streams.resume(connection, stream_id, actor=caller.actor))


def seen_stream(connection: Any, caller: Caller, stream_id: int) -> Stream:
    """A stream that the caller may see; NotFound."""
    stream = streams.get(connection, stream_id)
    caller.hide(stream.flow_id, f"stream {stream_id}")
    return stream


def stream_shown(stream: Stream) -> StreamShown:
    """A stream as it is answered."""
    status = stream.status
    return StreamShown(
        stream_id=stream.stream_id, state=stream.shown_state, changed_at=stream.changed_at,
        sealed_sequence=stream.sealed_sequence, sealed_position=stream.sealed_position,
        delivered_sequence=stream.delivered_sequence,
        delivered_position=stream.delivered_position, chain_hash=stream.chain_hash.hex(),
        status=StreamStatus(
            state=status.state, code=status.code, cause=status.cause, hint=status.hint,
            since=status.since, attempts=status.attempts, next_try_at=status.next_try_at,
        ),
        **stream.settings(),
    )  # fmt: skip


def _checked(destination: Destination, values: dict[str, Any]) -> dict[str, Any]:
    """The settings, nothing in them that this kind of store does not know."""
    from exporters.stores import check_options  # noqa: PLC0415  # the composition root

    for name in ("endpoint_url", "region"):
        if name in values:
            values[name] = values[name] or None
    if values.get("region") and destination.scheme != "s3":
        raise ConfigurationError(
            f"{destination.scheme} destinations have no region", hint="Leave region out."
        )
    check_options(destination.scheme, values.get("options", {}))
    return values
