"""Seals and records what waits, in the database's own terms: an exporter for tests of commands.

It is no stand-in for the daemon's behaviour; it only makes ledger rows as the daemon does.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, Engine

from auditstore import streams
from auditstore.layout import file_key
from auditstore.ledger import Delivery, SealedFile, row_hash
from auditstore.sql import events, leases, ledger, server
from auditstore.streams import Stream


def announce(engine: Engine) -> None:
    """Be seen as a living daemon."""
    with engine.begin() as connection:
        leases.announce(connection, daemon_id="test", host="here", pid=1, version="0")


def seal(connection: Connection, stream_id: int) -> SealedFile | None:
    """Seal everything that waits into one file."""
    stream = streams.get(connection, stream_id, lock=True)
    rows = list(
        events.tail(connection, stream.flow_id, after=stream.sealed_position, upto=2**62, limit=100)
    )
    if not rows:
        return None
    first, last = rows[0], rows[-1]
    sequence = stream.sealed_sequence + 1
    sealed = SealedFile(
        stream_id=stream_id, sequence=sequence,
        first_position=first.position, last_position=last.position, event_count=len(rows),
        content_bytes=sum(row.size_bytes + 1 for row in rows),
        first_recorded_at=first.recorded_at, last_recorded_at=last.recorded_at,
        format=stream.format, encoder="test", object_key=_key(stream, sequence, first, last),
        sealed_at=first.recorded_at,
    )  # fmt: skip
    ledger.insert_sealed(connection, sealed)
    ledger.move_sealed_mark(connection, stream_id, sequence, last.position)
    return sealed


def deliver(connection: Connection, stream_id: int) -> None:
    """Record every sealed file as delivered."""
    while sealed := ledger.next_undelivered(connection, stream_id):
        stream = streams.get(connection, stream_id, lock=True)
        digest = hashlib.sha256(sealed.object_key.encode()).digest()
        delivery = Delivery(digest, 100, digest, None, None)
        now = server.clock(connection)
        ledger.record_delivery(
            connection, sealed, delivery, delivered_at=now, previous_hash=stream.chain_hash,
            row_hash=row_hash(stream.chain_hash, sealed, delivery, now),
        )  # fmt: skip


def _key(stream: Stream, sequence: int, first: events.TailRow, last: events.TailRow) -> str:
    if stream.format == "json":
        return stream.key_template
    return file_key(
        stream.key_template, prefix=stream.destination.prefix, flow_id=stream.flow_id,
        stream_id=stream.stream_id, sequence=sequence, first=first.position, last=last.position,
        recorded_at=first.recorded_at,
    )  # fmt: skip
