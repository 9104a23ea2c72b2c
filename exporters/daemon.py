"""The exporter daemon: APScheduler drives tail ticks, leases, retries and partition upkeep.

It only decides which stream's work runs when; the work itself is :mod:`exporters.worker`. Each
stream is worked on by one thread at a time, and streams in trouble have threads of their own,
so that a broken bucket delays nobody else.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final

import structlog
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Connection, Engine

from auditstore import streams
from auditstore.database import check_schema
from auditstore.errors import AuditStoreError
from auditstore.settings import PartitionPeriod
from auditstore.sql import events as events_sql
from auditstore.sql import leases as leases_sql
from auditstore.sql import partitions as partitions_sql
from auditstore.sql import server
from auditstore.sql.failures import translated
from exporters.fence import Fence, SafePosition
from exporters.worker import Outcome, StoreOpener, Worker

log = structlog.get_logger("exporter")

# How far ahead partitions are made, in periods: a daemon may be away for most of that time.
_PERIODS_AHEAD: Final[dict[PartitionPeriod, int]] = {"month": 3, "day": 15}


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Intervals in seconds.

    ``turn`` is how long a stream with a backlog may keep a thread before others have theirs;
    ``grace`` how long a stop waits for the uploads in hand.
    """

    tick: float = 0.1
    recheck: float = 0.25
    turn: float = 1.0
    lease_ttl: float = 15.0
    upkeep: float = 3600.0
    workers: int = 6
    troubled_workers: int = 4
    grace: float = 8.0
    partitions: PartitionPeriod = "month"

    @property
    def threads(self) -> int:
        """How many database connections the workers need at most."""
        return self.workers + self.troubled_workers


@dataclass(slots=True)
class _Task:
    """What this daemon knows of a stream that it has leased."""

    stream_id: int
    version: object = None
    troubled: bool = False
    halted: bool = False
    running: Future[None] | None = None
    # The version and the fence that its work saw last.
    worked_version: object = None
    worked_fence: int = -1
    # Monotonic: not before this; without new events, again at that.
    not_before: float = 0.0
    check_at: float | None = 0.0


