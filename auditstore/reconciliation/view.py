"""One consistent look at a stream before its objects are listed.

The daemon may deliver while we compare. So the marks are read first, in one snapshot: what was
delivered before them must be in the listing that comes after; what is delivered later need not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from auditstore import streams
from auditstore.reconciliation.scope import Scope
from auditstore.sql import comparison as sql
from auditstore.sql import server
from auditstore.sql import streams as streams_sql
from auditstore.streams import Stream

#: What a delivery may take beyond the stream's own delay before it counts as late.
GRACE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Events that are not sealed yet, those of them that are late, and the oldest."""

    count: int = 0
    late: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A stream as it stood at ``now`` by the server's clock.

    ``intervals`` are the covered positions (from exclusive, to inclusive); the open one ends
    at the sealed mark. The files from ``first_sequence`` to ``last_sequence`` are to compare.
    """

    stream: Stream
    now: datetime
    intervals: tuple[tuple[int, int], ...]
    first_sequence: int
    last_sequence: int
    enabled_at: datetime | None
    waiting: Waiting

    @property
    def allowance(self) -> timedelta:
        """How old an event may be before it counts as late."""
        return timedelta(seconds=self.stream.limits.max_delay) + GRACE

    @property
    def was_ever_enabled(self) -> bool:
        """Whether there can be anything to compare."""
        return bool(self.intervals) or self.stream.sealed_sequence > 0

    def covers(self, position: int) -> bool:
        """Whether an event at ``position`` must lie in one of the stream's files."""
        return any(start < position <= end for start, end in self.intervals)

    def covered_parts(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of the positions ``first`` to ``last`` that the stream covers."""
        parts = [(max(first, start + 1), min(last, end)) for start, end in self.intervals]
        return [(low, high) for low, high in parts if low <= high]

    def is_late(self, recorded_at: datetime) -> bool:
        """Whether an event recorded then ought to be delivered by now.

        A stream that was enabled to catch up is not late for what it missed before.
        """
        due_from = recorded_at if self.enabled_at is None else max(recorded_at, self.enabled_at)
        return due_from + self.allowance < self.now


def look(engine: Engine, stream_id: int, scope: Scope) -> View:
    """Read marks, intervals and what waits in one snapshot; NotFound without the stream."""
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    with snapshot.connect() as connection:
        stream = streams.get(connection, stream_id)
        now = server.clock(connection)
        enabled_at = sql.open_interval_since(connection, stream_id)
        first, last = 1, stream.sealed_sequence
        if scope.is_bounded:
            first, last = sql.sequence_window(
                connection, stream_id, since=scope.since, until=scope.until, upto=last
            )
        waiting = Waiting()
        if enabled_at is not None:
            late_before = now - timedelta(seconds=stream.limits.max_delay) - GRACE
            count, late, oldest = sql.waiting(
                connection, stream.flow_id, after=stream.sealed_position,
                since=scope.since, until=scope.until, late_before=late_before,
            )  # fmt: skip
            waiting = Waiting(count, late if enabled_at < late_before else 0, oldest)
        return View(
            stream=stream,
            now=now,
            intervals=tuple(
                (start, stream.sealed_position if end is None else end)
                for start, end in streams_sql.intervals(connection, stream_id)
            ),
            first_sequence=first,
            last_sequence=last,
            enabled_at=enabled_at,
            waiting=waiting,
        )
