"""The whole protocol put together: where it begins, what can happen, and what is explored."""

from __future__ import annotations

from collections.abc import Iterator

from .explorer import Exploration, explore
from .promises import FOREIGN, broken, delivered
from .server import initial_transactions, open_writers, server_steps, writer_steps
from .settings import Settings
from .state import NOBODY, Mark, State, Step, Stored, Tables, Worker
from .worker import wire_steps, worker_steps


def check(settings: Settings) -> Exploration[State]:
    """Explore every state of a world of this size, and check every promise in each."""
    return explore(
        _initial(settings),
        lambda state: _steps(state, settings),
        broken=broken,
        done=delivered,
        alike=_workers_in_order,
    )


def _initial(settings: Settings) -> State:
    begin = State(
        initial_transactions(settings),
        (Worker(),) * settings.workers,
        tables=Tables(high=settings.rolled_back),
    )
    if settings.foreign:
        begin = begin._replace(objects=(Stored((1, 1, 1), FOREIGN),))
    return begin


def _steps(state: State, settings: Settings) -> Iterator[Step]:
    for label, after in writer_steps(state, settings):
        yield label, _known(after, settings)
    for number in range(settings.workers):
        yield from worker_steps(state, settings, number)
    yield from wire_steps(state, settings)
    yield from server_steps(state, settings)


def _known(state: State, settings: Settings) -> State:
    """After writers have come to an end: without them in the marks of fences, whose next look
    would take them out anyway. This saves states.
    """
    open_now = open_writers(state, settings)
    workers = tuple(
        worker._replace(fence=worker.fence._replace(marks=_marks(worker.fence.marks, open_now)))
        if any(mark.writers for mark in worker.fence.marks)
        else worker
        for worker in state.workers
    )
    return state._replace(workers=workers)


def _marks(marks: tuple[Mark, ...], open_now: tuple[int, ...]) -> tuple[Mark, ...]:
    return tuple(
        Mark(mark.position, tuple(each for each in mark.writers if each in open_now))
        for mark in marks
    )


def _workers_in_order(state: State) -> State:
    """Two workers that change places are the same world."""
    if len(state.workers) < 2 or state.workers[0] <= state.workers[1]:
        return state
    return state._replace(
        workers=state.workers[::-1], row_lock=_other(state.row_lock), lease=_other(state.lease)
    )


def _other(number: int) -> int:
    return number if number == NOBODY else 1 - number
