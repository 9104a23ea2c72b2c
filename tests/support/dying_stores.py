"""Stores for workers that fail: recipes that travel, and do it where they are opened."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from auditstore.errors import StoreUnavailable
from auditstore.objects import ObjectStore
from exporters.stores.recipe import StoreRecipe
from support.stores import Place


def recipe_of(place: Place) -> StoreRecipe:
    """How the place's store is opened, as a value."""
    region = "us-east-1" if place.kind == "s3" else None
    return StoreRecipe.of(place.destination, region=region, secret=place.secret)


@dataclass(frozen=True)
class KillsItsProcess:
    """Opens a store whose ``at``-th read is the end of its process, ``times`` times in all.

    ``folder`` remembers the deaths, one file each, whoever died.
    """

    recipe: Callable[[], ObjectStore]
    folder: str
    at: int = 3
    times: int = 1

    def __call__(self) -> ObjectStore:
        """Open it."""
        return _Dying(self, self.recipe())  # type: ignore[return-value]  # all that is read

    @property
    def deaths(self) -> int:
        """How many processes died of it."""
        return len(list(Path(self.folder).iterdir()))


class _Dying:
    def __init__(self, how: KillsItsProcess, store: ObjectStore) -> None:
        self._how = how
        self._store = store
        self._reads = 0

    def read(self, key: str) -> Iterator[bytes] | None:
        """The object's bytes, or the end."""
        self._reads += 1
        if self._reads >= self._how.at and self._how.deaths < self._how.times:
            Path(self._how.folder, str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._store.read(key)


@dataclass(frozen=True)
class CannotReach:
    """Opens nothing: the store is there for others only."""

    def __call__(self) -> ObjectStore:
        """Say so."""
        raise StoreUnavailable("no route from here", hint="Make one.")
