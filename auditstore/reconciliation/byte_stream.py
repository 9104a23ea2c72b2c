"""Pieces of bytes, as stores and files give them, for libraries that read from a file."""

from __future__ import annotations

import io
from collections.abc import Iterator


class ByteStream(io.RawIOBase):
    """Pieces of bytes as a file that libraries read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: object) -> int:
        """The next bytes; 0 at the end."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # what io hands over is one
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
