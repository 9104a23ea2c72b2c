"""What the steps of a worker do to the world in common."""

from __future__ import annotations

from collections.abc import Iterator

from .server import event_name
from .settings import Settings
from .state import NOBODY, Key, Rows, State, Step, Worker


def halt(state: State, number: int, why: str) -> Iterator[Step]:
    """A worker stops the stream for good: its turn is over."""
    halted = turn_over(released(state, number), number)._replace(halted=why)
    yield f"HALTS the stream: {why}", halted


def turn_over(state: State, number: int) -> State:
    """A worker has nothing in hand any more."""
    worker = state.workers[number]
    over = worker._replace(at="idle", safe=(), file=(), seen=(), content=())
    return with_worker(state, number, over)


def released(state: State, number: int) -> State:
    """Without this worker's lock on the row, if it is the one who has it."""
    return state._replace(row_lock=NOBODY) if state.row_lock == number else state


def with_worker(state: State, number: int, worker: Worker) -> State:
    """With this worker as it is now."""
    workers = list(state.workers)
    workers[number] = worker
    return state._replace(workers=tuple(workers))


def events(rows: Rows) -> str:
    """Events and their positions, in words."""
    return " ".join(f"{event_name(event)}@{position}" for position, event in rows)


def shown(key: Key) -> str:
    """A file in words."""
    return f"file {key[0]} ({key[1]}-{key[2]})"


def trusts_lease(settings: Settings) -> bool:
    """Whether a worker leaves checks out, since it holds the lease."""
    return not settings.guards.lease_not_trusted
