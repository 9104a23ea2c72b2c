"""From a sealed range to the objects that it becomes, reproducibly.

JSON is never parsed here. The same events give the same bytes on the same encoder version,
whatever the size of the blocks in which the database sends them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import isal
from isal import isal_zlib

from auditstore.errors import LedgerMismatch
from auditstore.layout import Format, event_key
from auditstore.ledger import SealedFile
from auditstore.objects import NewObject

#: The layout of a file's content, in every object's metadata. A change here is a new number.
FORMAT_VERSION: Final = "1"
_LEVEL: Final = 2
#: Which code makes the stored bytes of each format; a ledger row carries it.
ENCODERS: Final[dict[Format, str]] = {
    "ndjson.gz": f"{FORMAT_VERSION} isal-{isal.__version__}-{_LEVEL}",
    "json": FORMAT_VERSION,
}

_GZIP_WINDOW: Final = 31  # zlib's way to ask for a gzip header, which isal writes without a time
_BLOCK: Final = 256 * 1024
_ISAL_ERROR: Final[type[Exception]] = isal_zlib.error  # type: ignore[assignment]  # a stub's slip


@dataclass(frozen=True, slots=True)
class Rendering:
    """A file as objects: one in the format ``ndjson.gz``, one an event in ``json``.

    ``content_sha256`` is over the events' lines, each ended by a line feed, in either format;
    ``object_sha256`` and ``object_bytes`` are over the objects' bytes, laid end to end.
    """

    objects: tuple[NewObject, ...]
    content_sha256: bytes
    object_sha256: bytes
    object_bytes: int


def render_file(snapshots: Iterable[bytes], sealed: SealedFile) -> Rendering:
    """One gzip file, a snapshot a line, byte for byte as appended.

    Raises LedgerMismatch when they are not as many, or not as long, as were sealed.
    """
    content = hashlib.sha256()
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    counter = _Counter()
    parts: list[bytes] = []
    for block in _blocks(counter.count(snapshots)):
        content.update(block)
        parts.append(compressor.compress(block))
    parts.append(compressor.flush())
    counter.check(sealed)
    body = b"".join(parts)
    body_sha256 = hashlib.sha256(body).digest()
    metadata = {
        "content-sha256": content.hexdigest(),
        "event-count": str(sealed.event_count),
        "first-position": str(sealed.first_position),
        "last-position": str(sealed.last_position),
        "format-version": FORMAT_VERSION,
    }
    new = NewObject(
        key=sealed.object_key,
        body=body,
        sha256=body_sha256,
        content_type="application/x-ndjson",
        content_encoding="gzip",
        metadata=metadata,
    )
    return Rendering((new,), content.digest(), body_sha256, len(body))


def render_events(
    rows: Iterable[tuple[int, bytes, str, str | None]], sealed: SealedFile, *, prefix: str
) -> Rendering:
    """One object an event in LeadConduit's layout, from (position, snapshot, event id, lead id).

    Raises LedgerMismatch as :func:`render_file` does.
    """
    content, stored = hashlib.sha256(), hashlib.sha256()
    counter = _Counter()
    objects: list[NewObject] = []
    for position, snapshot, event_id, lead_id in rows:
        counter.add(snapshot)
        content.update(snapshot + b"\n")
        stored.update(snapshot)
        digest = hashlib.sha256(snapshot)
        metadata = {
            "content-sha256": digest.hexdigest(),
            "event-count": "1",
            "first-position": str(position),
            "last-position": str(position),
            "format-version": FORMAT_VERSION,
        }
        objects.append(
            NewObject(
                key=event_key(prefix=prefix, lead_id=lead_id, event_id=event_id),
                body=snapshot,
                sha256=digest.digest(),
                content_type="application/json",
                metadata=metadata,
            )
        )
    counter.check(sealed)
    size = counter.content_bytes - counter.event_count
    return Rendering(tuple(objects), content.digest(), stored.digest(), size)


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a gzip object, in blocks; zlib.error where it is damaged or cut short."""
    decompressor = isal_zlib.decompressobj(_GZIP_WINDOW)
    for chunk in chunks:
        if not chunk:
            continue
        if decompressor.eof:
            raise zlib.error("data after the end of the gzip stream")
        try:
            block = decompressor.decompress(chunk)
        except _ISAL_ERROR as error:  # which is no zlib.error
            raise zlib.error(str(error)) from error
        yield block
    if not decompressor.eof:
        raise zlib.error("the gzip stream is cut short")
    if decompressor.unused_data:
        raise zlib.error("data after the end of the gzip stream")


class _Counter:
    """Counts events and their content bytes, line ends included."""

    def __init__(self) -> None:
        self.event_count = 0
        self.content_bytes = 0

    def add(self, snapshot: bytes) -> None:
        self.event_count += 1
        self.content_bytes += len(snapshot) + 1

    def count(self, snapshots: Iterable[bytes]) -> Iterator[bytes]:
        for snapshot in snapshots:
            self.add(snapshot)
            yield snapshot

    def check(self, sealed: SealedFile) -> None:
        if (self.event_count, self.content_bytes) != (sealed.event_count, sealed.content_bytes):
            raise LedgerMismatch(
                f"file {sealed.sequence} of stream {sealed.stream_id} was sealed with"
                f" {sealed.event_count} events ({sealed.content_bytes} bytes), but the outbox"
                f" now holds {self.event_count} ({self.content_bytes} bytes) in its range",
                hint="Events were removed from or added to the outbox behind its guards. Restore"
                " them, or find out who did it, then run `auditstore stream resume"
                f" {sealed.stream_id}`.",
            )


def _blocks(snapshots: Iterable[bytes]) -> Iterator[bytes]:
    """Lines in blocks cut by their content alone, so that compression is reproducible."""
    lines: list[bytes] = []
    size = 0
    for snapshot in snapshots:
        lines.append(snapshot)
        size += len(snapshot) + 1
        if size >= _BLOCK:
            yield b"\n".join(lines) + b"\n"
            lines, size = [], 0
    if lines:
        yield b"\n".join(lines) + b"\n"
