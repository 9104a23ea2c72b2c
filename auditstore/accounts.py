"""Users and API keys: who may use the console and the HTTP API, and for what.

Every function takes the caller's connection and joins its transaction. Every change is
recorded with who made it, never with a password or a key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, cast

from sqlalchemy import Connection

from auditstore.errors import ConfigurationError, NotFound
from auditstore.events import unusable_owner_id
from auditstore.passwords import hashed
from auditstore.sql import accounts as sql
from auditstore.sql.streams import lock_configuration, record_change

Role = Literal["viewer", "operator", "administrator"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "administrator")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
#: So that a key is known for one wherever it turns up, by people and by secret scanners.
_KEY_PREFIX: Final = "auditstore_"


@dataclass(frozen=True, slots=True)
class User:
    """A person. ``flows`` are those that he may see, ``None`` for all."""

    user_id: int
    name: str
    role: Role
    flows: frozenset[str] | None
    enabled: bool
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A program's key; the key itself is shown once and never kept."""

    key_id: int
    name: str
    role: Role
    flows: frozenset[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


# --- users ------------------------------------------------------------------------


def add_user(
    connection: Connection,
    *,
    name: str,
    password: str,
    role: Role,
    flows: Sequence[str] | None = None,
    actor: str,
) -> User:
    """Add a user; ConfigurationError for a name, password or flow that cannot be used."""
    lock_configuration(connection)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "the user's name cannot be used",
            hint="1 to 64 letters, digits and . _ @ + -, a letter or digit first.",
        )
    if sql.user_by_name(connection, name) is not None:
        raise ConfigurationError(
            f"there is already a user {name}",
            hint=f"`auditstore user password {name}` gives a new password; or choose another name.",
        )
    sql.insert_user(
        connection,
        {"name": name, "password_hash": hashed(password), "role": role, "flows": _flows(flows)},
    )
    added = get_user(connection, name)
    _record(connection, actor, "add", added.user_id, before=None, after=_user_settings(added))
    return added


def find_users(connection: Connection) -> list[User]:
    """Every user, by name."""
    return [user_of(row) for row in sql.find_users(connection)]


def get_user(connection: Connection, name: str) -> User:
    """One user; NotFound."""
    row = sql.user_by_name(connection, name)
    if row is None:
        raise NotFound(f"there is no user {name!r}", hint="`auditstore user list` shows the users.")
    return user_of(row)


def set_password(connection: Connection, name: str, password: str, *, actor: str) -> User:
    """Give a user a new password, and end every session that he has."""
    before = get_user(connection, name)
    sql.update_user(connection, before.user_id, {"password_hash": hashed(password)})
    sql.delete_sessions_of(connection, before.user_id)
    shown = _user_settings(before)
    _record(connection, actor, "password", before.user_id, before=shown, after=shown)
    return get_user(connection, name)


def set_enabled(connection: Connection, name: str, *, enabled: bool, actor: str) -> User:
    """Let a user in, or out: a disabled one has no session any more."""
    before = get_user(connection, name)
    if before.enabled == enabled:
        return before
    sql.update_user(connection, before.user_id, {"enabled": enabled})
    sql.delete_sessions_of(connection, before.user_id)
    after = get_user(connection, name)
    _record(
        connection, actor, "enable" if enabled else "disable", after.user_id,
        before=_user_settings(before), after=_user_settings(after),
    )  # fmt: skip
    return after


# --- API keys ---------------------------------------------------------------------


def add_key(
    connection: Connection,
    *,
    name: str,
    role: Role,
    flows: Sequence[str] | None = None,
    lasts: timedelta | None,
    actor: str,
) -> tuple[ApiKey, str]:
    """Make a key; the second is the key itself, which nobody can ask for again."""
    lock_configuration(connection)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            "the key's name cannot be used",
            hint="1 to 64 letters, digits and . _ @ + -, a letter or digit first.",
        )
    # 256 bits by chance need no slow hash, which is for what people choose.
    key = _KEY_PREFIX + secrets.token_urlsafe(32)
    key_id = sql.insert_key(
        connection,
        {"name": name, "key_sha256": digest(key), "role": role, "flows": _flows(flows)},
        lasts=lasts,
    )
    added = get_key(connection, key_id)
    _record_key(connection, actor, "add", before=None, after=added)
    return added, key


def find_keys(connection: Connection) -> list[ApiKey]:
    """Every key, by number."""
    return [_key(row) for row in sql.find_keys(connection)]


def get_key(connection: Connection, key_id: int) -> ApiKey:
    """One key; NotFound."""
    row = sql.key_by_id(connection, key_id)
    if row is None:
        raise NotFound(
            f"there is no API key number {key_id}", hint="`auditstore key list` shows the keys."
        )
    return _key(row)


def key_for(connection: Connection, key: str) -> ApiKey | None:
    """The key that a program has presented, unless it is unknown, revoked or over."""
    row = sql.valid_key(connection, digest(key))
    return None if row is None else _key(row)


def revoke_key(connection: Connection, key_id: int, *, actor: str) -> ApiKey:
    """From now on it opens nothing; revoking it again changes nothing."""
    before = get_key(connection, key_id)
    if before.revoked_at is None:
        sql.revoke_key(connection, key_id)
        _record_key(connection, actor, "revoke", before=before, after=get_key(connection, key_id))
    return get_key(connection, key_id)


def digest(secret: str) -> bytes:
    """What is kept of a key or a session's token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


# --- rows -------------------------------------------------------------------------


def user_of(row: Any) -> User:
    """A user's row."""
    return User(
        user_id=row.user_id, name=row.name, role=cast("Role", row.role),
        flows=None if row.flows is None else frozenset(row.flows), enabled=row.enabled,
        created_at=row.created_at, changed_at=row.changed_at,
    )  # fmt: skip


def _key(row: Any) -> ApiKey:
    return ApiKey(
        key_id=row.key_id, name=row.name, role=cast("Role", row.role),
        flows=None if row.flows is None else frozenset(row.flows), created_at=row.created_at,
        expires_at=row.expires_at, revoked_at=row.revoked_at,
    )  # fmt: skip


def _flows(flows: Sequence[str] | None) -> list[str] | None:
    if flows is None:
        return None
    for flow in flows:
        if not flow or unusable_owner_id(flow) is not None:
            raise ConfigurationError(
                f"{flow!r} is no flow's id", hint="`auditstore events list` shows the flows."
            )
    return sorted(set(flows))


def _user_settings(user: User) -> dict[str, Any]:
    return {
        "name": user.name, "role": user.role, "enabled": user.enabled,
        "flows": None if user.flows is None else sorted(user.flows),
    }  # fmt: skip


def _record(
    connection: Connection, actor: str, action: str, user_id: int, *,
    before: dict[str, Any] | None, after: dict[str, Any] | None,
) -> None:  # fmt: skip
    record_change(
        connection, actor=actor, subject="user", subject_id=user_id, action=action,
        before=before, after=after,
    )  # fmt: skip


def _record_key(
    connection: Connection, actor: str, action: str, *, before: ApiKey | None, after: ApiKey
) -> None:
    record_change(
        connection, actor=actor, subject="api key", subject_id=after.key_id, action=action,
        before=None if before is None else _key_settings(before), after=_key_settings(after),
    )  # fmt: skip


def _key_settings(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name, "role": key.role,
        "flows": None if key.flows is None else sorted(key.flows),
        "expires_at": key.expires_at and key.expires_at.isoformat(),
        "revoked": key.revoked_at is not None,
    }  # fmt: skip
