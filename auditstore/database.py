"""Reaching the server: engines, drivers' errors in our words, migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from auditstore.errors import ConfigurationError, SchemaOutdated
from auditstore.sql import server
from auditstore.sql.failures import leave_stale_sessions, translated
from auditstore.sql.tables import SCHEMA
from auditstore.transport import protected

#: What the partitioned outbox and its triggers need.
MINIMUM_SERVER_VERSION: Final = 15
_DRIVERS: Final = {"postgresql", "postgres", "postgresql+psycopg"}


class LivingPool(QueuePool):
    """A pool that hands out a connection that lives before it tries to make another.

    SQLAlchemy's own queues also what could not connect. Where the server has no room for more,
    those come first again and again, and the one that lives is hardly ever used.
    """

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        # At the limit somebody may wait for a return, whatever is returned.
        if record.dbapi_connection is None and self._overflow < self._max_overflow:
            self._dec_overflow()
        else:
            super()._do_return_conn(record)


def database_url(text: str) -> URL:
    """Parse ``postgresql://...`` (libpq's or SQLAlchemy's form) for psycopg 3.

    A server off this machine must prove who it is, see :mod:`auditstore.transport`.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # From None: a port that is no number is quoted, and may be part of a password.
        raise ConfigurationError(
            "AUDITSTORE_DATABASE_URL is not a database URL",
            hint="Write it like postgresql://user:password@host:5432/database, "
            "special characters in the password percent-encoded.",
        ) from None
    if url.drivername not in _DRIVERS:
        raise ConfigurationError(
            f"AUDITSTORE_DATABASE_URL names {url.drivername!r}, not PostgreSQL",
            hint="Write it like postgresql://user:password@host:5432/database.",
        )
    return protected(url.set(drivername="postgresql+psycopg"))


def create_engine(
    text: str,
    *,
    application_name: str = "auditstore",
    longest_idle: float | None = None,
    **options: Any,
) -> Engine:
    """An engine for :func:`database_url`; connects lazily, checks pooled connections.

    The server ends a transaction in which nothing happens for ``longest_idle`` seconds, so that
    a process that is stopped or cut off in the midst of one does not keep its locks.
    """
    session = "-c timezone=UTC -c client_encoding=UTF8"
    if longest_idle is not None:
        session += f" -c idle_in_transaction_session_timeout={round(longest_idle * 1000)}"
    engine = sqlalchemy.create_engine(
        database_url(text),
        pool_pre_ping=True,
        connect_args={
            "application_name": application_name,
            "connect_timeout": 10,
            # A server that vanishes without a word is noticed within half a minute.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            "options": session,
        },
        **{"poolclass": LivingPool} | options,
    )
    leave_stale_sessions(engine)
    return engine


def migrations_folder() -> Path:
    """Where the migrations lie: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def migrate(url: str) -> list[str]:
    """Bring the database's schema to head; return the revisions that were applied.

    Raises ConfigurationError for a server that cannot hold the store.
    """
    engine = create_engine(url, application_name="auditstore migrate")
    try:
        with translated(), engine.connect() as connection:
            _check_server(connection)
            before = _revision(connection)
            connection.rollback()
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return _applied(config, before)
    finally:
        engine.dispose()


def check_schema(connection: Connection) -> None:
    """Raise SchemaOutdated unless the schema is the one that this version works with."""
    head = ScriptDirectory.from_config(_alembic_config()).get_current_head()
    found = _revision(connection)
    if found != head:
        raise SchemaOutdated(
            f"the database's schema is {found or 'missing'}, this version needs {head}",
            hint="Run `auditstore migrate`.",
        )


def schema_revision(connection: Connection) -> str | None:
    """The schema that the database has; ``None`` before the first migration."""
    return _revision(connection)


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    return context.get_current_revision()


def _applied(config: Config, before: str | None) -> list[str]:
    script = ScriptDirectory.from_config(config)
    revisions = script.iterate_revisions("head", before or "base")
    return [revision.revision for revision in revisions][::-1]


def _check_server(connection: Connection) -> None:
    version, encoding = server.version(connection), server.encoding(connection)
    if version < MINIMUM_SERVER_VERSION:
        raise ConfigurationError(
            f"the server is PostgreSQL {version}",
            hint=f"auditstore needs PostgreSQL {MINIMUM_SERVER_VERSION} or later.",
        )
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database's encoding is {encoding}, which cannot keep every snapshot unaltered",
            hint="Create the database with ENCODING 'UTF8'.",
        )
