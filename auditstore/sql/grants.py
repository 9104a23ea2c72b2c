"""Which rights an exporter needs, and which of them a user lacks.

What is needed is what the first migration grants to ``auditstore_exporter``; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

EXPORTER_ROLE: Final = "auditstore_exporter"


@dataclass(frozen=True, slots=True)
class Right:
    """``privilege`` on an object of the schema; on one ``column`` of it where that is set."""

    kind: str
    object: str
    privilege: str
    column: str = ""


def _tables(privilege: str, *names: str) -> Iterable[Right]:
    return (Right("table", name, privilege) for name in names)


def _columns(privilege: str, table: str, *names: str) -> Iterable[Right]:
    return (Right("column", table, privilege, name) for name in names)


EXPORTER_NEEDS: Final[tuple[Right, ...]] = (
    Right("schema", "auditstore", "USAGE"),
    *_tables(
        "SELECT", "events", "streams", "stream_intervals", "files", "credentials", "changes",
        "state_changes", "daemons", "alembic_version", "imports", "imported_events",
        "verified", "schedules",
    ),
    *_columns(
        "INSERT", "files", "stream_id", "sequence", "first_position", "last_position",
        "event_count", "content_bytes", "first_recorded_at", "last_recorded_at", "format",
        "encoder", "object_key", "sealed_at",
    ),
    *_columns(
        "UPDATE", "files", "delivered_at", "content_sha256", "object_bytes", "object_sha256",
        "etag", "version_id", "previous_hash", "row_hash",
    ),
    *_columns(
        "UPDATE", "streams", "sealed_sequence", "sealed_position", "delivered_sequence",
        "delivered_position", "chain_hash", "history", "state", "state_code", "state_cause",
        "state_hint", "state_since", "attempts", "next_try_at", "lease_owner", "lease_until",
    ),
    *(Right("table", "daemons", privilege) for privilege in ("INSERT", "UPDATE", "DELETE")),
    *(Right("table", "verified", privilege) for privilege in ("INSERT", "UPDATE", "DELETE")),
    *(Right("table", "schedules", privilege) for privilege in ("INSERT", "UPDATE")),
    Right("table", "reconciliations", "SELECT"),
    *_columns(
        "INSERT", "reconciliations", "started_at", "ended_at", "actor", "scope", "result",
        "counts", "heads", "report", "sha256",
    ),
    Right("function", "last_position()", "EXECUTE"),
    Right("function", "open_writers()", "EXECUTE"),
    Right("function", "make_partitions(text, timestamptz, integer)", "EXECUTE"),
)  # fmt: skip

# By oid: a name could not even be looked up without the right to use the schema.
_LACKING: Final = text(
    "SELECT n FROM unnest(CAST(:kinds AS text[]), :objects, :columns, :privileges)"
    "   WITH ORDINALITY AS needed (kind, object, column_name, privilege, n)"
    " LEFT JOIN pg_namespace s ON s.nspname = 'auditstore'"
    " LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = object"
    " LEFT JOIN pg_proc p ON p.pronamespace = s.oid AND p.proname = split_part(object, '(', 1)"
    " WHERE NOT CASE kind"
    "   WHEN 'schema' THEN has_schema_privilege(CAST(:user AS name), s.oid, privilege)"
    "   WHEN 'function' THEN has_function_privilege(CAST(:user AS name), p.oid, privilege)"
    "   WHEN 'table' THEN has_table_privilege(CAST(:user AS name), c.oid, privilege)"
    "   ELSE has_column_privilege(CAST(:user AS name), c.oid, column_name, privilege) END"
    " ORDER BY n"
).bindparams(
    *(bindparam(name, type_=ARRAY(Text)) for name in ("kinds", "objects", "columns", "privileges"))
)


def lacking(
    connection: Connection, user: str, needed: Sequence[Right] = EXPORTER_NEEDS
) -> list[Right]:
    """Those of the rights that ``user`` has neither itself nor through a role."""
    found = connection.execute(
        _LACKING,
        {
            "user": user,
            "kinds": [right.kind for right in needed],
            "objects": [right.object for right in needed],
            "columns": [right.column for right in needed],
            "privileges": [right.privilege for right in needed],
        },
    )
    return [needed[n - 1] for n in found.scalars()]


def is_exporter(connection: Connection, user: str) -> bool:
    """Whether ``user`` has the role that exporters are given."""
    return bool(
        connection.scalar(
            text(
                "SELECT pg_has_role(CAST(:user AS name), oid, 'USAGE') FROM pg_roles"
                " WHERE rolname = :role"
            ),
            {"user": user, "role": EXPORTER_ROLE},
        )
    )


def current_user(connection: Connection) -> str:
    """Whose rights this connection has."""
    return str(connection.scalar(text("SELECT current_user")))


def users_of(connection: Connection, application_name: str) -> list[str]:
    """The users that connections of this name to this database belong to."""
    found = connection.execute(
        text(
            "SELECT DISTINCT usename::text FROM pg_stat_activity"
            " WHERE application_name = :name AND datname = current_database()"
            " AND usename IS NOT NULL ORDER BY 1"
        ),
        {"name": application_name},
    )
    return list(found.scalars())
