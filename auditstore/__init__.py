"""auditstore: an immutable outbox of lead events, exported exactly once and reconciled.

A flow engine needs only this::

    from auditstore import EventRepository

    with engine.begin() as connection:
        EventRepository().append(connection, events)
"""

from auditstore.errors import AuditStoreError, EventConflict, EventRefused
from auditstore.events import Event, StoredEvent
from auditstore.repository import AppendResult, EventRepository

__all__ = [
    "AppendResult",
    "AuditStoreError",
    "Event",
    "EventConflict",
    "EventRefused",
    "EventRepository",
    "StoredEvent",
]
