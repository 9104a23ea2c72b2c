"""A writer that takes its time: its transaction stays open from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from support.lead_events import lead_event

from auditstore import EventRepository


class Writer:
    """A connection with at most one open transaction, and the events in it."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self.events: list[bytes] = []

    def append(self, flow: str, count: int) -> None:
        """Append in the open transaction, or in a new one."""
        if self._connection is None:
            self._connection = self._engine.connect()
        made = [lead_event(flow) for _ in range(count)]
        EventRepository().append(self._connection, made)
        self.events += made

    def append_and_regret(self, flow: str, count: int) -> None:
        """Append inside a savepoint, and roll back to it: the positions stay taken."""
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin_nested() as savepoint:
            EventRepository().append(self._connection, [lead_event(flow) for _ in range(count)])
            savepoint.rollback()

    def end(self, how: Callable[[Connection], Any]) -> list[bytes]:
        """End the transaction; return what was in it."""
        connection, events = self._connection, self.events
        self._connection, self.events = None, []
        if connection is not None:
            how(connection)
            connection.close()
        return events
