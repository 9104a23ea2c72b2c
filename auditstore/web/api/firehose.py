"""LeadConduit's `/firehose`: does a configuration work, before it is saved?

Secrets go in the body of a POST. A query string ends up in logs, so the GET form takes the
number of a kept credential only.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auditstore import credentials
from auditstore.cli.store_test import try_store
from auditstore.destinations import Destination, check_encryption
from auditstore.errors import AuditStoreError
from auditstore.layout import join
from auditstore.secret_fields import checked
from auditstore.web.api.auth import Caller, Operator
from auditstore.web.api.firehose_form import SCHEMES, Bucket, CredentialId, Prefix, ServiceName
from auditstore.web.api.places import insist_on_place
from auditstore.web.api.problems import FieldFault, Refused, answers
from auditstore.web.api.state import Api, FlowId, InApi, Text
from auditstore.web.reach import credentials_for

router = APIRouter(prefix="/firehose", tags=["LeadConduit"])

_SECRETS: Final[dict[ServiceName, tuple[str, ...]]] = {
    "aws": ("access_key_id", "secret_access_key", "session_token"),
    "azure": ("connection_string", "account_url", "sas_token", "account_key"),
}


class Place(BaseModel):
    """Where to try."""

    model_config = ConfigDict(extra="forbid")

    service: ServiceName = "aws"
    credential_id: CredentialId | None = Field(
        default=None, description="A kept credential's number."
    )
    bucket: Bucket = Field(description="The bucket or the container.")
    prefix: Prefix = ""
    flow_id: FlowId | None = Field(default=None, description="Becomes part of the object's name.")
    verification_file: bool = Field(
        default=True, description="Write an object; false only asks whether the bucket is there."
    )
    endpoint_url: Text | None = Field(
        default=None, description="Of a server other than the cloud's own."
    )
    region: Text | None = Field(default=None, description="The bucket's region; of S3 only.")


class PlaceWithSecret(Place):
    """Where to try, and with what: a kept credential, or a secret that is not kept."""

    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    connection_string: SecretStr | None = None
    account_url: SecretStr | None = None
    sas_token: SecretStr | None = None
    account_key: SecretStr | None = None


class Checked(BaseModel):
    """LeadConduit's answer; where it does not work, why, and what to do."""

    validated: bool
    verification_file: bool = Field(description="Whether an object was written.")
    verification_key: str | None = Field(default=None, description="Its key.")
    message: str | None = None
    hint: str | None = None
    code: str | None = Field(default=None, description="The store's own word where it has one.")


@dataclass(frozen=True, slots=True)
class _Tried:
    flow_id: str
    destination: Destination


@router.get("", responses=answers(), response_model_exclude_none=True)
def check_kept(
    api: InApi, caller: Operator, request: Request, asked: Annotated[Place, Query()]
) -> Checked:
    """Try a place with a kept credential. Secrets in the query are refused."""
    del request
    return _checked(api, caller, asked, None)


@router.post("", responses=answers(), response_model_exclude_none=True)
def check_given(api: InApi, caller: Operator, asked: PlaceWithSecret) -> Checked:
    """Try a place with a kept credential, or with a secret that is used once and not kept."""
    return _checked(api, caller, asked, _secret(asked))


def _secret(asked: PlaceWithSecret) -> dict[str, str] | None:
    given = {
        name: value.get_secret_value()
        for names in _SECRETS.values()
        for name in names
        if (value := getattr(asked, name)) is not None
    }
    if not given:
        return None
    if asked.credential_id is not None:
        raise Refused(
            422, "configuration", "both a credential_id and a secret were given",
            hint="Give one of them.",
            errors=[FieldFault(field="body.credential_id", message="not beside a secret")],
        )  # fmt: skip
    return checked(SCHEMES[asked.service], given)


def _checked(api: Api, caller: Caller, asked: Place, secret: dict[str, str] | None) -> Checked:
    from exporters.stores import open_store  # noqa: PLC0415  # the composition root

    if asked.flow_id is not None:
        caller.insist_on(asked.flow_id)
    place = Destination(
        SCHEMES[asked.service], asked.bucket, asked.prefix.strip("/"), asked.endpoint_url or None
    )
    has_secret = secret is not None or asked.credential_id is not None
    insist_on_place(caller, place, has_secret=has_secret)
    check_encryption(place.endpoint_url, {})
    if asked.credential_id is not None:
        secret = _kept(api, caller, asked)
    try:
        store = open_store(
            place, region=asked.region or None if asked.service == "aws" else None,
            secret=secret, options={},
        )  # fmt: skip
        with closing(store):
            if not asked.verification_file:
                # One page of a listing: is it there, and may we come in?
                next(iter(store.list(join(place.prefix, ""))), None)
                return Checked(validated=True, verification_file=False)
            done = try_store(store, _Tried(asked.flow_id or "check", place), datetime.now(UTC))
    except AuditStoreError as error:
        return _failed(error)
    if done.failure is not None:
        return _failed(done.failure)
    return Checked(validated=True, verification_file=True, verification_key=done.key)


def _kept(api: Api, caller: Caller, asked: Place) -> Any:
    with api.reading() as connection:
        number = int(asked.credential_id or 0)
        known = credentials_for(connection, caller.flows)
        kinds = {each.credential_id: each.kind for each in known}
        if kinds.get(number) != SCHEMES[asked.service]:
            raise Refused(
                422, "configuration",
                f"there is no {SCHEMES[asked.service]} credential number {number}",
                hint="GET /api/v1/credentials lists them.",
                errors=[FieldFault(field="credential_id", message="not known")],
            )  # fmt: skip
        return credentials.secret_of(connection, api.vault, number)


def _failed(error: AuditStoreError) -> Checked:
    return Checked(
        validated=False, verification_file=False, message=error.message, hint=error.hint,
        code=error.code,
    )  # fmt: skip
