"""The ledger: one row a file, sealed before anything leaves the database, delivered once.

Each delivered row carries the hash of the one before it, so a stream is a hash chain: whoever
keeps the newest hash can tell whether any earlier row was altered, added or taken away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

#: What the first file of a stream is chained to.
GENESIS: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A frozen range of one flow's events; from here on a file's content is fixed.

    ``content_bytes`` is the uncompressed size with line ends. Positions are inclusive.
    ``object_key`` is the file's full key or, in the format ``json``, the pattern of its keys.
    """

    stream_id: int
    sequence: int
    first_position: int
    last_position: int
    event_count: int
    content_bytes: int
    first_recorded_at: datetime
    last_recorded_at: datetime
    format: str
    encoder: str
    object_key: str
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """What lies in the store: digests of 32 bytes, ``object_bytes`` as stored (compressed).

    In the format ``json`` these speak of all the objects of the file, laid end to end.
    """

    content_sha256: bytes
    object_bytes: int
    object_sha256: bytes
    etag: str | None
    version_id: str | None


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """A ledger row: sealed, and delivered once the rest is there."""

    sealed: SealedFile
    delivery: Delivery | None
    delivered_at: datetime | None
    previous_hash: bytes | None
    row_hash: bytes | None


def row_hash(
    previous: bytes, sealed: SealedFile, delivery: Delivery, delivered_at: datetime
) -> bytes:
    """SHA-256 over the previous row's hash and every field of this row.

    The fields are a JSON array, in the order of ``docs/reference/ledger.md``, times as UTC
    microseconds since the epoch, digests as hex, without white space.
    """
    fields: Sequence[object] = (
        previous.hex(),
        sealed.stream_id,
        sealed.sequence,
        sealed.first_position,
        sealed.last_position,
        sealed.event_count,
        sealed.content_bytes,
        _micros(sealed.first_recorded_at),
        _micros(sealed.last_recorded_at),
        sealed.format,
        sealed.encoder,
        sealed.object_key,
        _micros(sealed.sealed_at),
        _micros(delivered_at),
        delivery.content_sha256.hex(),
        delivery.object_bytes,
        delivery.object_sha256.hex(),
        delivery.etag,
        delivery.version_id,
    )
    return hashlib.sha256(orjson.dumps(fields)).digest()


def _micros(moment: datetime) -> int:
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
