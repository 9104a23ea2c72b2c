"""Credentials that streams refer to by name, kept encrypted.

Every function takes the caller's connection and joins its transaction. Every change is
recorded with who made it, never with the secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from auditstore import streams
from auditstore.destinations import Destination
from auditstore.errors import ConfigurationError, NotFound
from auditstore.secret_fields import checked, masked
from auditstore.sql import credentials as sql
from auditstore.sql.streams import lock_configuration, record_change
from auditstore.vault import Vault

__all__ = [
    "Credential",
    "Vault",
    "add",
    "find",
    "get_by_name",
    "id_for",
    "reencrypt",
    "remove",
    "rotate",
    "secret_of",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credential:
    """What may be shown of a credential; ``hint`` is its masked identity."""

    credential_id: int
    name: str
    kind: str
    hint: str
    created_at: datetime
    changed_at: datetime


def add(
    connection: Connection,
    vault: Vault,
    *,
    name: str,
    kind: str,
    secret: Mapping[str, str],
    actor: str,
) -> Credential:
    """Keep a new secret under a name; ConfigurationError if either cannot be used."""
    lock_configuration(connection)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "the credential's name cannot be used",
            hint="1 to 63 letters, digits, dots, hyphens and underscores, a letter or digit first.",
        )
    if sql.by_name(connection, name) is not None:
        raise ConfigurationError(
            f"there is already a credential {name}",
            hint=f"Give it a new secret with `auditstore credential rotate {name}`, "
            "or choose another name.",
        )
    fields = checked(kind, secret)
    shown = masked(kind, fields)
    credential_id = sql.insert_credential(
        connection,
        {"name": name, "kind": kind, "ciphertext": vault.encrypt(fields), "hint": shown},
    )
    added = get_by_name(connection, name)
    _record(connection, actor, "add", credential_id, before=None, after=_settings(added, fields))
    return added


def find(connection: Connection) -> list[Credential]:
    """Every credential, by name."""
    return [_credential(row) for row in sql.find(connection)]


def get_by_name(connection: Connection, name: str) -> Credential:
    """One credential; NotFound."""
    row = sql.by_name(connection, name)
    if row is None:
        raise NotFound(
            f"there is no credential {name!r}",
            hint="`auditstore credential list` shows the credentials.",
        )
    return _credential(row)


def id_for(connection: Connection, name: str | None, destination: Destination) -> int | None:
    """The number of a named credential; ConfigurationError for one of another kind of store."""
    if not name:
        return None
    credential = get_by_name(connection, name)
    if credential.kind != destination.scheme:
        raise ConfigurationError(
            f"the credential {name} is for {credential.kind}, the stream goes to "
            f"{destination.scheme}",
            hint="Choose one of its kind, or leave it out for a folder.",
        )
    return credential.credential_id


def rotate(
    connection: Connection, vault: Vault, name: str, secret: Mapping[str, str], actor: str
) -> Credential:
    """Replace a credential's secret; the streams that use it try again at once.

    Works also when no key opens the old secret any more.
    """
    lock_configuration(connection)
    before = get_by_name(connection, name)
    fields = checked(before.kind, secret)
    sql.update_credential(
        connection, before.credential_id,
        ciphertext=vault.encrypt(fields), hint=masked(before.kind, fields),
    )  # fmt: skip
    after = get_by_name(connection, name)
    _record(
        connection, actor, "rotate", after.credential_id,
        before=_settings(before), after=_settings(after, fields),
    )  # fmt: skip
    return after


def reencrypt(connection: Connection, vault: Vault, actor: str) -> list[str]:
    """Bring every credential under the newest key, or none; return their names.

    Afterwards the older keys may be forgotten.
    """
    names = []
    for row in sql.lock_all(connection):
        ciphertext = vault.reencrypt(bytes(row.ciphertext), name=row.name)
        sql.update_credential(connection, row.credential_id, ciphertext=ciphertext, hint=row.hint)
        shown = _settings(_credential(row))
        _record(connection, actor, "reencrypt", row.credential_id, before=shown, after=shown)
        names.append(row.name)
    return sorted(names)


def remove(connection: Connection, name: str, actor: str) -> Credential:
    """Forget a credential for good; refused while a stream, enabled or not, uses it."""
    lock_configuration(connection)
    credential = get_by_name(connection, name)
    using = streams.find(connection, credential_id=credential.credential_id)
    if using:
        ids = ", ".join(str(stream.stream_id) for stream in using)
        raise ConfigurationError(
            f"the credential {name} is used by stream {ids}",
            hint="Give the stream another one first: "
            f"`auditstore stream set {using[0].stream_id} --credential NAME`.",
        )
    sql.delete_credential(connection, credential.credential_id)
    _record(
        connection,
        actor,
        "remove",
        credential.credential_id,
        before=_settings(credential),
        after=None,
    )
    return credential


def secret_of(
    connection: Connection, vault: Vault, credential_id: int | None
) -> dict[str, str] | None:
    """A credential's secret; ``None`` for ``None``, where the SDK's own chain decides."""
    if credential_id is None:
        return None
    row = sql.sealed(connection, credential_id)
    if row is None:
        raise NotFound(
            f"there is no credential number {credential_id}",
            hint="`auditstore credential list` shows the credentials.",
        )
    return vault.decrypt(bytes(row.ciphertext), name=row.name)


def _settings(credential: Credential, fields: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a change records: of the secret, only which fields it has."""
    shown: dict[str, Any] = {
        "name": credential.name, "kind": credential.kind, "hint": credential.hint,
    }  # fmt: skip
    if fields is not None:
        shown["fields"] = sorted(fields)
    return shown


def _record(
    connection: Connection,
    actor: str,
    action: str,
    credential_id: int,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> None:
    record_change(
        connection, actor=actor, subject="credential", subject_id=credential_id, action=action,
        before=before, after=after,
    )  # fmt: skip


def _credential(row: Any) -> Credential:
    return Credential(
        credential_id=row.credential_id, name=row.name, kind=row.kind, hint=row.hint,
        created_at=row.created_at, changed_at=row.changed_at,
    )  # fmt: skip
