"""What the model consists of. Everything is frozen and comparable; absent things are ``()``.

Actors are numbered from 0; ``NOBODY`` stands where one could stand. An event is a number.
"""

from __future__ import annotations

from typing import NamedTuple

NOBODY = -1

#: A position and the event at it.
Row = tuple[int, int]
Rows = tuple[Row, ...]
#: An object's key: its file's sequence, first and last position.
Key = tuple[int, int, int]


class Transaction(NamedTuple):
    """A writer's transaction: new, bare (a position without the lock), locked, prepared, over.

    ``name`` is its virtual transaction id, which changes for a prepared one at a restart.
    """

    phase: str
    name: int
    rows: Rows = ()


class Record(NamedTuple):
    """The delivered half of a ledger row: what lies in the store, and the chain."""

    content: Rows
    previous: tuple[object, ...]
    hash: tuple[object, ...]


class File(NamedTuple):
    """A ledger row. ``rows`` are those that sealing read: the row itself keeps their range and
    count only, and a worker that delivers the file must not use more of it.
    """

    sequence: int
    rows: Rows
    record: Record | tuple[()] = ()

    @property
    def first(self) -> int:
        """The first position of the range."""
        return self.rows[0][0]

    @property
    def last(self) -> int:
        """The last position of the range."""
        return self.rows[-1][0]

    @property
    def key(self) -> Key:
        """The object's key, which names the sequence and the range."""
        return (self.sequence, self.first, self.last)


class Tables(NamedTuple):
    """What is written ahead, and what a crash may therefore take back: outbox and ledger."""

    high: int = 0
    rows: Rows = ()
    files: tuple[File, ...] = ()
    sealed_sequence: int = 0
    sealed_position: int = 0
    delivered_sequence: int = 0
    chain: tuple[object, ...] = ()


class Mark(NamedTuple):
    """A position of the fence, and those of its writers that were not yet seen to be over."""

    position: int
    writers: tuple[int, ...]


class Fence(NamedTuple):
    """One worker's fence. ``asked`` is what the first of its two questions was answered."""

    run: int = -1
    position: int = 0
    marks: tuple[Mark, ...] = ()
    asked: tuple[object, ...] = ()
    view: Rows = ()


class Worker(NamedTuple):
    """A worker at the next step of its program.

    ``safe`` is the position and run that its turn goes by; ``file`` what it has in hand;
    ``seen`` what it read of the stream before it records; ``content`` what it rendered.
    """

    at: str = "off"
    fence: Fence = Fence()
    safe: tuple[int, int] | tuple[()] = ()
    file: File | tuple[()] = ()
    seen: tuple[object, ...] = ()
    content: Rows = ()


class Stored(NamedTuple):
    """An object in the store, and how often it was written."""

    key: Key
    content: Rows
    writes: int = 1


class State(NamedTuple):
    """The whole world. ``wire`` holds requests whose senders no longer wait for an answer;
    ``reported`` is the newest file that a worker has reported as delivered.
    """

    transactions: tuple[Transaction, ...]
    workers: tuple[Worker, ...]
    tables: Tables = Tables()
    durable: Tables = Tables()
    run: int = 0
    row_lock: int = NOBODY
    lease: int = NOBODY
    cached: int = 0
    objects: tuple[Stored, ...] = ()
    wire: tuple[tuple[Key, Rows], ...] = ()
    halted: str = ""
    reported: int = 0


#: What an actor does, in words, and the world after it.
Step = tuple[str, State]
