"""The exporter daemon: APScheduler drives tail ticks, leases, retries and partition upkeep.

It only decides which stream's work runs when; the work itself is :mod:`exporters.worker`. Each
stream is worked on by one thread at a time; :mod:`exporters.tasks` has the turns.
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
from dataclasses import dataclass, field
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
from exporters.observer import UNOBSERVED, Observer, Pulse
from exporters.tasks import Lanes, Task, Tasks
from exporters.worker import READERS, StoreOpener, Worker

log = structlog.get_logger("exporter")

# How far ahead partitions are made, in periods: a daemon may be away for most of that time.
_PERIODS_AHEAD: Final[dict[PartitionPeriod, int]] = {"month": 3, "day": 15}
_UPKEEP_AGAIN: Final = 30.0


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
    lanes: Lanes = field(default_factory=Lanes)
    grace: float = 8.0
    partitions: PartitionPeriod = "month"

    @property
    def connections(self) -> int:
        """How many the daemon needs: for what works or reads ahead, the fence, the jobs, a spare.

        What hangs on its store holds none.
        """
        return self.lanes.workers + self.lanes.troubled + READERS + 4


class Daemon:
    """Exports the streams that it can lease, until it is told to stop.

    ``engine`` needs room for ``config.connections``.
    """

    def __init__(
        self,
        engine: Engine,
        open_store: StoreOpener,
        config: DaemonConfig | None = None,
        *,
        observer: Observer = UNOBSERVED,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._config = config or DaemonConfig()
        self._monotonic = monotonic
        self._worker = Worker(engine, open_store, observer)
        self.daemon_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._tasks = Tasks(self._config.lanes, recheck=self._config.recheck)
        self._safe = SafePosition(0, "")
        self._leased_until = 0.0
        self._jobs_running = 0
        self._jobs_over = threading.Condition()
        self._fence: Fence | None = None
        self._fence_connection: Connection | None = None
        self._rests_until = 0.0
        self._waiting_for: str | None = None
        self._away_until = 0.0
        self._ticked_at = monotonic()
        self._threads = ThreadPoolExecutor(self._config.lanes.threads, thread_name_prefix="stream")
        self._uploads: set[Future[None]] = set()
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
        self._scheduler.add_job(
            self._beating(self._guard(self._tick)), "interval", seconds=every.tick
        )
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
        unfinished = wait(
            set(self._uploads), timeout=max(0.0, ends_at - self._monotonic())
        ).not_done
        self._threads.shutdown(wait=False, cancel_futures=True)
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

    def pulse(self) -> Pulse:
        """How it is at this moment, without asking anybody; any thread may call."""
        fence, safe = self._fence, self._safe
        return Pulse(
            daemon_id=self.daemon_id,
            tick_age=self._monotonic() - self._ticked_at,
            fence_position=safe.position,
            fence_age=None if fence is None else fence.age,
            run=safe.run,
        )

    # --- the scheduler's jobs -------------------------------------------------------

    def _beating(self, job: Callable[[], None]) -> Callable[[], None]:
        """The tick, also while it waits for the database: one that hangs is not begun again."""

        def beating() -> None:
            self._ticked_at = self._monotonic()
            job()

        return beating

    def _guard(self, job: Callable[[], None]) -> Callable[[], None]:
        """A job that waits while the database is in trouble, and says once what the matter is."""

        def guarded() -> None:
            if self._monotonic() < self._away_until or not self._begin_job():
                return
            try:
                job()
            except AuditStoreError as error:
                self._away_until = self._monotonic() + 1.0
                self._rests_until = 0.0
                if self._waiting_for != error.code:
                    self._waiting_for = error.code
                    log.warning("waiting", code=error.code, cause=error.message, hint=error.hint)
            else:
                if self._waiting_for is not None:
                    self._waiting_for = None
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
        """Advance the fence, and give the streams that may have work to their threads.

        Where the last look found nothing to do, the next one need not come at once.
        """
        now, before = self._monotonic(), self._safe
        if now < self._rests_until:
            return
        try:
            with translated():
                fence, connection = self._connect_fence()
                position = fence.advance()
                self._safe = fence.safe
                asked = self._tasks.look(now, position)
                if asked:
                    waiting = events_sql.oldest_waiting(connection, asked, fence=position)
                    self._tasks.found(asked, waiting, position)
        except AuditStoreError:
            self._drop_fence()
            raise
        self._begin()
        if fence.is_level and self._safe == before:
            self._rests_until = now + self._tasks.rest(now)

    def _keep_leases(self) -> None:
        """Renew, take or give back leases so that live daemons share the streams evenly."""
        ttl = self._config.lease_ttl
        asked_at = self._monotonic()
        with translated(), self._engine.begin() as connection:
            leases_sql.announce(
                connection, daemon_id=self.daemon_id, host=socket.gethostname(), pid=os.getpid(),
                version=version("auditstore"),
            )  # fmt: skip
            if (fence := self._fence) is not None:
                leases_sql.report_fence(
                    connection, daemon_id=self.daemon_id, position=fence.position, age=fence.age
                )
            held = leases_sql.renew(connection, daemon_id=self.daemon_id, ttl=ttl)
            enabled = streams.find(connection, enabled=True)
            share = -(-len(enabled) // max(1, leases_sql.live_daemons(connection, ttl=ttl)))
            if len(held) < share:
                held += leases_sql.acquire(
                    connection, daemon_id=self.daemon_id, ttl=ttl, limit=share - len(held)
                )
            elif len(held) > share:
                surplus = self._tasks.idle(reversed(held))[: len(held) - share]
                leases_sql.release(connection, daemon_id=self.daemon_id, stream_ids=surplus)
                held = [stream_id for stream_id in held if stream_id not in surplus]
        self._leased_until = asked_at + ttl
        kept = self._tasks.keep(stream for stream in enabled if stream.stream_id in held)
        self._worker.forget_others(kept)
        self._rests_until = 0.0  # a stream may be new, or changed

    def _make_partitions(self) -> None:
        period = self._config.partitions
        try:
            with translated(), self._engine.begin() as connection:
                made = partitions_sql.make_partitions(
                    connection, period=period, first_at=server.clock(connection),
                    periods=_PERIODS_AHEAD[period],
                )  # fmt: skip
        except AuditStoreError as error:
            # Its own trouble: a lock that was not granted must not keep files from going out.
            log.warning(
                "partitions not made", cause=error.message, hint=error.hint,
                again_in=_UPKEEP_AGAIN,
            )  # fmt: skip
            self._scheduler.add_job(
                self._guard(self._make_partitions), "date", id="upkeep-again",
                run_date=datetime.now(UTC) + timedelta(seconds=_UPKEEP_AGAIN),
                replace_existing=True,
            )  # fmt: skip
            return
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

    def _begin(self) -> None:
        """Give those whose turn it is to threads; called whenever that may have changed."""
        with self._jobs_over:
            if self._stopping.is_set():
                return
            safe = self._safe
            for task in self._tasks.begin(self._monotonic(), safe.position):
                try:
                    upload = self._threads.submit(self._work, task, safe)
                except RuntimeError as error:
                    # No thread could be started. The pool has queued it all the same, for one
                    # that comes free or that can be started later.
                    log.warning("short of threads", stream=task.stream_id, cause=str(error))
                    continue
                self._uploads.add(upload)
                upload.add_done_callback(self._uploads.discard)

    def _work(self, task: Task, safe: SafePosition) -> None:
        ends_at = self._monotonic() + self._config.turn

        def may_go_on() -> bool:
            # Local time may only make us stop sooner than the server would let others in.
            now = task.progress_at = self._monotonic()
            return not self._stopping.is_set() and now < min(self._leased_until, ends_at)

        outcome = None
        try:
            outcome = self._worker.work(task.stream_id, safe, may_go_on=may_go_on)
        except AuditStoreError as error:
            log.warning(
                "database trouble", stream=task.stream_id, cause=error.message, hint=error.hint
            )
        except Exception:
            # Else the pool would keep it to itself. The stream is tried again in a second.
            log.exception("unexpected failure", stream=task.stream_id)
        finally:
            self._tasks.finish(task, outcome, self._monotonic())
        if outcome is not None and outcome.retry_in is not None:
            self._retry_later(task, outcome.retry_in)
        self._begin()

    def _retry_later(self, task: Task, retry_in: float) -> None:
        """The scheduler's one-off job for this stream."""
        self._scheduler.add_job(
            self._tasks.retry, "date", args=(task,),
            run_date=datetime.now(UTC) + timedelta(seconds=retry_in),
            id=f"retry-{task.stream_id}", replace_existing=True,
        )  # fmt: skip

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
