"""Single events from many threads at the price of few commits: the group-committing appender."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Connection, Engine

from auditstore.errors import (
    AppenderBusy,
    AppenderClosed,
    AuditStoreError,
    ConfigurationError,
    DatabaseUnavailable,
)
from auditstore.events import DEFAULT_MAX_EVENT_BYTES
from auditstore.group_commit import Offer, begin_group, commit_group
from auditstore.repository import AppendResult, EventRepository, check_connection
from auditstore.sql.failures import translated
from auditstore.taking import Snapshot, Taken, offered

log = logging.getLogger("auditstore.appender")

# At the interpreter's end what is queued is still flushed, for so long.
_EXIT_S: Final = 10.0
# After a group of several calls: the pause between two arrivals that ends the gathering, and
# the longest that it may last altogether.
_PAUSE_S: Final = 0.0001
_RETURNING_S: Final = 0.001
_NOTHING: Final = AppendResult(appended=0, existing=0)


@dataclass(frozen=True, slots=True)
class AppenderLimits:
    """How much is gathered and how much may wait.

    A group is committed when it holds ``group_events`` or ``group_bytes``, or when its oldest
    call has waited ``linger_us`` microseconds. With 0, what comes in during a commit is the next
    group, and a single caller never waits; only after a group of several are those who come back
    awaited, as long as they do so every 0.1 ms, for 1 ms at most.

    ``queued_events`` and ``queued_bytes`` bound what was taken and is not committed yet; beyond
    them a call waits up to ``queue_timeout`` seconds for room.
    """

    group_events: int = 1000
    group_bytes: int = 8 * 1024 * 1024
    linger_us: int = 0
    queued_events: int = 10_000
    queued_bytes: int = 64 * 1024 * 1024
    queue_timeout: float = 30.0

    def __post_init__(self) -> None:
        if min(self.group_events, self.group_bytes, self.queued_events, self.queued_bytes) < 1:
            raise ConfigurationError(
                "a limit of the appender is below 1", hint="Each needs room for an event."
            )
        if self.linger_us < 0 or self.queue_timeout < 0:
            raise ConfigurationError("a time is negative", hint="Give 0 for no waiting.")


class _Call:
    """One call until it is answered: a thread of its own waits behind ``gate``, or a future.

    A bare lock is what a waiting thread costs least with; futures are for those who ask.
    """

    __slots__ = ("came_at", "future", "gate", "offer", "outcome")

    def __init__(self, offer: Offer, future: Future[AppendResult] | None) -> None:
        self.offer = offer
        self.future = future
        self.came_at = time.monotonic()
        self.outcome: AppendResult | Exception | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def is_wanted(self) -> bool:
        """Whether its caller still wants it; from now on it cannot be cancelled."""
        return self.future is None or self.future.set_running_or_notify_cancel()

    def answer(self, outcome: AppendResult | Exception) -> None:
        """What became of it, once."""
        if self.future is None:
            self.outcome = outcome
            self.gate.release()
        elif isinstance(outcome, AppendResult):
            self.future.set_result(outcome)
        else:
            self.future.set_exception(outcome)

    def wait(self) -> AppendResult:
        """The answer, in the thread that made the call."""
        self.gate.acquire()
        if isinstance(self.outcome, AppendResult):
            return self.outcome
        assert self.outcome is not None  # noqa: S101  # the gate opens with the answer
        raise self.outcome


class GroupAppender:
    """Commits the events of many threads together; each call returns when its own are durable.

    It has ``connections`` connections of ``engine`` and a thread for each, and is shared by
    all threads of the process. With one connection, events are stored in the order of the
    calls. It does not join a caller's transaction: :class:`EventRepository` does that.

    Use it as a context manager, or :meth:`close` it. An ordinary end of the interpreter flushes
    for up to 10 seconds; after a kill, calls that had not returned may be stored or not, and
    can be repeated.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        limits: AppenderLimits | None = None,
        connections: int = 1,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    ) -> None:
        if connections < 1:
            raise ConfigurationError(f"{connections} connections", hint="It needs at least one.")
        self._engine = engine
        self._limits = limits or AppenderLimits()
        self._max_event_bytes = max_event_bytes
        self._repository = EventRepository(max_event_bytes=max_event_bytes)
        self._process = os.getpid()
        lock = threading.Lock()
        # Both under one lock, which guards everything below.
        self._filled, self._room = threading.Condition(lock), threading.Condition(lock)
        self._queue: deque[_Call] = deque()
        self._queued_events = self._queued_bytes = 0
        # Of these, what waits and is in no group yet.
        self._waiting_events = self._waiting_bytes = 0
        self._last_calls = 0
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, name=f"auditstore-appender-{n}", daemon=True)
            for n in range(connections)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._close_at_exit)

    def append(
        self,
        events: Snapshot | Iterable[Snapshot],
        *,
        flow_id: str | None = None,
        lead_id: str | None = None,
        timeout: float | None = None,
    ) -> AppendResult:
        """Append one event or many, all or none; returns when they are durably committed.

        Events and their refusals are those of :meth:`EventRepository.append`. ``timeout``, in
        seconds, replaces the limits' ``queue_timeout``.

        Raises :class:`EventRefused` and :class:`EventConflict` for this call's own events only,
        :class:`AppenderBusy` when there was no room, :class:`AppenderClosed` after
        :meth:`close`: then nothing was appended. Raises :class:`DatabaseUnavailable` when the
        database is away; as its subclass :class:`OutcomeUnknown` when these events may be
        stored nevertheless. Appending them again is right in either case.
        """
        call = _Call(self._offer(events, flow_id, lead_id), None)
        if not call.offer.events:
            return _NOTHING
        self._enqueue(call, timeout)
        return call.wait()

    def submit(
        self,
        events: Snapshot | Iterable[Snapshot],
        *,
        flow_id: str | None = None,
        lead_id: str | None = None,
        timeout: float | None = None,
    ) -> Future[AppendResult]:
        """As :meth:`append`, with a future of the result; from asyncio ``wrap_future`` it.

        What is wrong with the call itself, a full queue included, is raised at once. With a
        ``timeout`` of 0 it never blocks. A future that could be cancelled was not appended.
        """
        call = _Call(self._offer(events, flow_id, lead_id), Future())
        if call.offer.events:
            self._enqueue(call, timeout)
        else:
            call.answer(_NOTHING)
        assert call.future is not None  # noqa: S101  # given above
        return call.future

    def close(self, timeout: float | None = None) -> None:
        """Take no more, commit what is queued, give the connections back.

        After ``timeout`` seconds, what is in no group yet fails with :class:`AppenderClosed`
        and was not appended; a commit under way is left to finish by itself.
        """
        if os.getpid() != self._process:
            return
        with self._filled:
            self._closing = True
            self._filled.notify_all()
            self._room.notify_all()
        atexit.unregister(self._close_at_exit)
        give_up_at = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if give_up_at is None else max(0.0, give_up_at - time.monotonic()))
        self._fail_waiting(_closed())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _close_at_exit(self) -> None:
        self.close(_EXIT_S)

    # --- the queue ----------------------------------------------------------------

    def _offer(
        self, events: Snapshot | Iterable[Snapshot], flow_id: str | None, lead_id: str | None
    ) -> Offer:
        if os.getpid() != self._process:
            raise ConfigurationError(
                "this appender was made before the process forked",
                hint="Make one in each process, after the fork.",
            )
        taken = Taken(
            offered(events), flow_id=flow_id, lead_id=lead_id, max_bytes=self._max_event_bytes
        )
        own = taken.all()
        return Offer(own, taken.given, sum(len(event.payload) for event in own))

    def _enqueue(self, call: _Call, timeout: float | None) -> None:
        count, size = len(call.offer.events), call.offer.size_bytes
        timeout = self._limits.queue_timeout if timeout is None else timeout
        with self._room:
            if not self._has_room(count, size) and not self._room.wait_for(
                lambda: self._closing or self._has_room(count, size), timeout
            ):
                raise AppenderBusy(
                    f"{self._queued_events} events ({self._queued_bytes} bytes) wait to be"
                    f" committed, and there was no room for {count} more within {timeout:g} s",
                    hint="Nothing of this call was appended. The database is slower than what"
                    " comes in: append later, or raise the limits.",
                )
            if self._closing:
                raise _closed()
            self._queued_events += count
            self._queued_bytes += size
            self._waiting_events += count
            self._waiting_bytes += size
            self._queue.append(call)
            self._filled.notify()

    def _has_room(self, count: int, size: int) -> bool:
        # Alone, a call larger than the limits goes through.
        return not self._queued_events or (
            self._queued_events + count <= self._limits.queued_events
            and self._queued_bytes + size <= self._limits.queued_bytes
        )

    def _next_group(self) -> list[_Call]:
        """What is committed next, in the order it came; nothing when all is over."""
        with self._filled:
            self._filled.wait_for(lambda: self._queue or self._closing)
            while self._limits.linger_us and self._queue and not self._closing:
                due = self._queue[0].came_at + self._limits.linger_us / 1e6
                left = due - time.monotonic()
                if self._group_is_full() or left <= 0:
                    break
                self._filled.wait(left)
            self._await_returning()
            group = self._first_calls()
            self._last_calls = len(group)
            return group

    def _await_returning(self) -> None:
        """Let those whom the last group answered come back, as long as they keep coming.

        Otherwise two halves take turns: one comes back while the other is being committed.
        Measured with 8 and 64 threads: groups twice as large, and more events a second.
        """
        give_up_at = time.monotonic() + _RETURNING_S
        seen = 0
        while (
            self._last_calls > 1
            and seen < len(self._queue) < 2 * self._last_calls
            and not self._closing
            and not self._group_is_full()
            and time.monotonic() < give_up_at
        ):
            seen = len(self._queue)
            self._filled.wait(_PAUSE_S)

    def _group_is_full(self) -> bool:
        return (
            self._waiting_events >= self._limits.group_events
            or self._waiting_bytes >= self._limits.group_bytes
        )

    def _first_calls(self) -> list[_Call]:
        group: list[_Call] = []
        count = size = 0
        while self._queue:
            offer = self._queue[0].offer
            count += len(offer.events)
            size += offer.size_bytes
            if group and (count > self._limits.group_events or size > self._limits.group_bytes):
                break
            group.append(self._queue.popleft())
            self._waiting_events -= len(offer.events)
            self._waiting_bytes -= offer.size_bytes
        return group

    def _uncancelled(self, calls: Sequence[_Call]) -> list[_Call]:
        """Those whose callers still want them; from now on they cannot cancel."""
        wanted = [call for call in calls if call.is_wanted()]
        if len(wanted) < len(calls):
            self._make_room([call for call in calls if call not in wanted])
        return wanted

    def _fail_waiting(self, error: Exception) -> None:
        """Fail everything that is in no group yet."""
        with self._filled:
            left = list(self._queue)
            self._queue.clear()
            self._waiting_events = self._waiting_bytes = 0
        self._fail(self._uncancelled(left), error)

    def _make_room(self, calls: Sequence[_Call]) -> None:
        with self._room:
            self._queued_events -= sum(len(call.offer.events) for call in calls)
            self._queued_bytes -= sum(call.offer.size_bytes for call in calls)
            self._room.notify_all()

    # --- committing ---------------------------------------------------------------

    def _run(self) -> None:
        connection: Connection | None = None
        try:
            while taken := self._next_group():
                group = self._uncancelled(taken)
                if group:
                    connection = self._serve(connection, group)
        finally:
            if connection is not None:
                connection.close()

    def _serve(self, connection: Connection | None, group: list[_Call]) -> Connection | None:
        """Commit a group and answer its callers; the connection for the next, if it is good."""
        try:
            connection = self._begin(connection)
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody may wait for ever
            # Who waits behind would only wait for the same answer.
            self._fail(group, error)
            self._fail_waiting(error)
            return None
        try:
            outcomes = commit_group(connection, self._repository, [call.offer for call in group])
        except Exception as error:  # noqa: BLE001  # as above
            _leave(connection)
            self._fail(group, error)
            return None
        self._make_room(group)
        for call, outcome in zip(group, outcomes, strict=True):
            call.answer(outcome)
        if any(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes):
            # A session may go by settings that were mended since it began.
            _leave(connection)
            return None
        return connection

    def _begin(self, connection: Connection | None) -> Connection:
        """Begin the group's transaction, on a new connection where the kept one is over."""
        if connection is not None:
            try:
                begin_group(connection)
            except DatabaseUnavailable:
                # Closed while it was idle, most likely; nothing of the group was sent yet.
                _leave(connection)
            else:
                return connection
        with translated():
            connection = self._engine.connect()
        try:
            check_connection(connection)
            begin_group(connection)
        except BaseException:
            _leave(connection)
            raise
        return connection

    def _fail(self, calls: Sequence[_Call], error: Exception) -> None:
        self._make_room(calls)
        for call in calls:
            call.answer(_own(error))


def _own(error: Exception) -> Exception:
    """An error for one caller alone: each thread hangs its own traceback on it."""
    if not isinstance(error, AuditStoreError):
        return error
    own = type(error)(error.message, hint=error.hint)
    own.__cause__ = error.__cause__ or error
    return own


def _closed() -> AppenderClosed:
    return AppenderClosed(
        "the appender is closed", hint="Nothing of this call was appended. Make another appender."
    )


def _leave(connection: Connection) -> None:
    """Let the pool make a new connection in its place."""
    connection.invalidate()
    connection.close()
