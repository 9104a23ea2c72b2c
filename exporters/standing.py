"""How a daemon's streams stand: asked of the database when somebody wants to know, in the
background, and at most once a second however many ask.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Engine

from auditstore.errors import AuditStoreError
from auditstore.sql import schedules as schedules_sql
from auditstore.sql import standing as sql
from auditstore.sql import streams as streams_sql
from auditstore.sql.failures import translated
from exporters.observer import Pulse

# Beyond its delay; `auditstore status` calls the same late.
ALLOWANCE: Final = 10.0
_STATEMENT_LIMIT: Final = 20.0


@dataclass(frozen=True, slots=True)
class StreamStanding:
    """One stream: how many events are not in its store, and for how many seconds the oldest."""

    stream_id: int
    flow_id: str
    state: str
    lag_events: int
    lag_seconds: float
    bound: float

    @property
    def overdue(self) -> bool:
        """Whether its oldest event waits longer than it may."""
        return self.lag_seconds > self.bound


@dataclass(frozen=True, slots=True)
class Appended:
    """How many events were seen to be appended for a stream since this daemon has it."""

    flow_id: str
    events: int


@dataclass(frozen=True, slots=True)
class Standing:
    """All of it. ``reachable`` is whether the database answered; if not, there are no streams.

    ``last_position`` is the newest that the outbox has handed out to anybody. ``schedules`` are
    those of ``streams``.
    """

    reachable: bool
    streams: tuple[StreamStanding, ...] = ()
    last_position: int | None = None
    appended: Mapping[int, Appended] = field(default_factory=dict)
    schedules: tuple[schedules_sql.Schedule, ...] = ()


@dataclass(slots=True)
class _Counted:
    mark: sql.Mark
    waiting: int


class StandingReader:
    """Asks over an engine of its own, so that watching takes no connection from the work.

    ``pulse`` gives the daemon's own view, or None while there is no daemon yet. A database that
    does not answer keeps nobody longer than ``patience`` seconds.
    """

    def __init__(
        self,
        engine: Engine,
        pulse: Callable[[], Pulse | None],
        *,
        max_age: float = 1.0,
        patience: float = 3.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._pulse = pulse
        self._max_age = max_age
        self._patience = patience
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._latest = Standing(reachable=False)
        self._read_at = float("-inf")
        self._reading = False
        self._run = ""
        self._counted: dict[int, _Counted] = {}
        self._appended: dict[int, Appended] = {}

    def latest(self) -> Standing:
        """How the streams stand, no older than ``max_age``; any thread may call."""
        wanted = self._monotonic() - self._max_age
        with self._changed:
            if self._read_at < wanted and not self._reading:
                self._reading = True
                # A thread, since a server that vanished can keep its client for long; none of
                # a pool, since those are waited for at the end of the process.
                threading.Thread(target=self._read, name="standing", daemon=True).start()
            answered = self._changed.wait_for(lambda: self._read_at >= wanted, self._patience)
            if answered:
                return self._latest
            return Standing(reachable=False, appended=dict(self._appended))

    def _read(self) -> None:
        standing = Standing(reachable=False, appended=dict(self._appended))
        try:
            standing = self._ask()
        except AuditStoreError:
            # What it was is in the log: the daemon's own work meets the same.
            pass
        finally:
            with self._changed:
                self._latest, self._read_at = standing, self._monotonic()
                self._reading = False
                self._changed.notify_all()

    def _ask(self) -> Standing:
        pulse = self._pulse()
        with translated(), self._engine.begin() as connection:
            sql.limit_time(connection, seconds=_STATEMENT_LIMIT)
            last_position = streams_sql.last_position(connection)
            if pulse is None:
                return Standing(reachable=True, last_position=last_position)
            if self._run not in ("", pulse.run):
                # Positions that a crash took back are handed out again.
                self._counted.clear()
            self._run = pulse.run
            rows = sql.own_streams(
                connection, daemon_id=pulse.daemon_id, fence=pulse.fence_position,
                known={stream_id: each.mark for stream_id, each in self._counted.items()},
            )  # fmt: skip
            schedules = schedules_sql.find(connection, [row.stream_id for row in rows])
        counted = {row.stream_id: self._count(row) for row in rows}
        self._counted = counted
        return Standing(
            reachable=True,
            streams=tuple(
                StreamStanding(
                    stream_id=row.stream_id, flow_id=row.flow_id, state=row.state,
                    lag_events=row.undelivered + counted[row.stream_id].waiting + row.above,
                    lag_seconds=max(0.0, row.oldest_age or 0.0),
                    bound=row.max_delay + ALLOWANCE,
                )
                for row in rows
            ),
            last_position=last_position,
            appended=dict(self._appended),
            schedules=tuple(schedules),
        )  # fmt: skip

    def _count(self, row: sql.StandingRow) -> _Counted:
        """Bring what is known of a stream up to date.

        What was appended since the mark is what is waiting now, less what waited then, plus
        what was sealed meanwhile, by whomever.
        """
        before = self._counted.get(row.stream_id)
        total = self._appended.get(row.stream_id)
        events = 0 if total is None else total.events
        if before is None or row.sealed_position >= before.mark.position:
            waiting = row.counted
        else:
            waiting = before.waiting + row.counted - row.sealed
        if before is not None:
            # Less than nothing when the stream was disabled meanwhile: what waited is not its own.
            events += max(0, waiting - before.waiting + row.sealed)
        self._appended[row.stream_id] = Appended(row.flow_id, events)
        return _Counted(sql.Mark(row.upto, row.sealed_sequence), max(0, waiting))
