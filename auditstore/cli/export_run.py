"""The life of the daemon's process: it waits for its database, works, and leaves in time."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import Engine

from auditstore import database, transport
from auditstore.cli.context import Session
from auditstore.cli.logs import LogFormat, configure_logs
from auditstore.cli.reconciling_run import Beside
from auditstore.cli.stores import store_opener
from auditstore.errors import DatabaseUnavailable
from auditstore.settings import ListenAddress
from exporters.daemon import Daemon, DaemonConfig
from exporters.observer import UNOBSERVED
from exporters.tasks import Lanes
from exporters.worker import LONGEST_IDLE

if TYPE_CHECKING:
    from exporters.monitor import Monitor

log = structlog.get_logger("exporter")

_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 10.0
# From the signal to the end of the process, whatever hangs: uploads have 8 of these.
_LEAVE_AFTER: Final = 9.5


def run_daemon(
    session: Session,
    *,
    workers: int,
    log_format: LogFormat | None,
    listen: ListenAddress | None = None,
) -> None:
    """Export until a signal; raises what an operator must mend before it can start."""
    settings = session.settings
    configure_logs(log_format or settings.log_format)
    if weak := transport.weakness(database.database_url(session.database_url)):
        log.warning("database connection not protected", cause=weak)
    monitor = _monitor(session, listen or settings.metrics_listen)
    stopping = _Stopping()
    config = DaemonConfig(lanes=Lanes(workers=workers), partitions=settings.partitions)
    engine = database.create_engine(
        session.database_url,
        application_name="auditstore exporter",
        longest_idle=LONGEST_IDLE,
        # Statements appear in errors without their values.
        hide_parameters=True,
        pool_size=config.connections,
        max_overflow=0,
    )
    daemon = _started(engine, session, config, stopping, monitor)
    if daemon is not None:
        reconciling = Beside(session)
        stopping.event.wait()
        log.info("stopping", signal=stopping.signal)
        if monitor is not None:
            monitor.stopping()
        reconciling.stopping()
        if not daemon.stop():
            _leave_now(session)
        reconciling.close()
    if monitor is not None:
        monitor.close()
    engine.dispose()
    stopping.done()


def _monitor(session: Session, address: ListenAddress | None) -> Monitor | None:
    """Listens before the database is asked for anything, so that waiting for it can be seen."""
    if address is None:
        return None
    from exporters.monitor import Monitor  # noqa: PLC0415  # what nobody asks for is not loaded

    watching = database.create_engine(
        session.database_url,
        application_name="auditstore exporter metrics",
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
    )
    monitor = Monitor(address, watching)
    log.info("listening", address=str(monitor.address), paths="/metrics /healthz /readyz")
    return monitor


class _Stopping:
    """Turns SIGTERM and SIGINT into an event, and sees to it that the process does leave."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal = ""
        self._timer = threading.Timer(_LEAVE_AFTER, _leave_now)
        self._timer.daemon = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def done(self) -> None:
        """All is finished; there is nothing to hurry any more."""
        self._timer.cancel()

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.event.is_set():
            return
        # No log entry here: the signal may have interrupted the thread that writes one.
        self.signal = signal.Signals(number).name
        self._timer.start()
        self.event.set()


def _leave_now(session: Session | None = None) -> None:
    """End the process with an upload in hand.

    That is safe: its file is sealed, so the next daemon renders the same bytes and finds
    either no object or the very same one. Waiting for the threads, as Python would at a
    normal exit, could take as long as the store's time limit.
    """
    log.warning(
        "left with uploads in hand",
        hint="Nothing is lost: the next exporter finishes them.",
    )
    if session is not None:
        session.close()
    sys.stderr.flush()
    os._exit(0)


def _started(
    engine: Engine,
    session: Session,
    config: DaemonConfig,
    stopping: _Stopping,
    monitor: Monitor | None,
) -> Daemon | None:
    """A daemon at work, as soon as the database is there; None if told to stop before."""
    wait = _FIRST_WAIT
    while not stopping.event.is_set():
        observer = UNOBSERVED if monitor is None else monitor.observer
        daemon = Daemon(engine, store_opener(session.vault), config, observer=observer)
        try:
            daemon.start()
        except DatabaseUnavailable as error:
            log.warning(
                "database away", cause=error.message, hint=error.hint, again_in=round(wait, 1)
            )
            # Not in step with other daemons that wait for the same server.
            stopping.event.wait(wait * random.uniform(0.75, 1.25))  # noqa: S311  # no secret
            wait = min(wait * 2, _LONGEST_WAIT)
        else:
            if monitor is not None:
                monitor.follow(daemon.pulse)
            return daemon
    return None
