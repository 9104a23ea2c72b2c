"""The next file of a backlog, read and compressed while the one before it is uploaded.

Nothing is sealed ahead, and nothing leaves: what was read counts only if the file that is then
sealed is the very one that was foreseen. Below a safe fence the outbox does not change, so it is,
unless somebody changed the stream or worked on it meanwhile.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import replace
from typing import Final

from sqlalchemy import Engine

from auditstore.ledger import SealedFile
from auditstore.sql import server
from auditstore.streams import Stream
from exporters.delivery import render
from exporters.encoding import Rendering
from exporters.fence import SafePosition
from exporters.sealing import foresee

#: A file of so much of its limit says that more waits behind it.
_FULL: Final = 0.5

Foreseen = tuple[SealedFile, Rendering]


class ReadAhead:
    """For one turn of one stream: at most one file, made by one of ``threads``."""

    def __init__(self, engine: Engine, threads: Executor, fence: SafePosition) -> None:
        self._engine = engine
        self._threads = threads
        self._fence = fence
        self._coming: Future[Foreseen | None] | None = None

    def begin(self, stream: Stream, sealed: SealedFile) -> None:
        """Read what will be sealed after ``sealed``, where a backlog is likely."""
        if _is_full(stream, sealed):
            # A host short of threads, or an exporter that is leaving, does without.
            with suppress(RuntimeError):
                self._coming = self._threads.submit(self._read, stream, sealed)

    def take(self, sealed: SealedFile) -> Rendering | None:
        """The rendering of ``sealed``, if it was foreseen; each is given once."""
        coming, self._coming = self._coming, None
        # One whose thread has not begun is made faster by whoever asks. What went wrong there
        # goes wrong again, in the place where it is told.
        if coming is None or coming.cancel() or coming.exception() is not None:
            return None
        foreseen = coming.result()
        if foreseen is None or replace(foreseen[0], sealed_at=sealed.sealed_at) != sealed:
            return None
        return foreseen[1]

    def drop(self) -> None:
        """What is coming is not wanted any more; no thread of it outlives this."""
        if self._coming is not None:
            if not self._coming.cancel():
                wait([self._coming])
            self._coming = None

    def _read(self, stream: Stream, sealed: SealedFile) -> Foreseen | None:
        with self._engine.connect() as connection:
            # A fence of an earlier run of the server says nothing about this one.
            if server.run(connection) != self._fence.run:
                return None
            foreseen = foresee(connection, stream, sealed, fence=self._fence.position)
            if foreseen is None:
                return None
            return foreseen, render(connection, stream, foreseen)


def _is_full(stream: Stream, sealed: SealedFile) -> bool:
    if stream.format == "json":
        return False  # its objects are as large as its events: two files would be twice the memory
    limits = stream.limits
    return (
        sealed.event_count >= _FULL * limits.max_events
        or sealed.content_bytes >= _FULL * limits.max_bytes
    )
