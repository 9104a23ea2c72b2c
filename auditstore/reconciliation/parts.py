"""Which part of a stream one comparison is about: all of it, or what an earlier one left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

#: A first and a last sequence, both inclusive.
Window = tuple[int, int]


def joined(windows: Iterable[Window]) -> list[Window]:
    """The windows in order, with those that overlap or touch put together."""
    made: list[Window] = []
    for first, last in sorted(windows):
        if made and first <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(made[-1][1], last))
        else:
            made.append((first, last))
    return made


@dataclass(frozen=True, slots=True)
class Doubt:
    """The ledger is not the one that was verified; hashes in hex."""

    sequence: int
    verified_at: datetime
    expected: str
    found: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """Up to file ``compared`` all was compared before; of those ``again`` are read again, in
    windows as :func:`joined` makes them.

    The listing reaches over the whole prefix, over the keys behind ``start_after``, or over
    nothing, and the store is asked for what it does not reach. If it reaches over all, the
    other old files are looked at in it, and the ledger is walked from its beginning.
    """

    compared: int = 0
    again: Sequence[Window] = ()
    reach: Literal["all", "behind", "nothing"] = "all"
    start_after: str | None = None
    doubt: Doubt | None = None

    def windows(self, first: int, last: int) -> list[Window]:
        """The files to walk through, in order, none twice; ``first`` to ``last`` is all there is.

        The last window may be empty: then it stands where new files would begin.
        """
        if self.reach == "all":
            return [(first, last)]
        return joined([*self.again, (self.compared + 1, last)])

    def is_again(self, sequence: int) -> bool:
        """Whether this old file is to be read again, whatever the listing says of it."""
        at = bisect_right(self.again, sequence, key=lambda window: window[0])
        return at > 0 and sequence <= self.again[at - 1][1]

    def compares(self, sequence: int) -> bool:
        """Whether the file is compared, and not only looked at."""
        return sequence > self.compared or self.is_again(sequence)

    def lists(self, key: str) -> bool:
        """Whether an object of this key, if there is one, is in the listing."""
        if self.reach == "behind" and self.start_after is not None:
            return key.encode() > self.start_after.encode()
        return self.reach == "all"


EVERYTHING: Final = Part()
