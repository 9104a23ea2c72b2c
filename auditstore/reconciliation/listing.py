"""A bucket's objects as somebody else listed them, where it is too large to list it now.

Such a listing is older than the comparison. So what it lacks, and what it has and nobody knows, is
asked of the store, one object at a time, before it is a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from auditstore.objects import ObjectInfo
from auditstore.reconciliation.inventory import Inventory, temporary_database
from auditstore.reconciliation.scope import Progress


@dataclass(frozen=True, slots=True)
class Made:
    """Of what a listing is, and when it was begun; ``as_of`` is ``None`` where it does not say."""

    source: str
    as_of: datetime | None

    def __str__(self) -> str:
        """For the report."""
        when = "at an unknown time" if self.as_of is None else f"at {self.as_of:%Y-%m-%d %H:%M} UTC"
        return f"{self.source}, made {when}"


class Listing:
    """A listing, kept on disk in the order of its keys: each stream asks for what is its own."""

    def __init__(self, made: Made, objects: Inventory) -> None:
        self.made = made
        self._objects = objects

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """The objects whose keys begin with ``prefix``, as a store's ``list``."""
        return self._objects.below(prefix, start_after=start_after)


@contextmanager
def spooled(made: Made, objects: Iterable[ObjectInfo], progress: Progress) -> Iterator[Listing]:
    """Read a listing to its end, once, for any number of streams."""
    with temporary_database() as database:
        yield Listing(made, Inventory.of(database, objects, progress))
