"""One file of the ledger, read wherever there is room for it: a task that knows no database.

What it needs and what it gives are small values, so it runs in a thread, in another process or on
another machine alike. Whether a file is as it should be is decided where the outbox is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from auditstore.objects import ObjectStore
from auditstore.reconciliation.decoding import Undecodable, gunzip

#: The stored bytes only; the lines of a gzip file; objects that are one event each.
Depth = Literal["stored", "lines", "objects"]


@dataclass(frozen=True, slots=True)
class Order:
    """What to read of one file: its objects in order, and how deep.

    ``written`` is the SHA-256 of the bytes that were delivered. No more than ``events`` digests are
    wanted and no more than ``size`` bytes of content, so that no object can fill the memory.
    """

    keys: tuple[str, ...]
    depth: Depth
    written: bytes
    events: int
    size: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, as digests of 32 bytes; those of lines or objects end to end, in order.

    ``content`` is over the lines with their ends, ``stored`` over the objects laid end to end.
    Where ``trouble`` says why it could not be read to its end, the rest says nothing.
    """

    stored: bytes = b""
    stored_size: int = 0
    content: bytes = b""
    events: int = 0
    digests: bytes = b""
    unended: bool = False
    trouble: str = ""


def read(
    open_store: Callable[[], ObjectStore],
    order: Order,
    stopping: Callable[[], bool] | None = None,
) -> Reading:
    """Read one file. Raises the store's errors; what is wrong with the file is in the reading.

    ``stopping`` is asked between chunks whether the reading is still wanted.
    """
    reader = _Reader(open_store(), stopping)
    try:
        if order.depth == "objects":
            return reader.objects(order)
        (key,) = order.keys
        if order.depth == "stored":
            return reader.bytes_of(key)
        reading = reader.lines(key, order, quick=True)
        if not reading.trouble and reading.stored != order.written:
            # Other bytes than were delivered: only gzip itself may say what is in them.
            reading = reader.lines(key, order, quick=False)
    except (Undecodable, _Unwanted) as error:
        return Reading(trouble=str(error))
    return reading


class _Unwanted(Exception):
    """There is no use in reading on."""


class _Reader:
    def __init__(self, store: ObjectStore, stopping: Callable[[], bool] | None) -> None:
        self._store = store
        self._stopping = stopping
        self._stored = hashlib.sha256()
        self._size = 0

    def bytes_of(self, key: str) -> Reading:
        for _ in self._chunks(key):
            pass
        return Reading(self._stored.digest(), self._size)

    def lines(self, key: str, order: Order, *, quick: bool) -> Reading:
        self._stored, self._size = hashlib.sha256(), 0
        lines = LineDigests()
        for piece in gunzip(self._chunks(key), quick=quick):
            lines.feed(piece)
            if len(lines) > order.events or lines.size > order.size:
                raise _Unwanted("it holds more than was sealed")
        return Reading(
            self._stored.digest(), self._size, lines.content(), len(lines), lines.digests(),
            lines.unended,
        )  # fmt: skip

    def objects(self, order: Order) -> Reading:
        content = hashlib.sha256()
        digests = bytearray()
        for key in order.keys:
            one = hashlib.sha256()
            for chunk in self._chunks(key):
                one.update(chunk)
                content.update(chunk)
            content.update(b"\n")
            digests += one.digest()
        return Reading(
            self._stored.digest(), self._size, content.digest(), len(order.keys), bytes(digests)
        )

    def _chunks(self, key: str) -> Iterator[bytes]:
        chunks = self._store.read(key)
        if chunks is None:
            raise _Unwanted("it is not there")
        for chunk in chunks:
            if self._stopping is not None and self._stopping():
                raise _Unwanted("nobody waits for it any more")
            self._stored.update(chunk)
            self._size += len(chunk)
            yield chunk


class LineDigests:
    """The SHA-256 of content and of each of its lines, without holding more than digests.

    Its length is the number of lines, a last one without its end included.
    """

    def __init__(self) -> None:
        self._content = hashlib.sha256()
        self._line = hashlib.sha256()
        self._in_line = False
        self._digests = bytearray()
        self.size = 0

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self._digests) // 32 + self._in_line

    @property
    def unended(self) -> bool:
        """Whether the last line has no end."""
        return self._in_line

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._content.update(piece)
        self.size += len(piece)
        end = piece.find(b"\n")
        if end < 0:
            self._line.update(piece)
            self._in_line = self._in_line or bool(piece)
            return
        # Views and local names: this runs once a line, and copies none.
        view, sha256, digests = memoryview(piece), hashlib.sha256, self._digests
        self._line.update(view[:end])
        digests += self._line.digest()
        start = end + 1
        while (end := piece.find(b"\n", start)) >= 0:
            digests += sha256(view[start:end]).digest()
            start = end + 1
        self._line = sha256(view[start:])
        self._in_line = start < len(piece)

    def content(self) -> bytes:
        """The digest of all of it."""
        return self._content.digest()

    def digests(self) -> bytes:
        """The lines' digests, end to end."""
        return bytes(self._digests) + (self._line.digest() if self._in_line else b"")


# --- in a process that serves others ---------------------------------------------------

_opened: dict[Callable[[], ObjectStore], ObjectStore] = {}
_MOST_OPENED = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """Opens a store the first time it is wanted in a process, and gives the same one after that.

    ``recipe`` opens it; it can be pickled, compared and hashed. What is no longer among the newest
    is let go of, and closed once nobody reads from it.
    """

    recipe: Callable[[], ObjectStore]

    def __call__(self) -> ObjectStore:
        """The store. Two threads may both open one for the first time; one of them stays."""
        found = _opened.get(self.recipe)
        if found is None:
            found = _opened.setdefault(self.recipe, self.recipe())
            while len(_opened) > _MOST_OPENED:
                _opened.pop(next(iter(_opened)), None)
        return found
