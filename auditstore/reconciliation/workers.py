"""Who reads files: threads, processes, or any other executor of ``concurrent.futures``.

A worker that dies costs time and never an answer: what it was to read is read in this process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Final

from auditstore.errors import AuditStoreError, WorkersLost
from auditstore.objects import ObjectStore
from auditstore.reconciliation.reading import Kept, Order, Reading, read

#: Losses in a row, with no file read in between, after which there is no use in going on so.
MOST_LOSSES: Final = 5
#: A reading that has begun hears within a chunk that it is not wanted; one that hangs is left.
_GRACE_S: Final = 2.0
_LOST: Final = (BrokenExecutor, CancelledError)


def _shut_down(executor: Executor) -> None:
    executor.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Reads:
    """A file that is being read, and by whom."""

    future: Future[Any]
    executor: Executor


class Workers:
    """An executor, made when it is first needed, for any number of comparisons one after another.

    ``count`` is how many files it reads at once. ``shares_memory`` says that it runs in this
    process, where all may use one open store. A broken executor is replaced by another of ``make``
    if it ``renews``. What raises one of ``losses`` was lost with its worker. ``patience`` is for
    how many seconds a file is waited for; ``end`` ends an executor at once, whatever it does, and
    ``leave`` gives back what all of them were made of.
    """

    def __init__(
        self,
        make: Callable[[], Executor],
        count: int,
        *,
        shares_memory: bool,
        renews: bool = True,
        losses: tuple[type[BaseException], ...] = (),
        patience: float | None = None,
        end: Callable[[Executor], None] = _shut_down,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        self._make = make
        self._executor: Executor | None = None
        self._renews = renews
        self._end = end
        self._leave = leave
        self._losses = 0
        self.count = count
        self.shares_memory = shares_memory
        self.losses: tuple[type[BaseException], ...] = (*_LOST, *losses)
        self.patience = patience

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Reads:
        """Have it run; the future may raise what :attr:`losses` names."""
        if self._executor is None:
            self._executor = self._make()
        executor = self._executor
        try:
            return Reads(executor.submit(function, *arguments), executor)
        except self.losses as error:  # it broke, and nobody has looked at a result yet
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return Reads(failed, executor)

    def lost(self, reads: Reads, error: BaseException) -> None:
        """Take note that a file was not read; raises WorkersLost where that never ends."""
        if reads.executor is not self._executor:
            return  # one of those that were in flight when their executor broke
        self._losses += 1
        if self._losses >= MOST_LOSSES:
            why = error.message if isinstance(error, AuditStoreError) else type(error).__name__
            raise WorkersLost(
                f"{self._losses} times in a row a worker could not read a file: {why}",
                hint="Look at the workers' memory, and whether they reach the store; or compare "
                "with --workers 1, which reads in this process.",
            ) from error
        if self._renews and isinstance(error, BrokenExecutor):
            self._end_executor()

    def heard_of(self) -> None:
        """A file was read: they are alive."""
        self._losses = 0

    def close(self) -> None:
        """End what runs, at once. Nothing is read by these workers any more."""
        self._end_executor()
        self._leave()

    def _end_executor(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            self._end(executor)


@dataclass(frozen=True, slots=True)
class Readers:
    """Workers, and how they open one stream's store.

    ``recipe`` is asked when the first file is to be read, and gives what opens the store elsewhere:
    it can be pickled, compared and hashed. Workers that share memory need none.
    """

    workers: Workers
    recipe: Callable[[], Callable[[], ObjectStore]] | None = None

    @property
    def count(self) -> int:
        """How many files are read at once."""
        return self.workers.count

    def begin(self, store: ObjectStore) -> ReadingElsewhere:
        """Get ready; ``store`` is the comparison's own, which outlives what is read from it."""
        if self.workers.shares_memory or self.recipe is None:
            return ReadingElsewhere(self.workers, lambda: store, threading.Event())
        return ReadingElsewhere(self.workers, Kept(self.recipe()), None)


class ReadingElsewhere:
    """The files of one comparison, as they are read by others."""

    def __init__(
        self,
        workers: Workers,
        open_store: Callable[[], ObjectStore],
        stopping: threading.Event | None,
    ) -> None:
        self._workers = workers
        self._open_store = open_store
        self._stopping = stopping

    def begin(self, order: Order) -> Reads:
        """Have a file read."""
        stopping = () if self._stopping is None else (self._stopping.is_set,)
        return self._workers.submit(read, self._open_store, order, *stopping)

    def result(self, reads: Reads) -> Reading | None:
        """What was read; ``None`` if the file is to be read here, for whatever reason."""
        workers = self._workers
        try:
            reading: Reading = reads.future.result(timeout=workers.patience)
        except workers.losses as error:
            workers.lost(reads, error)
            return None
        except TimeoutError as error:
            if reads.future.done():
                raise
            raise WorkersLost(
                f"nothing was heard of a file's worker for {workers.patience:.0f} seconds",
                hint="Look whether the workers are alive; or compare with --workers 1, which "
                "reads in this process.",
            ) from error
        except AuditStoreError as error:
            # The store has the say when it is asked from here; elsewhere it may never answer.
            if not workers.shares_memory:
                workers.lost(reads, error)
            return None
        workers.heard_of()
        return reading

    def stop(self, waiting: Sequence[Reads]) -> None:
        """None of these is wanted any more; who reads from the comparison's store leaves it."""
        if self._stopping is None:
            # Elsewhere they end with their executor. One of processes fails over what was
            # cancelled, if it is ended then.
            return
        self._stopping.set()
        running = [each.future for each in waiting if not each.future.cancel()]
        wait(running, timeout=_GRACE_S)
