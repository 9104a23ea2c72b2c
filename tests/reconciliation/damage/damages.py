"""What a damage is: something that is planted in a picture, and that must be found as such."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

from reconciliation.damage.expectation import Level, Sighting
from reconciliation.damage.picture import Delivered, Layout, Picture

from auditstore.reconciliation import Kind

BOTH: Final[frozenset[Layout]] = frozenset({"ndjson.gz", "json"})
LINES: Final[frozenset[Layout]] = frozenset({"ndjson.gz"})
OBJECTS: Final[frozenset[Layout]] = frozenset({"json"})


class Damage(ABC):
    """One damage with its targets, drawn as numbers: any number names a target in any world."""

    layouts: ClassVar[frozenset[Layout]] = BOTH

    @abstractmethod
    def plant(self, picture: Picture) -> bool:
        """Change the picture; false if what it would change is not there any more."""

    @abstractmethod
    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        """What must be found where nothing else is damaged."""

    @property
    def name(self) -> str:
        """For people, and for counting."""
        return type(self).__name__


def changed(each: Delivered, picture: Picture) -> Sighting:
    """An object that is not what was delivered."""
    return named(Kind.CHANGED_FILE, each, picture)


def missing(each: Delivered, picture: Picture) -> Sighting:
    """An object that is gone."""
    return named(Kind.MISSING_FILE, each, picture)


def named(kind: Kind, each: Delivered, picture: Picture) -> Sighting:
    """A finding of a whole object: of a file, or else of the event that it is."""
    if picture.is_lines:
        return Sighting(kind, each.sequence, each.key)
    (row,) = each.rows
    return Sighting(kind, each.sequence, each.key, row.event_id, row.position)


def events(kind: Kind, each: Delivered, key: str | None, sequence: int | None) -> list[Sighting]:
    """A finding for each event that an object was delivered with."""
    return [Sighting(kind, sequence, key, row.event_id, row.position) for row in each.rows]
