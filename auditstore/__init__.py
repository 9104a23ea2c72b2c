"""auditstore: an immutable outbox of lead events, exported exactly once and reconciled.

A flow engine needs only this::

    from auditstore import EventRepository

    with engine.begin() as connection:
        EventRepository().append(connection, events)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from auditstore.errors import AuditStoreError, EventConflict, EventRefused
from auditstore.events import Event, StoredEvent
from auditstore.repository import AppendResult, EventRepository

if TYPE_CHECKING:
    from auditstore.appender import GroupAppender
    from auditstore.call_queue import AppenderLimits

__all__ = [
    "AppendResult",
    "AppenderLimits",
    "AuditStoreError",
    "Event",
    "EventConflict",
    "EventRefused",
    "EventRepository",
    "GroupAppender",
    "StoredEvent",
]


def __getattr__(name: str) -> Any:
    """The appender is loaded when it is asked for: most programs append without it."""
    if name in ("AppenderLimits", "GroupAppender"):
        from auditstore import appender, call_queue  # noqa: PLC0415  # as said

        return getattr(appender if name == "GroupAppender" else call_queue, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