class Daemon:
    """Exports the streams that it can lease, until it is told to stop.

    ``engine`` needs room for ``config.threads + 3`` connections.
    """

    def __init__(
        self,
        engine: Engine,
        open_store: StoreOpener,
        config: DaemonConfig | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._config = config or DaemonConfig()
        self._monotonic = monotonic
        self._worker = Worker(engine, open_store)
        self.daemon_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._tasks: dict[int, _Task] = {}
        self._leased_until = 0.0
        self._lock = threading.Lock()
        self._jobs_running = 0
        self._jobs_over = threading.Condition()
        self._fence: Fence | None = None
        self._fence_connection: Connection | None = None
        self._waiting = False
        self._away_until = 0.0
        self._healthy = ThreadPoolExecutor(self._config.workers, thread_name_prefix="stream")
        self._troubled = ThreadPoolExecutor(
            self._config.troubled_workers, thread_name_prefix="troubled"
        )
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            # A job that is late runs once, however late it is.
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Begin to work in the background; raises what an operator must mend first."""
        with translated(), self._engine.connect() as connection:
            check_schema(connection)
        try:
            with translated():
                self._connect_fence()
            self._keep_leases()
        except AuditStoreError:
            self._drop_fence()
            raise
        now = datetime.now(UTC)
        every = self._config
        self._scheduler.add_job(self._guard(self._tick), "interval", seconds=every.tick)
        self._scheduler.add_job(
            self._guard(self._keep_leases), "interval", seconds=every.lease_ttl / 5
        )
        self._scheduler.add_job(
            self._guard(self._make_partitions), "interval", seconds=every.upkeep,
            next_run_time=now,
        )  # fmt: skip
        self._scheduler.start()
        threading.Thread(target=self._watch_clock, name="watchdog", daemon=True).start()
        log.info("exporting", daemon=self.daemon_id, streams=len(self._tasks))

    def stop(self) -> bool:
        """Finish the uploads in hand, give the leases back; whether all was finished in time."""
        ends_at = self._monotonic() + self._config.grace
        self._scheduler.shutdown(wait=False)
        with self._jobs_over:
            self._stopping.set()
            # One in hand could start an upload, or take leases after they were given back.
            self._jobs_over.wait_for(lambda: not self._jobs_running, self._config.grace)
        with self._lock:
            running = [task.running for task in self._tasks.values() if task.running]
        unfinished = wait(running, timeout=max(0.0, ends_at - self._monotonic())).not_done
        self._healthy.shutdown(wait=False, cancel_futures=True)
        self._troubled.shutdown(wait=False, cancel_futures=True)
        try:
            with translated(), self._engine.begin() as connection:
                leases_sql.withdraw(connection, daemon_id=self.daemon_id)
        except AuditStoreError as error:
            # The leases expire by themselves.
            log.warning("leases not given back", cause=error.message)
        self._drop_fence()
        if not unfinished:
            self._worker.close()
        log.info("stopped", daemon=self.daemon_id, unfinished=len(unfinished))
        return not unfinished

    # --- the scheduler's jobs -------------------------------------------------------

    def _guard(self, job: Callable[[], None]) -> Callable[[], None]:
        """A job that waits while the database is in trouble, and says so once."""

        def guarded() -> None:
            if self._monotonic() < self._away_until or not self._begin_job():
                return
            try:
                job()
            except AuditStoreError as error:
                self._away_until = self._monotonic() + 1.0
                if not self._waiting:
                    self._waiting = True
                    log.warning("waiting", code=error.code, cause=error.message, hint=error.hint)
            else:
                if self._waiting:
                    self._waiting = False
                    log.info("going on")
            finally:
                self._end_job()

        return guarded

    def _begin_job(self) -> bool:
        with self._jobs_over:
            if self._stopping.is_set():
                return False
            self._jobs_running += 1
            return True

    def _end_job(self) -> None:
        with self._jobs_over:
            self._jobs_running -= 1
            self._jobs_over.notify_all()

    def _watch_clock(self) -> None:
        """Run the jobs at once when the host's clock was set back.

        The scheduler goes by the host's clock: set back by an hour, it would sleep that long.
        """
        behind = time.time() - self._monotonic()
        while not self._stopping.wait(1.0):
            now_behind = time.time() - self._monotonic()
            if now_behind < behind - 1.0:
                log.warning("the host's clock was set back", seconds=round(behind - now_behind, 1))
                for job in self._scheduler.get_jobs():
                    with suppress(JobLookupError):  # a retry may have run meanwhile
                        job.modify(next_run_time=datetime.now(UTC))
            behind = now_behind

    def _tick(self) -> None:
        """Advance the fence, and give the streams that may have work to their threads."""
        try:
            with translated():
                fence, connection = self._connect_fence()
                position = fence.advance()
                safe = fence.safe
                tasks = self._tasks_with_work(connection, position)
        except AuditStoreError:
            self._drop_fence()
            raise
        for task in tasks:
            self._submit(task, safe)

    def _tasks_with_work(self, connection: Connection, fence: int) -> list[_Task]:
        now = self._monotonic()
        with self._lock:
            idle = [
                task
                for task in self._tasks.values()
                if task.running is None and not task.halted and task.not_before <= now
            ]
        due = [task for task in idle if task.check_at is not None and task.check_at <= now]
        behind = {
            task.stream_id: task
            for task in idle
            if task.check_at is None and task.worked_fence != fence
        }
        if behind:
            waiting = events_sql.oldest_waiting(connection, list(behind), fence=fence)
            for stream_id, task in behind.items():
                if stream_id in waiting:
                    due.append(task)
                else:
                    task.worked_fence = fence
        return due

    def _keep_leases(self) -> None:
        """Renew, take or give back leases so that live daemons share the streams evenly."""
        ttl = self._config.lease_ttl
        asked_at = self._monotonic()
        with translated(), self._engine.begin() as connection:
            leases_sql.announce(
                connection, daemon_id=self.daemon_id, host=socket.gethostname(), pid=os.getpid(),
                version=version("auditstore"),
            )  # fmt: skip
            if self._fence is not None:
                leases_sql.report_fence(
                    connection, daemon_id=self.daemon_id, position=self._fence.position,
                    age=self._fence.age,
                )  # fmt: skip
            held = leases_sql.renew(connection, daemon_id=self.daemon_id, ttl=ttl)
            enabled = streams.find(connection, enabled=True)
            share = -(-len(enabled) // max(1, leases_sql.live_daemons(connection, ttl=ttl)))
            if len(held) < share:
                held += leases_sql.acquire(
                    connection, daemon_id=self.daemon_id, ttl=ttl, limit=share - len(held)
                )
            elif len(held) > share:
                surplus = self._idle_streams(held)[: len(held) - share]
                leases_sql.release(connection, daemon_id=self.daemon_id, stream_ids=surplus)
                held = [stream_id for stream_id in held if stream_id not in surplus]
        self._leased_until = asked_at + ttl
        mine = {stream.stream_id: stream for stream in enabled if stream.stream_id in held}
        with self._lock:
            for stream_id in list(self._tasks):
                if stream_id not in mine and self._tasks[stream_id].running is None:
                    del self._tasks[stream_id]
            for stream_id, stream in mine.items():
                troubled = stream.status.state != "streaming"
                task = self._tasks.setdefault(stream_id, _Task(stream_id, troubled=troubled))
                if task.version != stream.version:
                    # A new stream, or a changed setting or credential: try at once.
                    task.version, task.halted = stream.version, stream.status.state == "halted"
                    task.not_before, task.check_at = 0.0, 0.0

    def _make_partitions(self) -> None:
        period = self._config.partitions
        with translated(), self._engine.begin() as connection:
            made = partitions_sql.make_partitions(
                connection, period=period, first_at=server.clock(connection),
                periods=_PERIODS_AHEAD[period],
            )  # fmt: skip
        for name, outcome in made:
            if outcome == "created":
                log.info("partition made", partition=name)
            elif outcome == "overlaps":
                log.debug("partition not needed: another period covers its time", partition=name)
            elif outcome == "rows-in-default":
                log.warning(
                    "partition not made: events of its time lie in the default partition already",
                    partition=name,
                )

    # --- one stream's work ----------------------------------------------------------

    def _submit(self, task: _Task, fence: SafePosition) -> None:
        pool = self._troubled if task.troubled else self._healthy
        with self._lock:
            task.worked_version, task.worked_fence = task.version, fence.position
            task.running = pool.submit(self._work, task, fence)

    def _work(self, task: _Task, fence: SafePosition) -> None:
        ends_at = self._monotonic() + self._config.turn

        def may_go_on() -> bool:
            # Local time may only make us stop sooner than the server would let others in.
            now = self._monotonic()
            return not self._stopping.is_set() and now < min(self._leased_until, ends_at)

        outcome = None
        try:
            outcome = self._worker.work(task.stream_id, fence, may_go_on=may_go_on)
        except AuditStoreError as error:
            log.warning(
                "database trouble", stream=task.stream_id, cause=error.message, hint=error.hint
            )
        finally:
            self._finish(task, outcome)

    def _finish(self, task: _Task, outcome: Outcome | None) -> None:
        now = self._monotonic()
        with self._lock:
            task.running = None
            task.not_before = now
            if outcome is None:
                task.not_before = task.check_at = now + 1.0
            elif task.worked_version != task.version:
                task.check_at = now
            elif outcome.retry_in is not None:
                self._retry(task, outcome.retry_in)
            elif outcome.due_in is not None:
                # More events may fill the file sooner than its delay ends.
                task.check_at = now + min(outcome.due_in, self._config.recheck)
            else:
                task.check_at = None
            if outcome is not None:
                # Resumed meanwhile, it is not halted any more.
                task.halted = outcome.halted and task.worked_version == task.version
                task.troubled = outcome.retry_in is not None

    def _retry(self, task: _Task, retry_in: float) -> None:
        """Look again after a while: the scheduler's one-off job for this stream."""
        task.not_before = self._monotonic() + retry_in
        task.check_at = None

        def due() -> None:
            task.check_at = 0.0

        self._scheduler.add_job(
            due, "date", run_date=datetime.now(UTC) + timedelta(seconds=retry_in),
            id=f"retry-{task.stream_id}", replace_existing=True,
        )  # fmt: skip

    def _idle_streams(self, stream_ids: list[int]) -> list[int]:
        with self._lock:
            return [
                stream_id
                for stream_id in reversed(stream_ids)
                if stream_id not in self._tasks or self._tasks[stream_id].running is None
            ]

    # --- the fence's own connection -------------------------------------------------

    def _connect_fence(self) -> tuple[Fence, Connection]:
        if self._fence is None or self._fence_connection is None:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._fence_connection = connection
            self._fence = Fence(connection, monotonic=self._monotonic)
        return self._fence, self._fence_connection

    def _drop_fence(self) -> None:
        connection, self._fence_connection, self._fence = self._fence_connection, None, None
        if connection is not None:
            connection.invalidate()
            connection.close()
