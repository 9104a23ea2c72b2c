"""What the parts of one comparison share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from auditstore.ledger import LedgerFile
from auditstore.objects import ObjectInfo, ObjectStore
from auditstore.reconciliation.counting import Counting
from auditstore.reconciliation.inventory import Inventory
from auditstore.reconciliation.listing import Listing
from auditstore.reconciliation.parts import Part
from auditstore.reconciliation.scope import Progress, Scope
from auditstore.reconciliation.summary import Recorder, Summary
from auditstore.reconciliation.view import View
from auditstore.sql import comparison as sql
from auditstore.sql.comparison import Entry
from auditstore.streams import Stream

#: Puts a missing file back from the outbox, create-only; says whether it wrote anything. For a
#: dry run, one that makes everything ready and writes nothing.
Restore = Callable[[Stream, LedgerFile], bool]

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """One comparison of one stream: where it reads, and where its findings go."""

    engine: Engine
    store: ObjectStore
    scope: Scope
    view: View
    inventory: Inventory
    database: sqlite3.Connection
    recorder: Recorder
    progress: Progress
    restore: Restore | None
    part: Part
    counting: Counting
    dry_run: bool = False
    listing: Listing | None = None

    @property
    def stream(self) -> Stream:
        """The stream as it stood when the comparison began."""
        return self.view.stream

    @property
    def summary(self) -> Summary:
        """The counts so far."""
        return self.recorder.summary

    @property
    def reads_events(self) -> bool:
        """Whether every object is read and compared event by event."""
        return self.scope.level == "events"

    def look_up(self, key: str) -> ObjectInfo | None:
        """An object as it was listed; the store is asked where the listing does not reach."""
        info = self.inventory.take(key)
        return info if info is not None or self._lists(key) else self.store.head(key)

    def may_be_there(self, key: str) -> bool:
        """Whether it is worth reading: it was listed, or the listing does not reach to it."""
        return self.inventory.take(key) is not None or not self._lists(key)

    def as_it_is(self, info: ObjectInfo) -> ObjectInfo | None:
        """A listed object as it is now, where the listing is an old one; ``None`` if it went."""
        return info if self.listing is None else self.store.head(info.key)

    def read(self, key: str) -> Iterator[bytes] | None:
        """An object's stored bytes, counted; ``None`` if it is not there any more."""
        chunks = self.store.read(key)
        return None if chunks is None else self._counted(chunks)

    def entries(self, first: int, last: int, *, verify: bool = False) -> Iterator[Entry]:
        """The outbox's events of a range, in order, each page in a transaction of its own."""
        while first <= last:
            with self.engine.connect() as connection:
                page = sql.entries(
                    connection, self.stream.flow_id,
                    first=first, last=last, limit=_PAGE, verify=verify,
                )  # fmt: skip
            yield from page
            if len(page) < _PAGE:
                return
            first = page[-1].position + 1

    def _lists(self, key: str) -> bool:
        # What a listing of earlier lacks may have come since.
        return self.listing is None and self.part.lists(key)

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.summary.bytes_read += len(chunk)
            yield chunk
