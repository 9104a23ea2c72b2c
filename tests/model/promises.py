"""What must hold in every state, and what must remain reachable from every state."""

from __future__ import annotations

from collections.abc import Iterator

from .server import event_name
from .state import State, Stored, Tables

FOREIGN = ((99, 99),)


def broken(state: State) -> str | None:
    """The first promise that does not hold in this state, in words; None when all hold."""
    return next(_broken(state), None)


def delivered(state: State) -> bool:
    """Writers are over, and everything that they committed is delivered; or, where somebody
    else's object stands in the way, the stream has come to rest there.
    """
    if any(transaction.phase != "over" for transaction in state.transactions):
        return False
    if state.halted:
        return True
    tables = state.tables
    stored = [row for each in _ours(state) for row in each.content]
    return sorted(stored) == list(tables.rows) and all(file.record for file in tables.files)


def _broken(state: State) -> Iterator[str]:
    tables = state.tables
    yield from _broken_ledger(tables)
    yield from _broken_coverage(tables)
    yield from _broken_events(state)
    yield from _broken_store(state)
    if state.halted and not any(each.content == FOREIGN for each in state.objects):
        yield f"the stream is halted though nobody else wrote: {state.halted}"
    if tables.delivered_sequence < state.reported:
        yield f"file {state.reported} was reported as delivered, and is not recorded any more"


def _broken_ledger(tables: Tables) -> Iterator[str]:
    """Sequences without a gap; records in order, chained."""
    sequences = [file.sequence for file in tables.files]
    if sequences != list(range(1, len(sequences) + 1)):
        yield f"the ledger's sequence is {sequences}"
    if tables.sealed_sequence != len(sequences):
        yield f"the sealed mark is {tables.sealed_sequence} of {len(sequences)} files"
    recorded = [bool(file.record) for file in tables.files]
    if recorded != sorted(recorded, reverse=True):
        yield "a file is recorded before the one ahead of it"
    if tables.delivered_sequence != sum(recorded):
        yield f"the delivered mark is {tables.delivered_sequence}, {sum(recorded)} are recorded"
    chain: tuple[object, ...] = ()
    for file in tables.files:
        if file.record:
            if file.record.previous != chain:
                yield f"file {file.sequence} is not chained to the one before it"
            chain = file.record.hash
    if tables.chain != chain:
        yield "the stream's chain hash is not that of its newest record"


def _broken_coverage(tables: Tables) -> Iterator[str]:
    """What lies at or below the sealed mark is in a sealed file, each event in one."""
    sealed = [row for file in tables.files for row in file.rows]
    for position, event in tables.rows:
        if position <= tables.sealed_position and (position, event) not in sealed:
            yield (
                f"{event_name(event)} is committed at position {position}, and SKIPPED: the stream"
                f" is sealed up to {tables.sealed_position} without it"
            )
    if sealed != sorted(set(sealed)):
        yield "the sealed ranges overlap, or are not in order"


def _broken_store(state: State) -> Iterator[str]:
    """Each object written once, sealed before, with what was sealed; what is recorded is there."""
    for each in state.objects:
        if each.writes > 1:
            yield f"the object {each.key} was written {each.writes} times"
    sealed = {file.key: file for file in state.tables.files}
    for each in _ours(state):
        file = sealed.get(each.key)
        if file is None:
            yield f"the object {each.key} is in no ledger row"
        elif each.content != file.rows:
            yield f"the object {each.key} has not the content that was sealed"
    there = {each.key: each.content for each in state.objects}
    for file in state.tables.files:
        if file.record and there.get(file.key) != file.record.content:
            yield f"file {file.sequence} is recorded, and does not lie in the store like that"


def _broken_events(state: State) -> Iterator[str]:
    """Each event in the store lies in one object, and is committed."""
    held = [row for each in _ours(state) for row in each.content]
    for row in held:
        if row not in state.tables.rows:
            yield f"the store holds {event_name(row[1])}, which is not committed"
    events = [event for _, event in held]
    for event in sorted(set(events)):
        if events.count(event) > 1:
            yield f"{event_name(event)} lies in {events.count(event)} objects"


def _ours(state: State) -> list[Stored]:
    return [each for each in state.objects if each.content != FOREIGN]
