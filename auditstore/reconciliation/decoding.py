"""From stored bytes to lines, in pieces, whatever somebody has put there instead."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

try:
    from isal import isal_zlib
except ModuleNotFoundError:  # of an extra: without it reading takes longer, and is the same
    isal_zlib = None  # type: ignore[assignment]  # what a module that is missing is taken as

#: The longest line that is looked into; longer ones are reported as unreadable.
MAX_LINE_BYTES: Final = 256 * 1024 * 1024
_PIECE: Final = 256 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_MAGIC: Final = b"\x1f\x8b"


class Undecodable(ValueError):
    """The object is not what its name says; the message says where it stops being it."""


def unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The content, whether it is gzip or not, by its first bytes."""
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= len(_MAGIC):
            break
    whole = chain((start,), chunks) if start else iter(())
    return gunzip(whole) if start.startswith(_MAGIC) else whole


def gunzip(chunks: Iterable[bytes], *, quick: bool = False) -> Iterator[bytes]:
    """The content of a gzip file of one or more members, at most 256 KiB at a time.

    Raises :class:`Undecodable` for what is not gzip, is damaged, or stops too early. Zeros
    after a member are padding, as gzip itself takes them. ``quick`` is for bytes that turn out to
    be as the exporter wrote them: of others it also takes headers that gzip refuses.
    """
    new_decoder = _quick_decoder if quick and isal_zlib is not None else _decoder
    decoder = new_decoder()
    started, members, total = False, 0, 0
    for chunk in chunks:
        data = chunk
        while data:
            if members and not started:
                data = data.lstrip(b"\0")
                if not data:
                    break
            started = True
            piece = _decompress(decoder, data, total)
            total += len(piece)
            if piece:
                yield piece
            data = decoder.unconsumed_tail
            if decoder.eof:
                data = decoder.unused_data
                decoder = new_decoder()
                started, members = False, members + 1
    # What the decoder held back for want of room in its last piece.
    while started and (piece := _decompress(decoder, b"", total)):
        total += len(piece)
        yield piece
    if decoder.eof:
        started, members = False, members + 1
    if started or not members:
        raise Undecodable(f"the gzip data ends too early, after {total} bytes of content")


def _decoder() -> Any:
    return zlib.decompressobj(_GZIP)


def _quick_decoder() -> Any:
    return isal_zlib.decompressobj(_GZIP)


_DAMAGED: tuple[Any, ...] = (zlib.error,)
if isal_zlib is not None:
    _DAMAGED += (isal_zlib.error,)  # which is no zlib.error


def _decompress(decoder: Any, data: bytes, total: int) -> bytes:
    try:
        piece: bytes = decoder.decompress(data, _PIECE)
    except _DAMAGED as error:
        raise Undecodable(
            f"it is not gzip, or damaged, after {total} bytes of content: {error}"
        ) from error
    return piece


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end; ``content`` is ``None`` unless it was asked for, or too long."""

    number: int
    sha256: bytes
    content: bytes | None


class Lines:
    """Splits content into lines as it passes, hashing each without holding it.

    After the last piece, ``unended`` says whether something follows the last line end, and
    :meth:`rest` gives it as a line. With ``keep`` each line brings its bytes along.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._number = 0
        self._begin()

    @property
    def unended(self) -> bool:
        """Whether the content, as far as it went, does not end in a line end."""
        return self._size > 0

    def feed(self, piece: bytes) -> Iterator[Line]:
        """The lines that end in this piece."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            self._take(piece[start:end])
            yield self._end()
            start = end + 1
        self._take(piece[start:])

    def hold(self, piece: bytes) -> None:
        """Take a piece as it is, line ends included, for content that is one event."""
        self._take(piece)

    def rest(self) -> Iterator[Line]:
        """What follows the last line end, if anything does."""
        if self.unended:
            yield self._end()

    def _begin(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0
        self._parts: list[bytes] = []

    def _take(self, part: bytes) -> None:
        self._hash.update(part)
        self._size += len(part)
        if self._keep and self._size <= MAX_LINE_BYTES:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _end(self) -> Line:
        self._number += 1
        whole = self._keep and self._size <= MAX_LINE_BYTES
        content = b"".join(self._parts) if whole else None
        line = Line(self._number, self._hash.digest(), content)
        self._begin()
        return line
