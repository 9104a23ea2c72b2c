"""The real exporter, stopped before each of its steps until a test lets it go on.

A worker runs in a thread of its own, as in the daemon. It waits at *gates*: before a transaction
begins, before the tail is read, before a commit, before a put and after it. What it does in
between is the product's code and nothing else.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event

from auditstore.database import create_engine
from auditstore.errors import DatabaseUnavailable
from auditstore.objects import NewObject, ObjectInfo, ObjectStore, PutResult
from exporters.fence import Fence, SafePosition
from exporters.worker import Worker

IDLE = "idle"
BLOCKED = "blocked"
_RUNNING = "running"
_POLL_S = 0.01


class KilledError(BaseException):
    """The process ends here; nothing may catch it."""


class Gates:
    """Where one thread waits, and another lets it pass."""

    def __init__(self, blocked: Callable[[], bool]) -> None:
        self.at = IDLE
        self.request: NewObject | None = None
        self._blocked = blocked
        self._killed = False
        self._changed = threading.Condition()

    def wait_at(self, name: str, request: NewObject | None = None) -> None:
        """The worker's side: stand still until told to go on, or to die."""
        with self._changed:
            self.at, self.request = name, request
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._killed or self.at != name)
            if self._killed:
                raise KilledError

    def arrive(self) -> None:
        """The worker's side: its turn is over."""
        with self._changed:
            self.at, self.request = IDLE, None
            self._changed.notify_all()

    def go_on(self, *, kill: bool = False) -> None:
        """The test's side: let it pass, or die where it stands."""
        with self._changed:
            self._killed = self._killed or kill
            if self.at != IDLE:
                self.at = _RUNNING
            self._changed.notify_all()

    def settle(self) -> str:
        """The test's side: where it stands still, be it at a lock that somebody else holds."""
        with self._changed:
            while self.at == _RUNNING:
                if not self._changed.wait(_POLL_S) and self._blocked():
                    return BLOCKED
            return self.at


class Exporter:
    """One exporter process: a fence, and a worker that does one turn at a time.

    ``seen`` counts what happened in it.
    """

    def __init__(
        self, url: str, name: str, store: ObjectStore, admin: Connection, seen: Counter[str]
    ) -> None:
        self.turn_ends = False
        self.failures: list[BaseException] = []
        self._name = name
        self._admin = admin
        self._seen = seen
        self._engine = create_engine(url, application_name=name, poolclass=sa.NullPool)
        self.gates = Gates(self._is_blocked)
        _stop_at_gates(self._engine, self.gates)
        self._worker = Worker(self._engine, lambda *_: _GatedStore(store, self.gates, seen))
        # Reading ahead decides nothing, and its thread would come to the gates by chance.
        self._worker._readers.shutdown()
        self._thread: threading.Thread | None = None
        fence_engine = create_engine(url, application_name=f"{name} fence", poolclass=sa.NullPool)
        self._fence_connection = fence_engine.connect().execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self.fence = Fence(self._fence_connection)

    def tick(self, between: Callable[[], None] | None = None) -> None:
        """Advance the fence; ``between`` happens between its two questions."""

        if between is not None:
            # Whichever of the two it asks first.
            event.listen(
                self._fence_connection, "after_cursor_execute", lambda *_: between(), once=True
            )
        self.fence.advance()

    def begin_turn(self, stream_id: int) -> None:
        """Give the worker a turn with the fence as it is now; it stops at its first gate."""
        assert self.gates.at == IDLE
        self.turn_ends = False
        safe = self.fence.safe
        self.gates.at = _RUNNING
        self._thread = threading.Thread(target=self._work, args=(stream_id, safe))
        self._thread.start()
        self.gates.settle()

    def step(self) -> str:
        """Let it pass its gate; where it stands next. Idle or blocked it stays where it is."""
        if self.gates.settle() not in {IDLE, BLOCKED}:
            self.gates.go_on()
        return self.gates.settle()

    def kill(self) -> NewObject | None:
        """End the process where it stands; return the request that it may have sent just then."""
        at, request = self.gates.settle(), self.gates.request
        self._seen[f"killed at {at}"] += 1
        if at == BLOCKED:
            self.cut()
        self.gates.go_on(kill=True)
        if self._thread is not None:
            self._thread.join()
        if not self._fence_connection.closed:
            self._fence_connection.invalidate()
            self._fence_connection.close()
        self._worker.close()
        return request if at == "put" else None

    def cut(self) -> bool:
        """End the worker's sessions, as a network or an administrator does; whether it had one."""
        ended = self._admin.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE application_name = :name"
            ),
            {"name": self._name},
        )
        return bool(ended.scalars().all())

    def _work(self, stream_id: int, safe: SafePosition) -> None:
        try:
            outcome = self._worker.work(
                stream_id, safe, flush=True, may_go_on=lambda: not self.turn_ends
            )
            if outcome.error is not None:
                self.failures.append(outcome.error)
        except KilledError:
            pass
        except DatabaseUnavailable:
            self._seen["turns that ended with the database away"] += 1
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            self.failures.append(error)
        finally:
            self.gates.arrive()

    def _is_blocked(self) -> bool:
        found = self._admin.execute(
            sa.text(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name"
                " AND cardinality(pg_blocking_pids(pid)) > 0"
            ),
            {"name": self._name},
        )
        return bool(found.scalar_one())


def _stop_at_gates(engine: Engine, gates: Gates) -> None:
    def before_statement(*arguments: Any) -> None:
        if "FROM auditstore.events" in arguments[2] and "recorded_at" in arguments[2]:
            gates.wait_at("tail")

    event.listen(engine, "begin", lambda _: gates.wait_at("begin"))
    event.listen(engine, "commit", lambda _: gates.wait_at("commit"))
    event.listen(engine, "before_cursor_execute", before_statement)


class _GatedStore:
    """A store whose puts can be held up on their way there, and on their way back."""

    def __init__(self, store: ObjectStore, gates: Gates, seen: Counter[str]) -> None:
        self._store = store
        self._gates = gates
        self._seen = seen

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Stop, put, stop again."""
        self._gates.wait_at("put", new)
        result = self._store.put_if_absent(new)
        self._seen["objects created" if result.created else "objects found there already"] += 1
        self._gates.wait_at("stored")
        return result

    def head(self, key: str) -> ObjectInfo | None:
        """Of the store behind."""
        return self._store.head(key)

    def read(self, key: str) -> Iterator[bytes] | None:
        """Of the store behind."""
        return self._store.read(key)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Of the store behind."""
        return self._store.list(prefix, start_after=start_after)

    def close(self) -> None:
        """The store behind outlives its users."""
