"""Runs the migrations: one at a time on a server, and never waiting long for a lock."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from auditstore.database import create_engine
from auditstore.settings import Settings
from auditstore.sql.tables import SCHEMA, metadata

# Any constant does; it keeps two migrating processes apart.
MIGRATION_LOCK = 0x61756469


def is_ours(
    _object: object,
    name: str | None,
    kind: str,
    reflected: bool,  # noqa: FBT001  # Alembic's signature
    _other: object,
) -> bool:
    """Leave partitions out of the comparison: upkeep makes them, not migrations."""
    return not (kind == "table" and reflected and (name or "").startswith("events_"))


def migrate(connection: Connection) -> None:
    """Bring the schema of ``connection``'s database to head in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
        include_object=is_ours,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        connection.execute(text("SET LOCAL statement_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    engine = create_engine(Settings.from_environment().require_database_url())
    with engine.connect() as own:
        migrate(own)
    engine.dispose()
