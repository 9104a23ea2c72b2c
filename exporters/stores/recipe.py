"""How a store is opened, as a value that may travel to where it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from auditstore.destinations import Destination
from auditstore.objects import ObjectStore
from exporters.stores import open_store

_Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StoreRecipe:
    """What :func:`open_store` is called with. Pickled, it holds the secret in the clear."""

    destination: Destination
    region: str | None = None
    options: _Pairs = ()
    secret: _Pairs | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        destination: Destination,
        *,
        region: str | None = None,
        secret: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Self:
        """The recipe of what :func:`open_store` would open."""
        pairs = None if secret is None else _pairs(secret)
        return cls(destination, region, _pairs(options or {}), pairs)

    def __call__(self) -> ObjectStore:
        """Open the store."""
        return open_store(
            self.destination,
            region=self.region,
            secret=None if self.secret is None else dict(self.secret),
            options=dict(self.options),
        )


def _pairs(values: Mapping[str, str]) -> _Pairs:
    return tuple(sorted(values.items()))
