"""The flow engine's side: append events inside its own transaction, and read them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from sqlalchemy import Connection

from auditstore.errors import ConfigurationError, DatabaseUnavailable
from auditstore.events import DEFAULT_MAX_EVENT_BYTES, Event, StoredEvent
from auditstore.sql import events as sql
from auditstore.sql.events import EventFilter, Order
from auditstore.sql.failures import translated
from auditstore.taking import SELF_CONTAINED, Key, Snapshot, Taken, key, offered, unstored

# Measured: from three events on, a savepoint and a COPY cost less than an INSERT each.
COPY_FROM: Final = 3
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class AppendResult:
    """How many events a call appended, and how many were there already, unchanged."""

    appended: int
    existing: int


class EventRepository:
    """Appends to and reads from the outbox on a connection that the caller owns.

    It never begins, commits or rolls back the caller's transaction. It holds no state, so one
    instance may be shared by threads; from asyncio use ``AsyncConnection.run_sync``.
    """

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes

    def append(
        self,
        connection: Connection,
        events: Snapshot | Iterable[Snapshot],
        *,
        flow_id: str | None = None,
        lead_id: str | None = None,
    ) -> AppendResult:
        """Append one event or many, all or none, in the caller's transaction.

        An event is a mapping, JSON as ``bytes`` or ``str`` (kept byte for byte), or an
        :class:`Event`. ``flow_id`` and ``lead_id`` serve events that do not carry
        ``vars.flow.id`` and ``vars.lead.id``.

        An event whose id is stored with the same content is counted as existing.

        Raises :class:`EventRefused` for an event that cannot be stored and
        :class:`EventConflict` for a stored id with other content; then nothing of the call was
        appended and the caller's transaction is still usable. Raises
        :class:`DatabaseUnavailable` or :class:`DatabaseRefused` for the server's own errors,
        after which the caller rolls back.
        """
        check_connection(connection)
        many = offered(events)
        new = Taken(many, flow_id=flow_id, lead_id=lead_id, max_bytes=self._max_event_bytes)
        if len(many) < COPY_FROM or not all(isinstance(each, SELF_CONTAINED) for each in many):
            # Reading a foreign mapping may need the very connection that COPY occupies.
            new.all()
        with translated():
            if len(many) < COPY_FROM:
                appended = _insert_each(connection, new.events)
            else:
                appended = _copy_all(connection, new)
        return AppendResult(appended=appended, existing=new.given - appended)

    def get(
        self, connection: Connection, event_id: str, *, flow_id: str | None = None
    ) -> list[StoredEvent]:
        """The events with this id: one, or one a flow where flows share it, or none."""
        wanted = EventFilter(event_id=event_id.lower(), flow_id=flow_id)
        return sql.page(connection, wanted, order="asc", limit=_PAGE)

    def lead(self, connection: Connection, lead_id: str) -> Iterator[StoredEvent]:
        """Every event of a lead in the order of event ids, late feedback included."""
        return self.iterate(connection, EventFilter(lead_id=lead_id))

    def find(
        self,
        connection: Connection,
        *,
        flow_id: str | None = None,
        lead_id: str | None = None,
        type: str | None = None,  # noqa: A002  # the field's name in the domain
        outcome: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        order: Order = "asc",
        limit: int = 100,
    ) -> list[StoredEvent]:
        """Up to ``limit`` events in the order of their ids (then flows).

        ``start`` (inclusive) and ``end`` (exclusive) are aware datetimes that bound the
        creation time in the event id. Page with ``after_id`` or ``before_id`` (exclusive).
        """
        if limit < 1:
            raise ConfigurationError(f"limit is {limit}", hint="Ask for at least one event.")
        for bound in (start, end):
            if bound is not None and bound.tzinfo is None:
                raise ConfigurationError(
                    f"{bound.isoformat()} has no time zone", hint="Give aware datetimes."
                )
        wanted = EventFilter(
            flow_id=flow_id, lead_id=lead_id, type=type, outcome=outcome, start=start, end=end,
            after_id=after_id and after_id.lower(), before_id=before_id and before_id.lower(),
        )  # fmt: skip
        return sql.page(connection, wanted, order=order, limit=limit)

    def iterate(
        self, connection: Connection, wanted: EventFilter, *, order: Order = "asc"
    ) -> Iterator[StoredEvent]:
        """All events that match, page by page on the key, so memory stays flat."""
        after: Key | None = None
        while True:
            found = sql.page(connection, wanted, order=order, limit=_PAGE, after=after)
            yield from found
            if len(found) < _PAGE:
                return
            after = (found[-1].event.flow_id, found[-1].event.event_id)


def check_connection(connection: Connection) -> None:
    """Raise ConfigurationError where an append could be altered or half done."""
    if connection.dialect.name != "postgresql" or "psycopg" not in connection.dialect.driver:
        raise ConfigurationError(
            f"cannot append through {connection.dialect.name}+{connection.dialect.driver}",
            hint="Use an engine for postgresql+psycopg:// (psycopg 3).",
        )
    driver: Any = connection.connection.dbapi_connection
    encoding = connection.connection.driver_connection.info.encoding  # type: ignore[union-attr]  # psycopg's, as checked
    if encoding != "utf-8":
        # The server would convert the snapshot's bytes, which are UTF-8 already.
        raise ConfigurationError(
            f"the connection's client_encoding is {encoding}, so events would be altered",
            hint="Remove PGCLIENTENCODING or client_encoding, or set it to UTF8.",
        )
    if driver.autocommit:
        raise ConfigurationError(
            "the connection is in autocommit mode, so an append could be half done",
            hint="Append inside a transaction, for example `with engine.begin() as connection`.",
        )


def _insert_each(connection: Connection, new: Sequence[Event]) -> int:
    if len(new) == 1:
        # One statement is atomic by itself; a savepoint would double the round trips.
        return _insert(connection, new[0])
    with connection.begin_nested():
        return sum(_insert(connection, event) for event in new)


def _insert(connection: Connection, event: Event) -> int:
    if sql.insert(connection, event):
        return 1
    stored = sql.stored_hashes(connection, [key(event)])
    unstored([event], stored)
    return 0


def _copy_all(connection: Connection, new: Taken) -> int:
    """COPY, hoping that all are new and good; where some are stored, COPY the others.

    The first COPY checks each event while the server stores those before it; a refusal takes
    it back. Each further round ends, or finds at least one more event stored by somebody else
    meanwhile.
    """
    coming: Iterable[Event] = new if not new.events else new.events
    while True:
        try:
            with connection.begin_nested():
                sql.copy(connection, coming)
            break
        except psycopg.errors.UniqueViolation as error:
            remaining = new.all() if coming is new else list(coming)
            stored = sql.stored_hashes(connection, [key(event) for event in remaining])
            coming = unstored(remaining, stored)
            if len(coming) == len(remaining):
                # Under REPEATABLE READ the other writer's commit stays invisible.
                raise DatabaseUnavailable(
                    "another transaction appended some of these events meanwhile",
                    hint="Roll back and append again.",
                ) from error
            if not coming:
                return 0
    return len(new.events if coming is new else list(coming))
