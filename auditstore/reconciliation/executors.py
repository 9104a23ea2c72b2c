"""The executors of one machine: threads, and processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import parent_process
from typing import Any, Final, ParamSpec, TypeVar

from auditstore.reconciliation.workers import Workers

_P = ParamSpec("_P")
_T = TypeVar("_T")
_DONE: Final = None


def threads(count: int) -> Workers:
    """Threads of this process."""
    return Workers(lambda: Threads(count), count, shares_memory=True)


def processes(count: int) -> Workers:
    """Processes on this machine. They begin anew, so that none inherits a lock or a connection."""
    return Workers(partial(_pool, count), count, shares_memory=False, end=_kill)


class Threads(Executor):
    """Threads that nobody waits for: one that hangs with its store keeps no process from leaving.

    Those of the standard library are waited for when Python ends.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._wanted: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._is_shut = False

    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Future[_T]:  # fmt: skip
        """Have it run on the next thread that is free."""
        future: Future[_T] = Future()
        with self._lock:
            if self._is_shut:
                raise RuntimeError("these threads take nothing more")
            self._wanted.put((future, partial(fn, *args, **kwargs)))
            if len(self._threads) < self._count:
                name = f"reading-{len(self._threads) + 1}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # the base class's
        """Take nothing more; end when what is wanted is done, or with ``cancel_futures`` sooner."""
        with self._lock:
            self._is_shut = True
        while cancel_futures:
            try:
                found = self._wanted.get_nowait()
            except queue.Empty:
                break
            if found is not None:
                found[0].cancel()
        for _ in self._threads:
            self._wanted.put(_DONE)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (found := self._wanted.get()) is not _DONE:
            future, work = found
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001  # it is whoever waits who is told
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del found, future, work


def _pool(count: int) -> Executor:
    executor = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_serve
    )
    # Each begins with a task that finds none idle, and inherits what is blocked: Ctrl-C is not for
    # them, not even while they start.
    with _ctrl_c_blocked():
        for _ in range(count):
            executor.submit(os.getpid)
    return executor


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # not on every system
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve() -> None:
    """In a worker: Ctrl-C is for the process that we work for, and we leave when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent,), daemon=True).start()


def _leave_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _kill(executor: Executor) -> None:
    """End the processes whatever they do: they have nothing that could be lost."""
    running = dict(getattr(executor, "_processes", None) or {})
    for process in running.values():
        process.terminate()
    # Without cancelling: what is cancelled makes it fail over processes that are gone.
    executor.shutdown(wait=True)
