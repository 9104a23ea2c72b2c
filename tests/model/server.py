"""The writers' transactions, and the server with its crashes."""

from __future__ import annotations

from collections.abc import Iterator

from .settings import Settings
from .state import NOBODY, State, Step, Transaction

_NAMES = "abcdefgh"
# In these steps a worker is inside a transaction of the database.
_IN_TRANSACTION = {"check", "read", "commit", "recording"}


def event_name(event: int) -> str:
    """Events of transaction 0 are a0, a1; of transaction 1, b0."""
    return f"{_NAMES[event // 10]}{event % 10}"


def initial_transactions(settings: Settings) -> tuple[Transaction, ...]:
    """All of them not begun."""
    return tuple(Transaction("new", index) for index in range(len(settings.appends)))


def writer_steps(state: State, settings: Settings) -> Iterator[Step]:
    """What the writers may do next."""
    for index, transaction in enumerate(state.transactions):
        name = f"transaction {_NAMES[index]}"
        if transaction.phase == "new":
            # Alike, they begin in the order of their names; it saves states and hides nothing.
            if settings.guards.lock_before_position:
                locked = transaction._replace(phase="locked")
                yield f"{name} takes the outbox's lock", _with(state, index, locked)
            else:
                yield from _take_position(state, settings, index, name, phase="bare")
            return
        if transaction.phase == "bare":
            locked = transaction._replace(phase="locked")
            yield f"{name} takes the outbox's lock", _with(state, index, locked)
        elif transaction.phase == "locked":
            if len(transaction.rows) < settings.appends[index]:
                yield from _take_position(state, settings, index, name, phase="locked")
            else:
                yield f"{name} commits", _commit(state, settings, index)
                if settings.prepared:
                    prepared = _with(state, index, transaction._replace(phase="prepared"))
                    yield f"{name} is prepared", flushed(prepared, settings)
            yield f"{name} rolls back", _with(state, index, Transaction("over", transaction.name))
        elif transaction.phase == "prepared":
            # Either end of a prepared transaction waits for the disk, whatever the setting.
            committed = flushed(_commit(state, settings, index), settings)
            yield f"{name}, prepared, is committed", committed
            rolled_back = _with(state, index, Transaction("over", transaction.name))
            yield f"{name}, prepared, is rolled back", flushed(rolled_back, settings)


def server_steps(state: State, settings: Settings) -> Iterator[Step]:
    """The server writes to disk, or goes down and comes back."""
    if state.run < settings.server_crashes:
        yield "the SERVER CRASHES and comes back", _crash(state)
        if state.durable != state.tables:
            yield "the server writes its log to disk", state._replace(durable=state.tables)


def flushed(state: State, settings: Settings) -> State:
    """A commit that waits for the disk takes everything before it along."""
    # Where no crash can come there is no need to tell the disk from the memory.
    return state._replace(durable=state.tables) if settings.server_crashes else state


def open_writers(state: State, settings: Settings) -> tuple[int, ...]:
    """The virtual transactions that hold the outbox's lock now."""
    counted = ("locked", "prepared") if settings.guards.prepared_are_writers else ("locked",)
    return tuple(sorted(each.name for each in state.transactions if each.phase in counted))


def _take_position(
    state: State, settings: Settings, index: int, name: str, *, phase: str
) -> Iterator[Step]:
    transaction, tables = state.transactions[index], state.tables
    event = index * 10 + len(transaction.rows)
    choices = [(tables.high + 1, tables.high + 1, state.cached)]
    if not settings.guards.no_sequence_cache:
        # The first session to take a position keeps the next one for a later transaction.
        if state.cached:
            choices.append((state.cached, tables.high, 0))
        elif not tables.high:
            choices = [(1, 2, 2)]
    for position, high, cached in choices:
        given = transaction._replace(phase=phase, rows=(*transaction.rows, (position, event)))
        after = _with(state, index, given)._replace(tables=tables._replace(high=high))
        label = f"{name} inserts {event_name(event)} at position {position}"
        yield label, after._replace(cached=cached)


def _commit(state: State, settings: Settings, index: int) -> State:
    transaction = state.transactions[index]
    rows = tuple(sorted((*state.tables.rows, *transaction.rows)))
    after = _with(state, index, Transaction("over", transaction.name))
    after = after._replace(tables=state.tables._replace(rows=rows))
    return after if settings.asynchronous else flushed(after, settings)


def _crash(state: State) -> State:
    """What was not on disk is gone, its positions too. Sessions end; what is prepared stays, under
    a new name. A worker finds its connections replaced, as behind a pooler, and keeps its fence.
    """
    transactions = tuple(
        each._replace(name=each.name + 100) if each.phase == "prepared"
        else each if each.phase == "new"
        else Transaction("over", each.name)
        for each in state.transactions
    )  # fmt: skip
    workers = tuple(
        worker._replace(at="idle", safe=(), file=(), seen=(), content=())
        if worker.at in _IN_TRANSACTION
        else worker
        for worker in state.workers
    )
    return state._replace(
        transactions=transactions, workers=workers, tables=state.durable, run=state.run + 1,
        row_lock=NOBODY, cached=0,
    )  # fmt: skip


def _with(state: State, index: int, transaction: Transaction) -> State:
    transactions = list(state.transactions)
    transactions[index] = transaction
    return state._replace(transactions=tuple(transactions))
