"""A worker's program, step by step, as ``exporters.worker`` has it.

    off, idle, look, lock, check, read, commit, render, put, sent, record, recording, look ...

Between any two steps anybody else may act, the worker may be paused for as long as it likes,
and it may die.
"""

from __future__ import annotations

from collections.abc import Iterator

from .edits import released, shown, with_worker
from .fence import ask_first, ask_second
from .recording import record, recording
from .sealing import check, commit, lock, look, read
from .settings import Settings
from .state import NOBODY, State, Step, Worker
from .uploading import on_the_wire, put, render, sent, stored

_NAMES = "AB"
# Steps that work on what the row's lock protects.
_UNDER_LOCK = {"check", "read", "recording"}


def worker_steps(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """What this worker may do next, its death included."""
    worker = state.workers[number]
    name = _NAMES[number]
    for label, after in _program(state, settings, number):
        yield f"{name} {label}", after
    if worker.at == "idle" or (settings.ticks_in_turns and worker.at != "off"):
        yield from _fence_steps(state, settings, number, worker, name)
    if worker != _GONE:
        crashed = with_worker(released(state, number), number, _GONE)
        yield f"{name} CRASHES", crashed
        if worker.at == "sent":
            on_the_way = on_the_wire(crashed, settings, worker)
            yield f"{name} CRASHES, its request on the way", on_the_way


def wire_steps(state: State, settings: Settings) -> Iterator[Step]:
    """A request whose sender is gone arrives after all."""
    for request in state.wire:
        left = tuple(each for each in state.wire if each != request)
        after, _ = stored(state._replace(wire=left), settings, *request)
        yield f"a late request for {shown(request[0])} arrives at the store", after


_GONE = Worker()


def _fence_steps(
    state: State, settings: Settings, number: int, worker: Worker, name: str
) -> Iterator[Step]:
    questions = ["position", "writers"]
    if not settings.guards.position_before_writers:
        questions.reverse()
    if not worker.fence.asked:
        asked = worker._replace(fence=ask_first(state, settings, worker.fence))
        yield f"{name}'s fence asks for the {questions[0]}", with_worker(state, number, asked)
    else:
        told = worker._replace(fence=ask_second(state, settings, worker.fence))
        label = f"{name}'s fence asks for the {questions[1]}; safe is {told.fence.position}"
        yield label, with_worker(state, number, told)


def _program(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """The next step; together with the one after it where nobody could notice or disturb what
    lies between the two, be it by killing the worker.
    """
    for label, after in _PROGRAM[state.workers[number].at](state, settings, number):
        if not _goes_on(after, settings, number):
            yield label, after
            continue
        for more, end in _program(after, settings, number):
            yield f"{label}, {more}", end


def _goes_on(state: State, settings: Settings, number: int) -> bool:
    """Whether nothing that others do, or do not see, can tell this step's end from the next's."""
    guards, at = settings.guards, state.workers[number].at
    if at in _UNDER_LOCK:
        return state.row_lock == number
    if at == "lock":
        # What it has just seen it looks for again under the lock, so it may as well look late;
        # unless its fence goes on meanwhile, and it would know more.
        locks = guards.seal_row_lock and guards.lease_not_trusted and guards.one_in_flight
        return locks and not settings.ticks_in_turns and state.row_lock == NOBODY
    # A sealed range is frozen, so it may as well be rendered early, and sent or not at its end.
    return at in {"render", "put"}


def _off(state: State, settings: Settings, number: int) -> Iterator[Step]:
    worker = state.workers[number]
    # It may have run out at any moment, whatever its owner is doing, and so keeps nobody away:
    # whose it is need not be known, unless it never runs out.
    if settings.guards.lease_expires:
        yield "takes the lease", with_worker(state, number, worker._replace(at="idle"))
    elif state.lease == NOBODY:
        leased = state._replace(lease=number)
        yield "takes the lease", with_worker(leased, number, worker._replace(at="idle"))


def _idle(state: State, settings: Settings, number: int) -> Iterator[Step]:
    worker = state.workers[number]
    if worker.fence.run >= 0 and not state.halted:
        safe = (worker.fence.position, worker.fence.run)
        turn = with_worker(state, number, worker._replace(at="look", safe=safe))
        for label, after in look(turn, settings, number):
            yield f"begins a turn up to {safe[0]}, {label}", after


_PROGRAM = {
    "off": _off, "idle": _idle, "look": look, "lock": lock, "check": check, "read": read,
    "commit": commit, "render": render, "put": put, "sent": sent, "record": record,
    "recording": recording,
}  # fmt: skip
