"""BSON ObjectIds: 24 hex digits that sort by the second in which they were made."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from functools import cache


class ObjectIds:
    """Makes ids that are unique within this object, and in order within a second.

    The layout is BSON's: 4 bytes of seconds, 5 bytes that name the maker, a 3 byte counter
    (it wraps after 16.7 million ids, by which time the second has changed). Two makers with
    the same name repeat each other's ids: that is what makes a seeded run reproducible.
    """

    __slots__ = ("_counter", "_maker")

    def __init__(self, maker: str) -> None:
        self._maker = hashlib.blake2b(maker.encode(), digest_size=5).hexdigest()
        self._counter = 0

    def make(self, epoch_ms: int) -> str:
        """The next id, created at this time (milliseconds since the epoch)."""
        self._counter = (self._counter + 1) & 0xFFFFFF
        return f"{epoch_ms // 1000:08x}{self._maker}{self._counter:06x}"


@cache
def fixed_id(name: str) -> str:
    """The same id for the same name, always: for sources, recipients, steps, accounts."""
    return f"66000000{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def opaque(name: str, size: int) -> str:
    """A token of ``size`` random-looking bytes, in base64; the same one for the same name.

    Real events are full of tokens, signatures and click ids. Without them ours would
    compress several times better than life, and flatter every benchmark.
    """
    return urlsafe_b64encode(hashlib.shake_128(name.encode()).digest(size)).decode()
