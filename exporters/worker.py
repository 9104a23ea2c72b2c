"""One stream's work: seal, upload, record, until nothing is due; and what its failures become.

The daemon decides when to call this and for which stream; a crash at any line is harmless.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection, Engine

from auditstore import streams
from auditstore.errors import (
    AuditStoreError,
    ConfigurationError,
    DatabaseUnavailable,
    HistoryLost,
    LedgerMismatch,
    ObjectConflict,
    StoreRefused,
)
from auditstore.ledger import Delivery, SealedFile
from auditstore.objects import ObjectStore
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import server
from auditstore.sql import streams as streams_sql
from auditstore.sql.failures import translated
from auditstore.streams import Stream
from exporters import history
from exporters.delivery import put, record, render
from exporters.fence import SafePosition
from exporters.observer import UNOBSERVED, Observer
from exporters.read_ahead import ReadAhead
from exporters.sealing import NotDue, seal

log = structlog.get_logger("exporter")

#: Opens the store of a stream, with the credential that the connection's database keeps.
StoreOpener = Callable[[Connection, Stream], ObjectStore]

#: Sealing and recording lock the stream. An exporter that is paused, or whose machine is gone, in
#: the midst of one keeps the others from that stream for so long (seconds), and no longer.
LONGEST_IDLE: Final = 15.0
#: How many threads read ahead, each with a connection while it reads.
READERS: Final = 2
_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 60.0
# How often a blocked stream asks again by itself; after a change it does so at once.
_BLOCKED_RETRY: Final = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a piece of work ended.

    ``due_in`` seconds when events wait for their delay, 0 when it was interrupted; ``retry_in``
    seconds when it failed; ``halted`` when only an operator can let it go on. ``delivered``
    counts files, ``events`` the events in them.
    """

    delivered: int = 0
    events: int = 0
    due_in: float | None = None
    retry_in: float | None = None
    halted: bool = False
    error: AuditStoreError | None = None


