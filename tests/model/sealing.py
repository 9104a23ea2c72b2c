"""Look for a sealed file, or seal the next one: ``Worker._next`` and ``exporters.sealing``."""

from __future__ import annotations

from collections.abc import Iterator

from .edits import events, released, shown, trusts_lease, turn_over, with_worker
from .server import flushed
from .settings import Settings
from .state import NOBODY, File, State, Step


def look(state: State, _: Settings, number: int) -> Iterator[Step]:
    """The sealed file that waits, without a lock; or else the lock is wanted."""
    worker = state.workers[number]
    if state.halted:
        yield "finds the stream halted", turn_over(state, number)
        return
    waiting = _next_undelivered(state)
    if waiting:
        label = f"finds {shown(waiting.key)} undelivered"
        yield label, with_worker(state, number, worker._replace(at="render", file=waiting))
    else:
        yield "finds nothing undelivered", with_worker(state, number, worker._replace(at="lock"))


def lock(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """One at a time seals."""
    worker = state.workers[number]
    if not settings.guards.seal_row_lock or trusts_lease(settings):
        yield (
            "begins to seal, without a lock",
            with_worker(state, number, worker._replace(at="check")),
        )
    elif state.row_lock == NOBODY:
        locked = state._replace(row_lock=number)
        yield (
            "locks the stream's row to seal",
            with_worker(locked, number, worker._replace(at="check")),
        )


def check(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """Under the lock: does a file wait, and is the fence of this run?"""
    worker = state.workers[number]
    looks = settings.guards.one_in_flight and not trusts_lease(settings)
    waiting = _next_undelivered(state) if looks else ()
    if waiting:
        unlocked = released(state, number)
        label = f"finds under the lock that {shown(waiting.key)} is undelivered"
        yield label, with_worker(unlocked, number, worker._replace(at="render", file=waiting))
        return
    assert worker.safe
    if settings.guards.run_checked and worker.safe[1] != state.run:
        yield "refuses a fence of another run", turn_over(released(state, number), number)
    else:
        yield "may seal", with_worker(state, number, worker._replace(at="read"))


def read(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """Cut the next range off the tail."""
    worker = state.workers[number]
    assert worker.safe
    sequence, after = state.tables.sealed_sequence, state.tables.sealed_position
    upto = worker.safe[0] if settings.guards.upto_fence else state.tables.high
    visible = state.tables.rows if settings.guards.fresh_snapshot else worker.fence.view
    found = tuple(row for row in visible if after < row[0] <= upto)
    if not found:
        yield "finds nothing to seal", turn_over(released(state, number), number)
    # Limits and delays cut a file anywhere: each cut is tried.
    for count in range(1, len(found) + 1):
        file = File(sequence + 1, found[:count])
        ready = worker._replace(at="commit", file=file)
        if not settings.guards.seal_before_upload:
            ready = worker._replace(at="put", file=file, content=file.rows)
        label = f"reads the tail after {after} up to {upto}: {events(file.rows)}"
        yield label, with_worker(state, number, ready)


def commit(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """The sealed row, and the sealed mark."""
    worker = state.workers[number]
    file, tables = worker.file, state.tables
    assert file
    assert worker.safe
    if settings.guards.sequence_unique and any(
        each.sequence == file.sequence for each in tables.files
    ):
        label = f"is refused a second file {file.sequence} by the primary key"
        yield label, turn_over(released(state, number), number)
        return
    mark = file.last if settings.guards.mark_at_last_event else worker.safe[0]
    tables = tables._replace(
        files=(*tables.files, file), sealed_sequence=file.sequence, sealed_position=mark
    )
    after = released(state._replace(tables=tables), number)
    if settings.guards.durable_seal:
        after = flushed(after, settings)
    to = "render" if settings.guards.seal_before_upload else "record"
    yield f"seals {shown(file.key)}", with_worker(after, number, worker._replace(at=to))


def _next_undelivered(state: State) -> File | tuple[()]:
    waiting = [each for each in state.tables.files if not each.record]
    return min(waiting, key=lambda each: each.sequence) if waiting else ()
