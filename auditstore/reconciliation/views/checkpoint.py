"""What was fetched so far, in a file, so that a run that was cut goes on instead of beginning anew.

The file holds the events themselves: whatever the rest of the run finds must be compared with
all of them. It is made readable for its owner alone.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from auditstore.errors import ConfigurationError
from auditstore.reconciliation.views.events_api import Page

_VERSION: Final = "1"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (event_id TEXT PRIMARY KEY, payload BLOB NOT NULL) WITHOUT ROWID;
"""


class Checkpoint:
    """Pages that were fetched for one question (``about``): address, interval."""

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        self._path = path
        self._about = {"version": _VERSION, **about}

    def last_id(self) -> str | None:
        """The id up to which everything was fetched."""
        with self._opened() as database:
            found = database.execute("SELECT max(event_id) FROM events").fetchone()[0]
        return None if found is None else str(found)

    def keep(self, page: Page) -> None:
        """A page, wholly or not at all, on disk when this returns."""
        with self._opened() as database, database:
            database.executemany(
                "INSERT INTO events VALUES (?, ?)",
                ((event_id, zlib.compress(payload, 1)) for event_id, payload in page.events),
            )

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Every event that was fetched, in the order of ids."""
        with self._opened() as database:
            for event_id, payload in database.execute(
                "SELECT event_id, payload FROM events ORDER BY event_id"
            ):
                yield event_id, zlib.decompress(payload)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            # Made by us, so that nobody else may read it from its first byte on.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(self._path)) as database:
                self._check(database)
                yield database
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(
                f"the checkpoint {self._path} cannot be used: {error}",
                hint="Name another file with --checkpoint, or remove this one to begin anew.",
            ) from error

    def _check(self, database: sqlite3.Connection) -> None:
        database.executescript(_SCHEMA)
        known = dict(database.execute("SELECT name, value FROM about"))
        if not known:
            with database:
                database.executemany("INSERT INTO about VALUES (?, ?)", self._about.items())
        elif known != self._about:
            raise ConfigurationError(
                f"the checkpoint {self._path} belongs to a run with another address or interval",
                hint="Give the same --since and --until as that run, or name another file.",
            )
