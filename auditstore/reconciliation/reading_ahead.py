"""Files in flight: while one is compared, the next ones are read, and their hashes asked for.

What comes back is looked at in the order of the ledger. It can only say that a file is as it
should be: whatever else comes back, or does not, the file is compared in its turn as if nobody had
read it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from auditstore.layout import event_key
from auditstore.ledger import LedgerFile, SealedFile
from auditstore.reconciliation.deciding import Case, decide
from auditstore.reconciliation.job import Job
from auditstore.reconciliation.reading import Order, Reading
from auditstore.reconciliation.workers import Readers, Reads
from auditstore.sql import comparison as sql
from auditstore.sql.comparison import Side

#: Beside two files for each worker, so that none waits for the next one to be chosen.
SPARE: Final = 4
#: What may be in flight at once, in lines; it bounds the digests that are held. A file that is more
#: by itself is not read ahead.
MOST_LINES: Final = 1_000_000
#: An object of its own counts as so many lines: its key and the names it is made of are held.
_OBJECT: Final = 5
#: The server computes the hashes of so many files at once, at most.
_MOST_STATEMENTS: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """What was read ahead of one file; ``side`` is what the outbox has, where it was asked."""

    reading: Reading
    side: Side | None


@dataclass(frozen=True, slots=True)
class _Waiting:
    case: Case
    weight: int = 0
    reads: Reads | None = None
    side: Future[Side] | None = None


@contextmanager
def cases(
    job: Job, rows: Iterable[LedgerFile], readers: Readers | None
) -> Iterator[Iterator[tuple[Case, Found | None]]]:
    """Each row's case in turn, with what was read of it ahead. Without ``readers`` nothing is."""
    if readers is None:
        yield ((decide(job, row), None) for row in rows)
        return
    window = _Window(job, readers)
    try:
        yield window.over(rows)
    finally:
        window.close()


class _Window:
    """A bounded number of files in flight."""

    def __init__(self, job: Job, readers: Readers) -> None:
        self._job = job
        self._reading = readers.begin(job.store)
        self._most = 2 * readers.count + SPARE
        self._statements = ThreadPoolExecutor(
            min(readers.count, _MOST_STATEMENTS), thread_name_prefix="outbox-hashes"
        )
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0

    def over(self, rows: Iterable[LedgerFile]) -> Iterator[tuple[Case, Found | None]]:
        for row in rows:
            self._begin(decide(self._job, row))
            while len(self._waiting) > self._most or self._weight > MOST_LINES:
                yield self._oldest()
        while self._waiting:
            yield self._oldest()

    def close(self) -> None:
        """Nothing is wanted any more: what has not begun never does."""
        for each in self._waiting:
            if each.side is not None:
                each.side.cancel()
        self._reading.stop([each.reads for each in self._waiting if each.reads is not None])
        # A statement is about one file: the one that runs is waited for.
        self._statements.shutdown(cancel_futures=True)

    def _begin(self, case: Case) -> None:
        sealed, delivery = case.row.sealed, case.delivery
        weight = _weight(case)
        if case.reads is None or delivery is None or weight > MOST_LINES:
            self._waiting.append(_Waiting(case))
            return
        keys = (sealed.object_key,) if case.reads != "objects" else self._keys(case)
        if not keys:
            self._waiting.append(_Waiting(case))
            return
        order = Order(
            keys, case.reads, delivery.object_sha256, sealed.event_count, sealed.content_bytes
        )
        side = None
        if case.reads != "stored":
            side = self._statements.submit(self._side, sealed)
        self._weight += weight
        self._waiting.append(_Waiting(case, weight, self._reading.begin(order), side))

    def _oldest(self) -> tuple[Case, Found | None]:
        oldest = self._waiting.popleft()
        self._weight -= oldest.weight
        if oldest.reads is None:
            return oldest.case, None
        try:
            side = None if oldest.side is None else oldest.side.result()
            reading = self._reading.result(oldest.reads)
        except BaseException:
            self._waiting.appendleft(oldest)  # so that it is stopped with the others
            raise
        return oldest.case, None if reading is None else Found(reading, side)

    def _side(self, sealed: SealedFile) -> Side:
        job = self._job
        with job.engine.connect() as connection:
            return sql.side(
                connection, job.stream.flow_id,
                first=sealed.first_position, last=sealed.last_position,
                # One more than there should be, so that it shows and does not fill the memory.
                limit=sealed.event_count + 1, verify=job.reads_events,
            )  # fmt: skip

    def _keys(self, case: Case) -> tuple[str, ...]:
        """The keys of a file's objects; none if it is known already that they cannot be right."""
        job, sealed = self._job, case.row.sealed
        with job.engine.connect() as connection:
            names = sql.event_names(
                connection, job.stream.flow_id,
                first=sealed.first_position, last=sealed.last_position,
                limit=sealed.event_count + 1,
            )  # fmt: skip
        prefix = job.stream.destination.prefix
        keys = tuple(
            event_key(prefix=prefix, lead_id=lead_id, event_id=event_id)
            for event_id, lead_id in names
        )
        # Each is looked up, whatever comes of the others: nobody else should take it for unknown.
        there = [job.may_be_there(key) for key in keys]
        return keys if all(there) and len(keys) == sealed.event_count else ()


def _weight(case: Case) -> int:
    events = case.row.sealed.event_count
    return {"stored": 0, "lines": events, "objects": events * _OBJECT, None: 0}[case.reads]
