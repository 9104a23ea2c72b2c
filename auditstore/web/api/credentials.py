"""Credentials over HTTP: secrets go in and never come out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from auditstore import credentials, streams
from auditstore.cli.credential_trial import insist_on_tried, refuse_failures, try_secret
from auditstore.credentials import Credential
from auditstore.secret_fields import checked
from auditstore.web.api.auth import Administrator
from auditstore.web.api.problems import answers
from auditstore.web.api.state import InApi

router = APIRouter(prefix="/credentials", tags=["Credentials"])

_NAME: Final = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
CredentialName = Annotated[str, Path(pattern=_NAME, description="The credential's name.")]


class CredentialShown(BaseModel):
    """What may be shown of a credential; `hint` is its masked identity."""

    credential_id: str
    name: str
    kind: str
    hint: str
    created_at: datetime
    changed_at: datetime


class S3Secret(BaseModel):
    """What an S3 credential consists of."""

    model_config = ConfigDict(extra="forbid")

    access_key_id: SecretStr
    secret_access_key: SecretStr
    session_token: SecretStr | None = None
    role_arn: SecretStr | None = None
    external_id: SecretStr | None = None


class AzureSecret(BaseModel):
    """A connection string, or the account's URL with a SAS token or a key."""

    model_config = ConfigDict(extra="forbid")

    connection_string: SecretStr | None = None
    account_url: SecretStr | None = None
    sas_token: SecretStr | None = None
    account_key: SecretStr | None = None


class CredentialToAdd(BaseModel):
    """A new credential."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=_NAME)
    kind: Literal["s3", "azure"]
    secret: S3Secret | AzureSecret


class NewSecret(BaseModel):
    """A new secret for a credential."""

    model_config = ConfigDict(extra="forbid")

    secret: S3Secret | AzureSecret
    check: bool = Field(
        default=True, description="Try it first on every stream that uses the credential."
    )


@router.get("", responses=answers())
def list_credentials(api: InApi, caller: Administrator) -> list[CredentialShown]:
    """Every credential, never a secret."""
    caller.insist_on_all()
    with api.reading() as connection:
        return [_shown(each) for each in credentials.find(connection)]


@router.post("", status_code=201, responses=answers())
def add_credential(api: InApi, caller: Administrator, given: CredentialToAdd) -> CredentialShown:
    """Keep a secret under a name, encrypted."""
    caller.insist_on_all()
    with api.changing() as connection:
        return _shown(credentials.add(
            connection, api.vault, name=given.name, kind=given.kind,
            secret=secret_fields(given.secret), actor=caller.actor,
        ))  # fmt: skip


@router.get("/{name}", responses=answers())
def get_credential(api: InApi, caller: Administrator, name: CredentialName) -> CredentialShown:
    """One credential, never its secret."""
    caller.insist_on_all()
    with api.reading() as connection:
        return _shown(credentials.get_by_name(connection, name))


@router.put("/{name}/secret", responses=answers())
def rotate_credential(
    api: InApi, caller: Administrator, name: CredentialName, given: NewSecret
) -> CredentialShown:
    """Replace a secret, once it is seen to work wherever the old one is used."""
    caller.insist_on_all()
    with api.reading() as connection:
        found = credentials.get_by_name(connection, name)
        using = streams.find(connection, credential_id=found.credential_id)
    secret = checked(found.kind, secret_fields(given.secret))
    if given.check:
        refuse_failures(name, try_secret(api, secret, using))
    with api.changing() as connection:
        after = credentials.rotate(connection, api.vault, name, secret, caller.actor)
        if given.check:
            now_using = streams.find(connection, credential_id=found.credential_id)
            insist_on_tried(name, tried=using, using=now_using)
        return _shown(after)


@router.delete("/{name}", status_code=204, responses=answers())
def remove_credential(api: InApi, caller: Administrator, name: CredentialName) -> None:
    """Forget a credential that no stream uses."""
    caller.insist_on_all()
    with api.changing() as connection:
        credentials.remove(connection, name, caller.actor)


def secret_fields(given: S3Secret | AzureSecret) -> dict[str, str]:
    """The fields that were given, to be checked by who keeps them."""
    return {
        name: value.get_secret_value()
        for name in type(given).model_fields
        if (value := getattr(given, name)) is not None
    }


def _shown(credential: Credential) -> CredentialShown:
    return CredentialShown(
        credential_id=str(credential.credential_id), name=credential.name, kind=credential.kind,
        hint=credential.hint, created_at=credential.created_at, changed_at=credential.changed_at,
    )  # fmt: skip
