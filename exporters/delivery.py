"""From a sealed row to objects in the store, exactly once.

Render the frozen range, put it create-only, record it in order. A crash anywhere resumes at
the sealed row: the same keys, the same bytes. An object that is there already counts as
delivered when its content is the same, and halts the stream when it is not.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final

from sqlalchemy import Connection

from auditstore import streams
from auditstore.errors import LedgerMismatch, ObjectConflict
from auditstore.ledger import Delivery, LedgerFile, SealedFile, row_hash
from auditstore.objects import NewObject, ObjectInfo, ObjectStore, PutResult
from auditstore.sql import events as events_sql
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import server
from auditstore.streams import Stream
from exporters import history
from exporters.encoding import Rendering, decompress, render_events, render_file

# Objects of one file in flight at a time, in the layout of one object an event.
_PARALLEL_PUTS: Final = 8


def render(connection: Connection, stream: Stream, sealed: SealedFile) -> Rendering:
    """Read a sealed range and make the objects of it; LedgerMismatch if it has changed."""
    range_ = (stream.flow_id, sealed.first_position, sealed.last_position)
    # Closed whatever happens here: while a COPY is open, the connection cannot even roll back,
    # and would wait for it for ever.
    if sealed.format == "json":
        with closing(events_sql.payloads_and_ids(connection, *range_)) as rows:
            return render_events(rows, sealed, prefix=stream.destination.prefix)
    with closing(events_sql.payloads(connection, *range_)) as snapshots:
        return render_file(snapshots, sealed)


def put(rendering: Rendering, sealed: SealedFile, store: ObjectStore) -> Delivery:
    """Create the objects unless they are there; return what lies in the store now.

    Harmless to repeat. Raises ObjectConflict, StoreUnavailable or StoreRefused.
    """
    if sealed.format == "json":
        _put_each(rendering, sealed.stream_id, store)
        return _delivery(rendering, rendering.object_bytes, rendering.object_sha256, None)
    (new,) = rendering.objects
    result = store.put_if_absent(new)
    if result.created:
        return _delivery(rendering, len(new.body), new.sha256, result.info)
    size, sha256 = _compare(new, rendering.content_sha256, sealed.stream_id, store)
    return _delivery(rendering, size, sha256, store.head(new.key))


def record(connection: Connection, sealed: SealedFile, delivery: Delivery) -> bool:
    """Record a delivery, in the caller's transaction and in order of sequence.

    Returns False when another worker has recorded the same one meanwhile. Raises HistoryLost
    when the ledger lacks what was sealed, as after a failover during the upload.
    """
    ledger_sql.insist_on_durable_commit(connection)
    stream = streams.get(connection, sealed.stream_id, lock=True)
    known = ledger_sql.one_file(connection, sealed.stream_id, sealed.sequence)
    if known is None or known.sealed != sealed:
        raise history.lost(
            stream, f"{sealed.object_key} was sealed and stored, but the ledger lacks it"
        )
    if stream.delivered_sequence >= sealed.sequence:
        return False
    if stream.delivered_sequence != sealed.sequence - 1:
        raise LedgerMismatch(
            f"file {sealed.sequence} of stream {sealed.stream_id} would be recorded after file"
            f" {stream.delivered_sequence}",
            hint="The ledger was changed by hand; restore it from a backup.",
        )
    delivered_at = server.clock(connection)
    ledger_sql.record_delivery(
        connection,
        sealed,
        delivery,
        delivered_at=delivered_at,
        previous_hash=stream.chain_hash,
        row_hash=row_hash(stream.chain_hash, sealed, delivery, delivered_at),
    )
    return True


def restore(connection: Connection, stream: Stream, file: LedgerFile, store: ObjectStore) -> bool:
    """Put what is missing of a delivered file back, its content identical; create-only.

    Returns whether anything was written. Raises LedgerMismatch when the outbox no longer holds
    the content that was delivered.
    """
    sealed, rendering = file.sealed, rehearse(connection, stream, file)
    if sealed.format == "json":
        return _put_each(rendering, sealed.stream_id, store) > 0
    (new,) = rendering.objects
    result = store.put_if_absent(new)
    if not result.created:
        _compare(new, rendering.content_sha256, sealed.stream_id, store)
    return result.created


def rehearse(connection: Connection, stream: Stream, file: LedgerFile) -> Rendering:
    """Make ready what would put a delivered file back, and write nothing.

    Raises LedgerMismatch when the outbox no longer holds the content that was delivered.
    """
    sealed = file.sealed
    if file.delivery is None:
        raise LedgerMismatch(
            f"file {sealed.sequence} of stream {stream.stream_id} is not delivered yet",
            hint="The exporter delivers it; run `auditstore export run`.",
        )
    rendering = render(connection, stream, sealed)
    if rendering.content_sha256 != file.delivery.content_sha256:
        raise LedgerMismatch(
            f"file {sealed.sequence} of stream {sealed.stream_id} was delivered with the content"
            f" {file.delivery.content_sha256.hex()}, but the outbox now gives"
            f" {rendering.content_sha256.hex()}",
            hint="The outbox was altered behind its guards; it cannot put this file back.",
        )
    return rendering


def _put_each(rendering: Rendering, stream_id: int, store: ObjectStore) -> int:
    """Put many objects; return how many were created."""

    def put_one(new: NewObject) -> PutResult:
        result = store.put_if_absent(new)
        if not result.created:
            _compare(new, new.sha256, stream_id, store)
        return result

    with ThreadPoolExecutor(_PARALLEL_PUTS, thread_name_prefix="put") as pool:
        return sum(result.created for result in pool.map(put_one, rendering.objects))


def _compare(
    new: NewObject, content_sha256: bytes, stream_id: int, store: ObjectStore
) -> tuple[int, bytes]:
    """Size and SHA-256 of the object that is there; ObjectConflict unless its content is ours.

    The content counts, not the stored bytes: another release may compress differently.
    """
    stored, content, size = hashlib.sha256(), hashlib.sha256(), 0

    def hashed(chunks: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            stored.update(chunk)
            size += len(chunk)
            yield chunk

    chunks = store.read(new.key)
    same = chunks is not None
    try:
        found = hashed(chunks or ())
        for block in decompress(found) if new.content_encoding == "gzip" else found:
            content.update(block)
    except zlib.error:
        same = False
    if not same or content.digest() != content_sha256:
        raise ObjectConflict(
            f"the object {new.key} is there already, with other content",
            hint="Somebody else wrote it, and it is never overwritten. Move it away, then run"
            f" `auditstore stream resume {stream_id}`.",
        )
    return size, stored.digest()


def _delivery(rendering: Rendering, size: int, sha256: bytes, info: ObjectInfo | None) -> Delivery:
    return Delivery(
        content_sha256=rendering.content_sha256,
        object_bytes=size,
        object_sha256=sha256,
        etag=info.etag if info else None,
        version_id=info.version_id if info else None,
    )
