"""A flow's `firehose` object in LeadConduit's two forms, and what of it the streams say.

The older form names one bucket of S3; the newer one has a service each for `aws` and `azure`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from auditstore.destinations import Destination
from auditstore.errors import ConfigurationError
from auditstore.streams import Stream
from auditstore.web.api.state import Text

ServiceName = Literal["aws", "azure"]
#: LeadConduit's names and ours.
SCHEMES: Final[dict[ServiceName, Literal["s3", "azure"]]] = {"aws": "s3", "azure": "azure"}

Bucket = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.\-]*[a-z0-9])?$",
                                          min_length=3, max_length=63)]  # fmt: skip
Prefix = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\u0000]*$")]
CredentialId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]


class Service(BaseModel):
    """Where one service delivers. Endpoint and region are this store's own additions."""

    model_config = ConfigDict(extra="ignore")

    enabled: bool = False
    credential_id: CredentialId | None = Field(
        default=None, description="As `GET /api/v1/credentials` has it; else the environment's own."
    )
    bucket: Bucket | None = None
    prefix: Prefix | None = None
    endpoint_url: Text | None = Field(default=None, description="Left out, it stays as it is.")
    region: Text | None = Field(default=None, description="Left out, it stays as it is. S3 only.")


class Services(BaseModel):
    """Both at once is allowed; each delivers by itself. What is left out stays as it is."""

    model_config = ConfigDict(extra="ignore")

    aws: Service | None = None
    azure: Service | None = None


class OlderFirehose(BaseModel):
    """The older form: one bucket of S3."""

    model_config = ConfigDict(extra="ignore")

    enabled: bool
    credential_id: CredentialId | None = None
    bucket: Bucket | None = None
    prefix: Prefix | None = None


class NewerFirehose(BaseModel):
    """The newer form; `enabled` false switches every service off."""

    model_config = ConfigDict(extra="ignore")

    enabled: bool
    services: Services


class FlowShown(BaseModel):
    """A flow, as far as this store knows it."""

    id: str
    name: str | None = Field(description="As its newest event has it.")
    firehose: NewerFirehose | OlderFirehose


class FlowToSet(BaseModel):
    """A flow as LeadConduit's tools send it: of all that it has, only `firehose` is taken."""

    model_config = ConfigDict(extra="ignore")

    firehose: NewerFirehose | OlderFirehose


@dataclass(frozen=True, slots=True)
class Asked:
    """What one service is to do; ``given`` has the names of what was said, not left out."""

    service: ServiceName
    enabled: bool
    values: Service
    given: frozenset[str]


def asked_of(firehose: NewerFirehose | OlderFirehose) -> list[Asked]:
    """What each form asks of the services: the older one names S3, and off is off for both."""
    off = Asked("azure", enabled=False, values=Service(), given=frozenset())
    if isinstance(firehose, OlderFirehose):
        given = firehose.model_dump(exclude_unset=True)
        asked = [Asked("aws", firehose.enabled, Service.model_validate(given), frozenset(given))]
        return asked if firehose.enabled else [*asked, off]
    asked = []
    for name in SCHEMES:
        values: Service | None = getattr(firehose.services, name)
        if values is not None:
            on = firehose.enabled and values.enabled
            asked.append(Asked(name, on, values, frozenset(values.model_fields_set)))
        elif not firehose.enabled:
            asked.append(replace(off, service=name))
    return asked


def newest_of(service: ServiceName, of_flow: Sequence[Stream]) -> Stream | None:
    """The stream that the object is about: the enabled one, or else the one changed last."""
    own = [each for each in of_flow if each.url.startswith(f"{SCHEMES[service]}:")]
    return max(own, key=lambda each: (each.enabled, each.changed_at), default=None)


def firehose_of(of_flow: Sequence[Stream], *, older: bool) -> NewerFirehose | OlderFirehose:
    """The object in the form that is asked for."""
    shown: dict[str, Service] = {
        name: _service(stream)
        for name in SCHEMES
        if (stream := newest_of(name, of_flow)) is not None
    }
    if older:
        aws = shown.get("aws") or Service()
        return OlderFirehose(
            enabled=aws.enabled, credential_id=aws.credential_id, bucket=aws.bucket,
            prefix=aws.prefix,
        )  # fmt: skip
    on = any(each.enabled for each in shown.values())
    services: dict[str, Any] = dict(shown)
    return NewerFirehose(enabled=on, services=Services(**services))


def _service(stream: Stream) -> Service:
    place: Destination | None
    try:
        place = stream.destination
    except ConfigurationError:
        place = None  # a row changed by hand names no place; its state says so
    return Service(
        enabled=stream.enabled, bucket=place.bucket if place else None,
        prefix=place.prefix if place else None,
        credential_id=None if stream.credential_id is None else str(stream.credential_id),
        endpoint_url=stream.endpoint_url, region=stream.region,
    )  # fmt: skip
