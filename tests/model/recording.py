"""Record a delivery, in order: ``exporters.delivery.record``."""

from __future__ import annotations

from collections.abc import Iterator

from .edits import halt, released, shown, trusts_lease, turn_over, with_worker
from .server import flushed
from .settings import Settings
from .state import NOBODY, Record, State, Step


def record(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """One at a time records."""
    worker = state.workers[number]
    seen = (state.tables.delivered_sequence, state.tables.chain)
    recording = worker._replace(at="recording", seen=seen)
    if not settings.guards.record_row_lock or trusts_lease(settings):
        yield "begins to record, without a lock", with_worker(state, number, recording)
    elif state.row_lock == NOBODY:
        locked = state._replace(row_lock=number)
        yield "locks the stream's row to record", with_worker(locked, number, recording)


def recording(state: State, settings: Settings, number: int) -> Iterator[Step]:
    """The delivered half of the row, and the delivered mark."""
    worker = state.workers[number]
    file, guards = worker.file, settings.guards
    assert file
    delivered, chain = worker.seen
    assert isinstance(delivered, int)
    assert isinstance(chain, tuple)
    unlocked = released(state, number)
    on = worker._replace(at="look", file=(), seen=(), content=())
    if guards.recorded_once and delivered >= file.sequence and not trusts_lease(settings):
        yield f"finds {shown(file.key)} recorded", with_worker(unlocked, number, on)
        return
    if guards.record_in_order and delivered != file.sequence - 1:
        yield from halt(unlocked, number, f"{shown(file.key)} would come after {delivered}")
        return
    index = next((at for at, each in enumerate(state.tables.files) if each.key == file.key), None)
    if index is None:  # the row is gone: the UPDATE would find nothing, and nobody notice
        yield f"records {shown(file.key)}, which has no row", with_worker(unlocked, number, on)
        return
    row = state.tables.files[index]
    if row.record and guards.delivered_is_final:
        yield (
            f"is refused a change of {shown(file.key)} by the trigger",
            turn_over(unlocked, number),
        )
        return
    # A second record of a file has another time, and so another hash.
    times = 1 + (row.record.hash[-1] if row.record else 0)
    record = Record(worker.content, chain, (*chain, file.sequence, times))
    files = list(state.tables.files)
    files[index] = row._replace(record=record)
    tables = state.tables._replace(
        files=tuple(files), delivered_sequence=file.sequence, chain=record.hash
    )
    after = unlocked._replace(tables=tables, reported=max(state.reported, file.sequence))
    if guards.durable_record:
        after = flushed(after, settings)
    yield f"records {shown(file.key)}", with_worker(after, number, on)