class Worker:
    """Works on streams, one call a stream at a time; shared by the daemon's threads."""

    def __init__(
        self, engine: Engine, open_store: StoreOpener, observer: Observer = UNOBSERVED
    ) -> None:
        self._engine = engine
        self._open_store = open_store
        self._observer = observer
        self._stores: dict[int, tuple[object, ObjectStore]] = {}
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")

    def work(
        self,
        stream_id: int,
        fence: SafePosition,
        *,
        may_go_on: Callable[[], bool] = lambda: True,
        flush: bool = False,
    ) -> Outcome:
        """Deliver what is sealed, then seal and deliver what is due up to ``fence``.

        ``may_go_on`` is asked before each file. A failure becomes the stream's state; only
        DatabaseUnavailable is raised.
        """
        delivered = events = 0
        file: SealedFile | None = None
        ahead = ReadAhead(self._engine, self._readers, fence)
        try:
            while may_go_on():
                file = None
                step = self._next(stream_id, fence, flush=flush)
                if not isinstance(step, SealedFile):
                    due_in = step.due_in if isinstance(step, NotDue) else None
                    return Outcome(delivered, events, due_in=due_in)
                file = step
                self._deliver(step, ahead)
                delivered += 1
                events += step.event_count
        except DatabaseUnavailable:
            raise
        except AuditStoreError as error:
            return self._failed(stream_id, error, delivered, events, file)
        except Exception as error:
            # A defect of ours, or a library's: shown to the operator as the stream's state.
            log.exception("unexpected failure", stream=stream_id)
            return self._failed(stream_id, _unexpected(error), delivered, events, file)
        finally:
            ahead.drop()
        return Outcome(delivered, events, due_in=0.0)

    def forget_others(self, stream_ids: Collection[int]) -> None:
        """Release the stores' connections of all but these streams; none of those may work."""
        with self._lock:
            others = [self._stores.pop(each) for each in self._stores.keys() - stream_ids]
        for _, store in others:
            store.close()

    def close(self) -> None:
        """Release the stores' connections, and end the threads."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self.forget_others(())

    def _next(
        self, stream_id: int, fence: SafePosition, *, flush: bool
    ) -> SealedFile | NotDue | None:
        """The file to deliver next: the oldest sealed one, or a new one."""
        with translated(), self._engine.begin() as connection:
            stream = streams.get(connection, stream_id)
            if not stream.enabled or stream.status.state == "halted":
                return None
            waiting = ledger_sql.next_undelivered(connection, stream_id)
        if waiting is None:
            self._check_history(stream)
            with translated(), self._engine.begin() as connection:
                # Another worker may have sealed meanwhile. Under the stream's lock there is at
                # most one file in flight, so no worker can come to record a later one first.
                stream = streams.get(connection, stream_id, lock=True)
                waiting = ledger_sql.next_undelivered(connection, stream_id)
                if waiting is None:
                    _insist_on_run(connection, fence)
                    step = seal(connection, stream_id, fence=fence.position, flush=flush)
                    if step is None or isinstance(step, NotDue):
                        _clear_trouble(connection, stream)
                        return step
                    new = step
            if waiting is None:
                self._observer.sealed(stream, new)
                return new
        return waiting

    def _check_history(self, stream: Stream) -> None:
        with translated(), self._engine.connect() as connection:
            if not history.is_unchecked(connection, stream):
                return
            store = self._store(connection, stream)
        with translated():
            history.check(self._engine, stream, store)

    def _deliver(self, sealed: SealedFile, ahead: ReadAhead) -> None:
        rendering = ahead.take(sealed)
        with translated(), self._engine.connect() as connection:
            stream = streams.get(connection, sealed.stream_id)
            store = self._store(connection, stream)
            if rendering is None:
                rendering = render(connection, stream, sealed)
        # The database is let go of while the store takes its time.
        ahead.begin(stream, sealed)
        began = time.monotonic()
        delivery = put(rendering, sealed, store)
        self._record(stream, sealed, delivery, upload_seconds=time.monotonic() - began)

    def _record(
        self, stream: Stream, sealed: SealedFile, delivery: Delivery, *, upload_seconds: float
    ) -> None:
        with translated(), self._engine.begin() as connection:
            recorded = record(connection, sealed, delivery)
            if stream.status.state != "streaming":
                streams_sql.set_state(connection, stream.stream_id, state="streaming")
        if recorded:
            log.info(
                "delivered",
                stream=sealed.stream_id,
                sequence=sealed.sequence,
                events=sealed.event_count,
                bytes=delivery.object_bytes,
                key=sealed.object_key,
            )
            self._observer.delivered(stream, sealed, delivery, upload_seconds=upload_seconds)

    def _store(self, connection: Connection, stream: Stream) -> ObjectStore:
        """The stream's store, opened anew after every change of its settings or credential."""
        with self._lock:
            known = self._stores.get(stream.stream_id)
        if known is not None and known[0] == stream.version:
            return known[1]
        store = self._open_store(connection, stream)
        with self._lock:
            self._stores[stream.stream_id] = (stream.version, store)
        if known is not None:
            known[1].close()
        return store

    def _failed(
        self,
        stream_id: int,
        error: AuditStoreError,
        delivered: int,
        events: int,
        file: SealedFile | None,
    ) -> Outcome:
        state = _state_after(error)
        with translated(), self._engine.begin() as connection:
            stream = streams.get(connection, stream_id)
            attempts = 1 if delivered else stream.status.attempts + 1
            retry_in = _retry_in(state, attempts)
            streams_sql.set_state(
                connection,
                stream_id,
                state=state,
                code=error.code,
                cause=error.message,
                hint=error.hint,
                attempts=attempts,
                retry_in=retry_in,
            )
        log.log(
            _LEVELS[state], state, stream=stream_id, sequence=file and file.sequence,
            key=file and file.object_key, code=error.code, cause=error.message, hint=error.hint,
            attempts=attempts, retry_in=retry_in and round(retry_in, 1),
        )  # fmt: skip
        self._observer.failed(stream, state)
        return Outcome(delivered, events, retry_in=retry_in, halted=state == "halted", error=error)


def _clear_trouble(connection: Connection, stream: Stream) -> None:
    """Nothing is left to deliver and the history was checked: what was wrong is mended."""
    if stream.status.state in {"retrying", "blocked"}:
        streams_sql.set_state(connection, stream.stream_id, state="streaming")


def _insist_on_run(connection: Connection, fence: SafePosition) -> None:
    """Uploads take time; a fence from before a crash must not seal what came after it."""
    if server.run(connection) != fence.run:
        raise DatabaseUnavailable(
            "the database server was restarted or replaced meanwhile",
            hint="This passes by itself: what waits is exported at the next try.",
        )


_LEVELS: Final = {"retrying": 30, "blocked": 40, "halted": 50}


def _state_after(error: AuditStoreError) -> str:
    if isinstance(error, ObjectConflict | LedgerMismatch | HistoryLost):
        return "halted"
    if isinstance(error, StoreRefused | ConfigurationError):
        return "blocked"
    return "retrying"


def _unexpected(error: Exception) -> AuditStoreError:
    if isinstance(error, MemoryError):
        return AuditStoreError(
            "the exporter's process has no memory left",
            hint="Give it more, or make smaller files (`--max-bytes`) with fewer `--workers`. It"
            " is tried again by itself.",
        )
    return AuditStoreError(
        f"unexpected failure: {type(error).__name__}",
        hint="The daemon's log has the traceback; report it. It is tried again by itself.",
    )


def _retry_in(state: str, attempts: int) -> float | None:
    """Seconds until the next try: exponential with full jitter while it may pass by itself."""
    if state == "halted":
        return None
    if state == "blocked":
        return _BLOCKED_RETRY
    bound = min(_LONGEST_RETRY, _FIRST_RETRY * 2 ** min(attempts, 10))
    return random.uniform(_FIRST_RETRY, bound)  # noqa: S311  # jitter, not a secret
