"""The lock fence: up to which position the outbox can be read without skipping an event.

Positions are handed out before commit, so position 7 can become visible after 8. ``CREATE
INDEX CONCURRENTLY`` solves the same puzzle by waiting for lock holders; the fence does so
without waiting, and looks only at transactions that wrote to the outbox. A position H is
*safe* once every transaction that held the outbox's insert lock when H was read is over:
whatever was handed out up to H is then visible to a new statement, or never will be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from auditstore.errors import DatabaseReadOnly, TailingUnsafe
from auditstore.sql import fence as sql
from auditstore.sql import server
from exporters.holders import Holders

_KEPT: Final = 64


@dataclass(slots=True)
class _Mark:
    """A position, and those of its writers that were not yet seen to be over."""

    position: int
    writers: frozenset[str]
    taken_at: float


@dataclass(frozen=True, slots=True)
class SafePosition:
    """Up to where the outbox can be read without skipping, in this run of the server only.

    After a crash positions that were lost with it are handed out again, to writers that
    nobody has looked for.
    """

    position: int
    run: str


class Fence:
    """Follows one server over one autocommit connection that nobody else uses.

    Make a new one after every reconnect: virtual transaction ids do not survive a restart.
    """

    def __init__(
        self, connection: Connection, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Raise TailingUnsafe for a server or a connection on which events could be skipped."""
        _check(connection)
        self._connection = connection
        self._monotonic = monotonic
        self._marks: list[_Mark] = []
        self._run: str | None = None
        self._safe_at = monotonic()
        self._holders = Holders()
        self.position = 0
        """The newest safe position."""

    @property
    def age(self) -> float:
        """Seconds since the newest safe position was the last one handed out."""
        return self._monotonic() - self._safe_at

    @property
    def is_level(self) -> bool:
        """Whether all that was handed out is safe, so that only a new append can move it."""
        return bool(self._marks) and self._marks[-1].position == self.position

    @property
    def safe(self) -> SafePosition:
        """The newest safe position, with the run of the server that it is bound to."""
        return SafePosition(self.position, self._run or "")

    def advance(self) -> int:
        """Look at the server once; return the newest safe position.

        A caller reads the outbox up to it in a statement that begins after this returns.
        Raises DatabaseReadOnly on a server that would let nothing be sealed.
        """
        # The order of these two statements, and that they are two, is what makes it right.
        now = self._monotonic()
        high = sql.high_water(self._connection)
        seen = sql.writers(self._connection)
        if high.read_only:
            raise _read_only()
        if not self._run == high.run == seen.run:
            # The first look; or a pooler reconnected behind our back, perhaps just now, to a
            # server that was restarted or replaced.
            if self._run is not None:
                _check(self._connection)
            self._marks.clear()
            self.position, self._run = 0, seen.run
            if high.run != seen.run:
                return self.position
        writers = seen.virtualtransactions

        for mark in self._marks:
            mark.writers &= writers
        if self._marks and self._marks[-1].position == high.position:
            # Nothing new was handed out; the older, smaller set of writers is the sharper one.
            if not self._marks[-1].writers:
                self._marks[-1].taken_at = now
        else:
            self._marks.append(_Mark(high.position, writers, now))
        self._take_newest_safe()
        self._thin()
        self._holders.look(self._connection, held_for=self.age, now=now)
        return self.position

    def _take_newest_safe(self) -> None:
        for index in range(len(self._marks) - 1, -1, -1):
            mark = self._marks[index]
            if not mark.writers:
                self.position, self._safe_at = mark.position, mark.taken_at
                # The safe mark itself stays, so that a quiet outbox needs no new one.
                del self._marks[:index]
                return

    def _thin(self) -> None:
        """Behind one long writer marks pile up that all wait for it; half of them will do."""
        if len(self._marks) > _KEPT:
            newest = self._marks[-1]
            self._marks = [*self._marks[:-1:2], newest]


def _read_only() -> DatabaseReadOnly:
    return DatabaseReadOnly(
        "the database takes no writes: default_transaction_read_only is on, or this is a standby",
        hint="Lift default_transaction_read_only for the server, the database and this user, or"
        " point AUDITSTORE_DATABASE_URL at the primary. The exporter waits and goes on by itself.",
    )


def _check(connection: Connection) -> None:
    driver = connection.connection.dbapi_connection
    if not getattr(driver, "autocommit", False):
        raise TailingUnsafe(
            "the fence's connection is not in autocommit mode, so its snapshot would be too old",
            hint="This is a defect of the program that opened it; report it.",
        )
    if server.is_standby(connection):
        raise TailingUnsafe(
            "this server is a standby: it does not show who is writing",
            hint="Point AUDITSTORE_DATABASE_URL at the primary.",
        )
    isolation = sql.transaction_isolation(connection)
    if isolation != "read committed":
        raise TailingUnsafe(
            f"the connection reads at {isolation}, so events could be skipped",
            hint="Remove default_transaction_isolation from this user, database or server,"
            " or set it to 'read committed'.",
        )
    cache = sql.sequence_cache(connection)
    if cache != 1:
        raise TailingUnsafe(
            f"the outbox's sequence has CACHE {cache}, so a lower position may come later",
            hint="Run ALTER TABLE auditstore.events ALTER COLUMN position SET CACHE 1"
            " while no flow engine is connected.",
        )
