"""The options that say who reads the files of a comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import click

from auditstore.reconciliation import Workers
from auditstore.reconciliation.executors import processes, threads

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option(
        "--workers", type=click.IntRange(min=1), metavar="NUMBER",
        help="Read so many files at once; with 1 each is read when it is compared.  "
        "[default: one for each processor]",
    ),
    click.option(
        "--processes", is_flag=True,
        help="Read in processes rather than in threads.",
    ),
    click.option(
        "--cluster", metavar="tcp://HOST:PORT",
        help="Read on the workers of this Dask scheduler (extra `cluster`).",
    ),
)  # fmt: skip


def worker_options(command: _Command) -> _Command:
    """How many read, and where."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """What was asked for, checked."""

    count: int | None
    in_processes: bool
    address: str | None

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> Self:
        """Take these options out of a command's; refuse what does not go together."""
        made = cls(given.pop("workers"), given.pop("processes"), given.pop("cluster"))
        if made.address is not None and made.in_processes:
            raise click.UsageError("--cluster and --processes are two ways: choose one.")
        return made

    @property
    def is_usual(self) -> bool:
        """Whether none of the options was given."""
        return self.count is None and not self.in_processes and self.address is None

    @contextmanager
    def opened(self) -> Iterator[Workers | None]:
        """Workers until the end; ``None`` where each file is read when it is compared."""
        count = self.count or _processors()
        if self.address is not None:
            from auditstore.reconciliation.cluster import cluster  # noqa: PLC0415  # its own extra

            workers = cluster(self.address, count=self.count)
        elif count == 1:
            yield None
            return
        else:
            workers = (processes if self.in_processes else threads)(count)
        try:
            yield workers
        finally:
            workers.close()


def _processors() -> int:
    """Those that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
