"""Reconciliations on schedule, beside the daemon, with threads, connections and leases apart.

The daemon knows nothing of it. A run that hangs with its store stops counting, as an upload does
(:mod:`exporters.tasks`), and its place begins no other meanwhile.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, cast

import structlog
from sqlalchemy import Connection, Engine

from auditstore import streams
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Finding, Kind, Level, Summary, compare_increment
from auditstore.reconciliation.results import ResultSink, Run
from auditstore.sql import schedules as sql
from auditstore.sql import server
from auditstore.sql.failures import translated
from auditstore.streams import Stream
from exporters.cron import next_run
from exporters.worker import StoreOpener

log = structlog.get_logger("reconciling")

_PAUSE_EVERY: Final = 100


@dataclass(frozen=True, slots=True)
class ReconcilingConfig:
    """Intervals in seconds.

    ``runs`` at once, and ``hanging`` ones beside them, which made no progress for ``patience``.
    What could not be compared is tried again after ``again``, or sooner if it is due sooner.
    After each 100 files a run rests for ``pause``.
    """

    tick: float = 5.0
    lease_ttl: float = 60.0
    runs: int = 2
    hanging: int = 6
    patience: float = 30.0
    again: float = 900.0
    pause: float = 0.02
    grace: float = 1.5

    @property
    def connections(self) -> int:
        """How many the engine needs: none is held while a run reads from its store."""
        return self.runs + 2


class _Stopped(Exception):
    """The exporter leaves: the run ends between two files."""


@dataclass(slots=True)
class _Running:
    """One run at work, and the progress by which it is seen to be alive."""

    run: Run
    stream: Stream
    cron: str
    place: str
    progress_at: float
    stopping: threading.Event
    pause: float
    monotonic: Callable[[], float]
    counts: Counter[Kind] = field(default_factory=Counter)

    def listing(self, objects: int) -> None:  # noqa: ARG002  # the protocol's
        """The store answers."""
        self._go_on(rests=True)

    def comparing(self, done: int, total: int, bytes_read: int) -> None:  # noqa: ARG002  # the protocol's
        """A file is compared."""
        self._go_on(rests=done % _PAUSE_EVERY == 0)

    def _go_on(self, *, rests: bool) -> None:
        if self.stopping.wait(self.pause if rests else 0):
            raise _Stopped
        self.progress_at = self.monotonic()


class Reconciling:
    """Runs what is due, until it is told to stop. ``engine`` is its own.

    ``now`` is what decides whether a run is due; leases go by the server's clock in any case.
    """

    def __init__(
        self,
        engine: Engine,
        open_store: StoreOpener,
        config: ReconcilingConfig | None = None,
        *,
        sinks: Sequence[ResultSink] = (),
        now: Callable[[Connection], datetime] = server.clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._open_store = open_store
        self._config = config or ReconcilingConfig()
        self._sinks = sinks
        self._now = now
        self._monotonic = monotonic
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._turns = threading.Condition()
        self._running: list[_Running] = []
        self._asked = False
        self._waiting_for: str | None = None
        self._thread = threading.Thread(target=self._turn_by_turn, name="reconciling", daemon=True)

    def start(self) -> None:
        """Begin in the background; trouble with the database is waited for."""
        self._thread.start()

    def stopping(self) -> None:
        """Begin nothing more, and break off what runs between two files."""
        self._stopping.set()
        with self._turns:
            self._turns.notify_all()

    def stop(self) -> bool:
        """The same, and give back what was broken off; whether all left in time."""
        self.stopping()
        # First whoever begins runs, so that none begins while the others are waited for.
        self._thread.join(self._config.grace)
        with self._turns:
            left = self._turns.wait_for(lambda: not self._running, self._config.grace)
        try:
            with translated(), self._engine.begin() as connection:
                sql.release_all(connection, owner=self.owner)
        except AuditStoreError as error:
            # The leases expire by themselves.
            log.warning("reconciliations not given back", cause=error.message)
        return left

    # --- whose turn it is -----------------------------------------------------------------

    def _turn_by_turn(self) -> None:
        while not self._stopping.is_set():
            try:
                with translated():
                    self._turn()
            except AuditStoreError as error:
                if self._waiting_for != error.code:
                    self._waiting_for = error.code
                    log.warning("waiting", code=error.code, cause=error.message, hint=error.hint)
            except Exception:
                log.exception("unexpected failure")
            else:
                self._waiting_for = None
            self._let_go()
            with self._turns:
                self._turns.wait_for(
                    lambda: self._asked or self._stopping.is_set(), self._config.tick
                )
                self._asked = False

    def _let_go(self) -> None:
        """Where connections are few, an idle one kept here is one that exporting lacks."""
        with self._turns:
            if self._running:
                return
        self._engine.dispose()

    def _turn(self) -> None:
        """Plan what is new, keep the leases, and begin what is due."""
        with self._engine.begin() as connection:
            sql.renew(connection, owner=self.owner, ttl=self._config.lease_ttl)
            self._plan(connection)
        room = self._room()
        if room <= 0:
            return
        with self._engine.begin() as connection:
            sql.one_claimer(connection)
            if self._stopping.is_set():
                return  # what was just given back is for others
            begun = self._claim(connection, room)
        for each in begun:
            with self._turns:
                self._running.append(each)
            threading.Thread(
                target=self._work, args=(each,), name=f"reconcile-{each.run.stream_id}", daemon=True
            ).start()

    def _plan(self, connection: Connection) -> None:
        if not sql.unplanned(connection):
            return
        sql.one_claimer(connection)
        # Another exporter may have planned, and even run them meanwhile.
        found = sql.unplanned(connection)
        now = self._now(connection)
        planned = []
        for stream_id, level, cron in found:
            try:
                at = next_run(cron, after=now, stream_id=stream_id, level=level)
            except ConfigurationError as error:
                # Only a row that was changed past auditstore; it is told once.
                log.warning(
                    "no schedule", stream=stream_id, comparison=level, cause=error.message,
                    hint=error.hint,
                )  # fmt: skip
                planned.append(
                    sql.Planned(stream_id, level, cron, None, error.code, error.message, error.hint)
                )
            else:
                planned.append(sql.Planned(stream_id, level, cron, at))
        if planned:
            sql.plan(connection, planned)

    def _hanging(self) -> list[_Running]:
        oldest = self._monotonic() - self._config.patience
        return [each for each in self._running if each.progress_at < oldest]

    def _room(self) -> int:
        with self._turns:
            hanging = len(self._hanging())
            all_threads = self._config.runs + self._config.hanging
            return min(
                self._config.runs - (len(self._running) - hanging),
                all_threads - len(self._running),
            )

    def _claim(self, connection: Connection, room: int) -> list[_Running]:
        now = self._now(connection)
        found = sql.due(connection, now=now)
        if not found:
            return []
        by_id = {each.stream_id: each for each in streams.find(connection, enabled=True)}
        with self._turns:
            suspects = {each.place for each in self._hanging()}
            # Also one whose lease was lost while the database was away.
            chosen = {each.run.stream_id for each in self._running}
        begun: list[_Running] = []
        for stream_id, level in found:
            stream = by_id.get(stream_id)
            if stream is None or stream_id in chosen or _place(stream) in suspects:
                continue
            if len(begun) == room:
                break
            chosen.add(stream_id)
            sql.claim(connection, stream_id, level, owner=self.owner, ttl=self._config.lease_ttl)
            begun.append(self._begun(stream, cast("Level", level), now))
        return begun

    def _begun(self, stream: Stream, level: Level, now: datetime) -> _Running:
        return _Running(
            run=Run(stream.stream_id, stream.flow_id, level, now, self.owner),
            stream=stream,
            cron=stream.reconcile_files if level == "files" else stream.reconcile_events,
            place=_place(stream),
            progress_at=self._monotonic(),
            stopping=self._stopping,
            pause=self._config.pause,
            monotonic=self._monotonic,
        )

    # --- one run --------------------------------------------------------------------------

    def _work(self, running: _Running) -> None:
        try:
            self._reconcile(running)
        except AuditStoreError as error:
            # Its result could not be recorded: when the lease is over, it is due again.
            log.warning(
                "result not recorded", stream=running.run.stream_id, comparison=running.run.level,
                cause=error.message, hint=error.hint,
            )  # fmt: skip
        except Exception:
            log.exception("unexpected failure", stream=running.run.stream_id)
        finally:
            with self._turns:
                self._running.remove(running)
                # The next one need not wait for the tick.
                self._asked = True
                self._turns.notify_all()

    def _reconcile(self, running: _Running) -> None:
        run = running.run
        try:
            summary = self._compared(running)
        except _Stopped:
            self._hand_over(lambda sink: sink.dropped(run))
            with translated(), self._engine.begin() as connection:
                sql.release(connection, run.stream_id, run.level, owner=self.owner)
            return
        if self._record(running, summary):
            _tell(run, summary)
            self._hand_over(lambda sink: sink.done(run, summary))
        else:
            self._hand_over(lambda sink: sink.dropped(run))

    def _compared(self, running: _Running) -> Summary:
        run, stream = running.run, running.stream
        began = self._monotonic()

        def take(finding: Finding) -> None:
            running.counts[finding.kind] += 1
            self._hand_over(lambda sink: sink.finding(run, finding))

        def open_store() -> ObjectStore:
            with self._engine.connect() as connection:
                return self._open_store(connection, stream)

        try:
            return compare_increment(
                self._engine, run.stream_id, open_store, run.level,
                report=take, progress=running, clock=self._monotonic, pattern=True,
            )  # fmt: skip
        except AuditStoreError as error:
            failure = error
        except _Stopped:
            raise
        except Exception as error:
            log.exception("unexpected failure", stream=run.stream_id, comparison=run.level)
            failure = AuditStoreError(
                f"the comparison failed unexpectedly: {type(error).__name__}",
                hint="The exporter's log has it in full.",
            )
        # What was found by then is true, and not all.
        return Summary(
            run.stream_id, run.flow_id, stream.url, run.level,
            counts=running.counts, error=failure, seconds=self._monotonic() - began,
        )  # fmt: skip

    def _record(self, running: _Running, summary: Summary) -> bool:
        """Keep what came of it, and plan the next; whether it was still ours."""
        run, error = running.run, summary.error
        ended = sql.Ended(
            result=summary.result,
            seconds=summary.seconds or 0.0,
            files=summary.files_expected,
            differences={
                kind.value: count for kind, count in summary.counts.items() if kind.is_difference
            },
            error_code=None if error is None else error.code,
            error_cause=None if error is None else error.message,
            error_hint=None if error is None else error.hint,
        )
        with translated(), self._engine.begin() as connection:
            # From the end of this run: what was missed meanwhile is not made up for.
            now = self._now(connection)
            at = next_run(running.cron, after=now, stream_id=run.stream_id, level=run.level)
            if error is not None:
                soon = now + timedelta(seconds=self._config.again)
                at = soon if at is None else min(at, soon)
            return sql.finish(
                connection, run.stream_id, run.level, ended,
                owner=self.owner, cron=running.cron, next_run_at=at,
            )  # fmt: skip

    def _hand_over(self, give: Callable[[ResultSink], None]) -> None:
        for sink in self._sinks:
            try:
                give(sink)
            except Exception:
                log.exception("result not taken", sink=type(sink).__name__)


def _tell(run: Run, summary: Summary) -> None:
    # `level` is the log's own word.
    known = {"stream": run.stream_id, "comparison": run.level}
    if summary.error is not None:
        log.warning("not reconciled", cause=summary.error.message, hint=summary.error.hint, **known)
    elif summary.differences:
        counts = {kind.value: n for kind, n in summary.counts.items() if kind.is_difference}
        log.warning(
            "differences", counts=counts,
            hint="`auditstore reconcile` with this --stream and --level names them.", **known,
        )  # fmt: skip
    else:
        log.info("reconciled", files=summary.files_expected, **known)


def _place(stream: Stream) -> str:
    """What hangs together."""
    try:
        destination = stream.destination
    except ConfigurationError:
        return f"none {stream.stream_id}"  # its own run says what is wrong with it
    return f"{destination.scheme} {destination.endpoint_url or ''} {destination.bucket}"
