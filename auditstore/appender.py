"""Single events from many threads at the price of few commits: the group-committing appender."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Self

from sqlalchemy import Connection, Engine

from auditstore.call_queue import AppenderLimits, Call, CallQueue, closed
from auditstore.errors import AuditStoreError, ConfigurationError, DatabaseUnavailable
from auditstore.events import DEFAULT_MAX_EVENT_BYTES
from auditstore.group_commit import Offer, begin_group, commit_group
from auditstore.repository import AppendResult, EventRepository, check_connection
from auditstore.sql.failures import translated
from auditstore.taking import Snapshot, Taken, offered

# At the interpreter's end what is queued is still flushed, for so long.
_EXIT_S: Final = 10.0
_NOTHING: Final = AppendResult(appended=0, existing=0)


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
        self._max_event_bytes = max_event_bytes
        self._repository = EventRepository(max_event_bytes=max_event_bytes)
        self._process = os.getpid()
        self._queue = CallQueue(limits or AppenderLimits())
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
        call = Call(self._offer(events, flow_id, lead_id), None)
        if not call.offer.events:
            return _NOTHING
        self._queue.put(call, timeout)
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
        call = Call(self._offer(events, flow_id, lead_id), Future())
        if call.offer.events:
            self._queue.put(call, timeout)
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
        self._queue.close()
        atexit.unregister(self._close_at_exit)
        give_up_at = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if give_up_at is None else max(0.0, give_up_at - time.monotonic()))
        self._fail_waiting(closed())

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

    # --- what is offered ------------------------------------------------------------

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

    def _uncancelled(self, calls: Sequence[Call]) -> list[Call]:
        """Those whose callers still want them; from now on they cannot cancel."""
        wanted = [call for call in calls if call.is_wanted()]
        if len(wanted) < len(calls):
            self._queue.make_room([call for call in calls if call not in wanted])
        return wanted

    def _fail_waiting(self, error: Exception) -> None:
        """Fail everything that is in no group yet."""
        self._fail(self._uncancelled(self._queue.take_all()), error)

    # --- committing ---------------------------------------------------------------

    def _run(self) -> None:
        connection: Connection | None = None
        try:
            while taken := self._queue.next_group():
                group = self._uncancelled(taken)
                if group:
                    connection = self._serve(connection, group)
        finally:
            if connection is not None:
                connection.close()

    def _serve(self, connection: Connection | None, group: list[Call]) -> Connection | None:
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
        self._queue.make_room(group)
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

    def _fail(self, calls: Sequence[Call], error: Exception) -> None:
        self._queue.make_room(calls)
        for call in calls:
            call.answer(_own(error))


def _own(error: Exception) -> Exception:
    """An error for one caller alone: each thread hangs its own traceback on it."""
    if not isinstance(error, AuditStoreError):
        return error
    own = type(error)(error.message, hint=error.hint)
    own.__cause__ = error.__cause__ or error
    return own


def _leave(connection: Connection) -> None:
    """Let the pool make a new connection in its place."""
    connection.invalidate()
    connection.close()
