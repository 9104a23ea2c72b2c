"""The statements of users, sessions, API keys and of who has read what. No secret passes here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from auditstore.sql.tables import api_keys, login_failures, readings, sessions, users

_USER_SHOWN: Final = tuple(column for column in users.c if column.name != "password_hash")
_KEY_SHOWN: Final = tuple(column for column in api_keys.c if column.name != "key_sha256")


# --- users ------------------------------------------------------------------------


def insert_user(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a user; return its id."""
    statement = insert(users).values(**values).returning(users.c.user_id)
    return int(connection.execute(statement).scalar_one())


def update_user(connection: Connection, user_id: int, values: Mapping[str, Any]) -> None:
    """Change a user."""
    connection.execute(
        update(users)
        .where(users.c.user_id == user_id)
        .values(**values, changed_at=func.clock_timestamp())
    )


def find_users(connection: Connection) -> Sequence[Any]:
    """Every user without its password's hash, by name."""
    return connection.execute(select(*_USER_SHOWN).order_by(users.c.name)).all()


def user_by_name(connection: Connection, name: str) -> Any | None:
    """One user, with its password's hash."""
    return connection.execute(select(users).where(users.c.name == name)).one_or_none()


# --- sessions ---------------------------------------------------------------------


def insert_session(
    connection: Connection, token_sha256: bytes, user_id: int, lasts: timedelta
) -> None:
    """Begin a session that ends by the server's clock; forget those that are over."""
    connection.execute(delete(sessions).where(sessions.c.expires_at < func.clock_timestamp()))
    connection.execute(
        insert(sessions).values(
            token_sha256=token_sha256, user_id=user_id, expires_at=func.clock_timestamp() + lasts
        )
    )


def session_user(connection: Connection, token_sha256: bytes) -> Any | None:
    """The enabled user of a session that is not over."""
    return connection.execute(
        select(*_USER_SHOWN)
        .join(sessions, sessions.c.user_id == users.c.user_id)
        .where(
            sessions.c.token_sha256 == token_sha256,
            sessions.c.expires_at > func.clock_timestamp(),
            users.c.enabled,
        )
    ).one_or_none()


def delete_session(connection: Connection, token_sha256: bytes) -> None:
    """End one session."""
    connection.execute(delete(sessions).where(sessions.c.token_sha256 == token_sha256))


def delete_sessions_of(connection: Connection, user_id: int) -> None:
    """End every session of a user."""
    connection.execute(delete(sessions).where(sessions.c.user_id == user_id))


def insert_login_failure(
    connection: Connection, name: str, address: str, window: timedelta
) -> None:
    """Remember a failed sign-in, and forget what is older than ``window``."""
    connection.execute(
        delete(login_failures).where(login_failures.c.failed_at < func.clock_timestamp() - window)
    )
    connection.execute(insert(login_failures).values(name=name, address=address))


def login_failures_since(
    connection: Connection, name: str, address: str, window: timedelta
) -> tuple[int, int, int]:
    """Failures within ``window``: of this name from this address, of the name, of the address."""
    table = login_failures.c
    by_name, by_address = table.name == name, table.address == address
    row = connection.execute(
        select(
            func.count().filter(by_name & by_address),
            func.count().filter(by_name),
            func.count().filter(by_address),
        ).where(table.failed_at > func.clock_timestamp() - window, by_name | by_address)
    ).one()
    return row[0], row[1], row[2]


def delete_login_failures(connection: Connection, name: str, address: str) -> None:
    """Forget the failures of a name from an address: it has signed in."""
    connection.execute(
        delete(login_failures).where(
            login_failures.c.name == name, login_failures.c.address == address
        )
    )


# --- API keys ---------------------------------------------------------------------


def insert_key(
    connection: Connection, values: Mapping[str, Any], *, lasts: timedelta | None
) -> int:
    """Insert a key, which ends by the server's clock; return its id."""
    expires_at = None if lasts is None else func.clock_timestamp() + lasts
    statement = insert(api_keys).values(**values, expires_at=expires_at)
    return int(connection.execute(statement.returning(api_keys.c.key_id)).scalar_one())


def find_keys(connection: Connection) -> Sequence[Any]:
    """Every key without its digest, by number."""
    return connection.execute(select(*_KEY_SHOWN).order_by(api_keys.c.key_id)).all()


def key_by_id(connection: Connection, key_id: int) -> Any | None:
    """One key without its digest."""
    return connection.execute(select(*_KEY_SHOWN).where(api_keys.c.key_id == key_id)).one_or_none()


def valid_key(connection: Connection, key_sha256: bytes) -> Any | None:
    """The key of this digest, unless it is revoked or over."""
    return connection.execute(
        select(*_KEY_SHOWN).where(
            api_keys.c.key_sha256 == key_sha256,
            api_keys.c.revoked_at.is_(None),
            func.coalesce(api_keys.c.expires_at > func.clock_timestamp(), text("true")),
        )
    ).one_or_none()


def revoke_key(connection: Connection, key_id: int) -> None:
    """From now on it opens nothing."""
    connection.execute(
        update(api_keys)
        .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp())
    )


# --- who has read what ------------------------------------------------------------


def insert_reading(connection: Connection, actor: str, flow_id: str, event_id: str) -> None:
    """Append that somebody has opened an event."""
    connection.execute(insert(readings).values(actor=actor, flow_id=flow_id, event_id=event_id))


def insert_readings(connection: Connection, actor: str, read: Sequence[tuple[str, str]]) -> None:
    """Append that somebody has read these events, each a flow's and an event's id."""
    if read:
        # One statement for a page of a thousand.
        connection.execute(
            _INSERT_READINGS,
            {
                "actor": actor,
                "flow_ids": [flow for flow, _ in read], "event_ids": [event for _, event in read],
            },
        )  # fmt: skip


_INSERT_READINGS: Final = text(
    "INSERT INTO auditstore.readings (actor, flow_id, event_id)"
    " SELECT CAST(:actor AS text), flow_id, event_id"
    " FROM unnest(:flow_ids, :event_ids) AS r (flow_id, event_id)"
).bindparams(bindparam("flow_ids", type_=ARRAY(Text)), bindparam("event_ids", type_=ARRAY(Text)))
