"""A world as plain values: what lies in the store, in the outbox and in the ledger.

Damages change a picture and nothing else; :class:`~reconciliation.damage.world.World` makes the
real store and the real database look like one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from auditstore.layout import join
from auditstore.ledger import LedgerFile

Layout = Literal["ndjson.gz", "json"]
_EVENT_ID = re.compile(r"[0-9a-fA-F]{24}", re.ASCII)
_RESERVED_FLAGS = 0xE0


@dataclass(frozen=True)
class Row:
    """An event of the outbox; ``sha256`` is the column, which may not be that of the payload."""

    position: int
    event_id: str
    payload: bytes
    sha256: bytes

    @classmethod
    def of(cls, position: int, payload: bytes) -> Row:
        """As appending makes it."""
        return cls(position, event_id_of(payload) or "", payload, digest(payload))

    def now(self, payload: bytes) -> Row:
        """The event with another payload, and the hash that belongs to it."""
        return replace(self, payload=payload, sha256=digest(payload))

    @property
    def is_intact(self) -> bool:
        """Whether the payload is what the hash says."""
        return digest(self.payload) == self.sha256


@dataclass(frozen=True)
class Delivered:
    """An object as the exporter wrote it: of a whole file, or of one event."""

    key: str
    sequence: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Facts:
    """What no damage changes.

    ``keys`` is where one object an event lies. ``spare`` are events that were never appended, at
    positions that no event ever got.
    """

    layout: Layout
    prefix: str
    delivered: tuple[Delivered, ...]
    keys: dict[str, str]
    spare: tuple[Row, ...]
    sealed_position: int
    delivered_sequence: int


@dataclass
class Picture:
    """Everything that can be damaged: objects by key, events by position, ledger by sequence."""

    facts: Facts
    objects: dict[str, bytes]
    rows: dict[int, Row]
    ledger: dict[int, LedgerFile]
    head: bytes

    def copy(self) -> Picture:
        """One to change."""
        return replace(
            self, objects=dict(self.objects), rows=dict(self.rows), ledger=dict(self.ledger)
        )

    @property
    def is_lines(self) -> bool:
        """Whether a file is one object of many lines."""
        return self.facts.layout == "ndjson.gz"

    def named(self, name: str) -> str:
        """A key below the stream's prefix."""
        return join(self.facts.prefix, name)

    # --- what there is to damage ------------------------------------------------------

    def target(self, number: int) -> Delivered:
        """One of the objects that were delivered, whatever became of it."""
        return self.facts.delivered[number % len(self.facts.delivered)]

    def row(self, number: int) -> Row:
        """One of the events, as it was appended."""
        rows = [row for each in self.facts.delivered for row in each.rows]
        return rows[number % len(rows)]

    def holder(self, position: int) -> Delivered:
        """The object in which an event was delivered."""
        return next(
            each
            for each in self.facts.delivered
            if any(row.position == position for row in each.rows)
        )

    # --- reading and writing objects ----------------------------------------------------

    def content(self, key: str) -> bytes | None:
        """An object's content; ``None`` if it is not there, or cannot be read."""
        body = self.objects.get(key)
        if body is None or not self.is_lines:
            return body
        return unpacked(body)

    def lines(self, key: str) -> list[bytes] | None:
        """The lines of an object that can be read; an event's object is one."""
        content = self.content(key)
        if content is None:
            return None
        return split(content) if self.is_lines else [content]

    def write_lines(self, key: str, lines: list[bytes], *, end: bytes = b"\n") -> None:
        """Replace an object by one with other lines."""
        content = b"\n".join(lines)
        self.objects[key] = packed(content + end if lines else b"") if self.is_lines else content


def digest(content: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(content).digest()


def split(content: bytes) -> list[bytes]:
    """The lines, with or without an end behind the last."""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def packed(content: bytes, level: int = 6) -> bytes:
    """As gzip, but not as the exporter packs it."""
    return gzip.compress(content, level, mtime=0)


def unpacked(body: bytes) -> bytes | None:
    """What a gzip file holds, by Python's own reader; ``None`` if it is damaged."""
    if len(body) > 3 and body[3] & _RESERVED_FLAGS:
        return None  # RFC 1952 says so, and Python's reader does not look
    try:
        return gzip.decompress(body) if body else None
    except (OSError, EOFError, zlib.error):
        return None


def readable_part(body: bytes) -> bytes:
    """What a gzip file holds before the place where it is damaged, byte for byte."""
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    content = b""
    with suppress(zlib.error):
        for byte in body:
            content += decoder.decompress(bytes([byte]))
    return content


def event_id_of(line: bytes) -> str | None:
    """The id of the event on a line; ``None`` if it is no event."""
    try:
        fields = json.loads(line.decode())
    except ValueError:
        return None
    found = fields.get("id") if isinstance(fields, dict) else None
    return found.lower() if isinstance(found, str) and _EVENT_ID.fullmatch(found) else None


def edited(payload: bytes, how: str) -> bytes:
    """The event with another reason; of the same length if ``how`` is of 8 letters."""
    return json.dumps(json.loads(payload) | {"reason": how}).encode()
