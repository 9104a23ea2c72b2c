"""Which object holds an event, in the form of the stream's own URL."""

from __future__ import annotations

from urllib.parse import quote

from auditstore.events import StoredEvent
from auditstore.layout import event_key
from auditstore.ledger import LedgerFile
from auditstore.streams import Stream


def object_key(stream: Stream, stored: StoredEvent, file: LedgerFile) -> str:
    """The key of the object that holds an event: the file's, or in the format json its own."""
    if file.sealed.format != "json":
        return file.sealed.object_key
    return event_key(
        prefix=stream.destination.prefix, lead_id=stored.event.lead_id,
        event_id=stored.event.event_id,
    )  # fmt: skip


def object_url(stream: Stream, key: str) -> str:
    """``s3://bucket/key``; for a folder the path as a URL."""
    destination = stream.destination
    if destination.scheme == "file":
        # A key's own percent signs are part of the file's name.
        return f"{destination.url}/{quote(key, safe='/=')}"
    return f"{destination.scheme}://{destination.bucket}/{key}"
