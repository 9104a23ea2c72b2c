"""The credentials' statements. Only ciphertext passes here, never a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from auditstore.sql.tables import credentials

# Listing never fetches ciphertext.
_SHOWN = (
    credentials.c.credential_id, credentials.c.name, credentials.c.kind, credentials.c.hint,
    credentials.c.created_at, credentials.c.changed_at,
)  # fmt: skip


def insert_credential(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a credential; return its id."""
    statement = insert(credentials).values(**values).returning(credentials.c.credential_id)
    return int(connection.execute(statement).scalar_one())


def update_credential(
    connection: Connection, credential_id: int, *, ciphertext: bytes, hint: str
) -> None:
    """Replace the ciphertext; `changed_at` makes the daemons look at once."""
    connection.execute(
        update(credentials)
        .where(credentials.c.credential_id == credential_id)
        .values(ciphertext=ciphertext, hint=hint, changed_at=func.clock_timestamp())
    )


def delete_credential(connection: Connection, credential_id: int) -> None:
    """Delete a credential; the server refuses while a stream names it."""
    connection.execute(delete(credentials).where(credentials.c.credential_id == credential_id))


def find(connection: Connection) -> Sequence[Any]:
    """Every credential's row without its ciphertext, by name."""
    return connection.execute(select(*_SHOWN).order_by(credentials.c.name)).all()


def by_name(connection: Connection, name: str) -> Any | None:
    """One credential's row without its ciphertext."""
    statement = select(*_SHOWN).where(credentials.c.name == name)
    return connection.execute(statement).one_or_none()


def sealed(connection: Connection, credential_id: int) -> Any | None:
    """Name and ciphertext of one credential."""
    statement = select(credentials.c.name, credentials.c.ciphertext).where(
        credentials.c.credential_id == credential_id
    )
    return connection.execute(statement).one_or_none()


def lock_all(connection: Connection) -> Sequence[Any]:
    """Every credential's row with its ciphertext, locked until the end of the transaction."""
    statement = select(credentials).order_by(credentials.c.credential_id).with_for_update()
    return connection.execute(statement).all()
