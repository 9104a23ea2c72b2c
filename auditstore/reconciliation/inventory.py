"""What a store listed, spooled to disk, so that memory stays flat however many objects."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Self

from auditstore.errors import AuditStoreError
from auditstore.objects import ObjectInfo
from auditstore.reconciliation.scope import Progress

_BATCH: Final = 1000
_SCHEMA: Final = """
CREATE TABLE objects (
    key BLOB PRIMARY KEY, size INTEGER NOT NULL, etag TEXT, known INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID
"""


class TemporaryDatabaseFailed(AuditStoreError):
    """The temporary database cannot be written, most likely for want of space."""

    code = "temporary-database"


@contextmanager
def temporary_database() -> Iterator[sqlite3.Connection]:
    """A database in the temporary folder, in no file that outlives this process.

    SQLite keeps about 2 MB of it in memory.
    """
    try:
        database = sqlite3.connect("")
        try:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            yield database
        finally:
            database.close()
    except sqlite3.Error as error:
        raise TemporaryDatabaseFailed(
            f"the temporary database failed: {error}",
            hint="Make space in the temporary folder, or name another one with SQLITE_TMPDIR.",
        ) from error


class Inventory:
    """The objects that were listed, each known or not (yet) to some row of a ledger."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute(_SCHEMA)

    @classmethod
    def of(
        cls, database: sqlite3.Connection, objects: Iterable[ObjectInfo], progress: Progress
    ) -> Self:
        """Spool a listing; one that repeats a key is taken by its last word."""
        made = cls(database)
        listed = 0
        batch: list[tuple[bytes, int, str | None]] = []
        for info in objects:
            batch.append((_encode(info.key), info.size, info.etag))
            if len(batch) == _BATCH:
                listed += made._add(batch)
                progress.listing(listed)
        listed += made._add(batch)
        progress.listing(listed)
        return made

    def __len__(self) -> int:
        """How many objects were listed."""
        return int(self._database.execute("SELECT count(*) FROM objects").fetchone()[0])

    def take(self, key: str) -> ObjectInfo | None:
        """The object as it was listed, known from now on; ``None`` if it was not there."""
        row = self._database.execute(
            "UPDATE objects SET known = 1 WHERE key = ? RETURNING size, etag", (_encode(key),)
        ).fetchone()
        return None if row is None else ObjectInfo(key=key, size=row[0], etag=row[1])

    def below(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """The objects whose keys begin with ``prefix``, in their order."""
        after = _encode(prefix if start_after is None else max(prefix, start_after))
        # The key that is the prefix itself is below it; what was to be started after is not.
        sign = ">=" if start_after is None or start_after < prefix else ">"
        start = _encode(prefix)
        while True:
            rows = self._database.execute(
                f"SELECT key, size, etag FROM objects WHERE key {sign} ? ORDER BY key LIMIT ?",  # noqa: S608  # one of two signs
                (after, _BATCH),
            ).fetchall()
            for key, size, etag in rows:
                if not key.startswith(start):
                    return
                yield ObjectInfo(key=_decode(key), size=size, etag=etag)
            if len(rows) < _BATCH:
                return
            after, sign = rows[-1][0], ">"

    def unknown_pages(self) -> Iterator[list[ObjectInfo]]:
        """The objects that nobody took, in pages and in the order of their keys."""
        after = b""
        while True:
            rows = self._database.execute(
                "SELECT key, size, etag FROM objects WHERE known = 0 AND key > ?"
                " ORDER BY key LIMIT ?",
                (after, _BATCH),
            ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield [ObjectInfo(key=_decode(key), size=size, etag=etag) for key, size, etag in rows]

    def _add(self, batch: list[tuple[bytes, int, str | None]]) -> int:
        self._database.executemany(
            "INSERT OR REPLACE INTO objects (key, size, etag) VALUES (?, ?, ?)", batch
        )
        added = len(batch)
        batch.clear()
        return added


def _encode(key: str) -> bytes:
    # A folder may hold names that are not UTF-8; Python tells them in surrogates.
    return key.encode(errors="surrogateescape")


def _decode(key: bytes) -> str:
    return key.decode(errors="surrogateescape")
