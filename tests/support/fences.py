"""Fences and the transactions that they must see, opened step by step by a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from auditstore.repository import EventRepository
from exporters.fence import Fence
from support.lead_events import id_of, lead_event

FLOW = "flow-1"


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection as the exporter opens it for its fence."""
    with engine.connect() as plain:
        yield plain.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def open_fence(engine: Engine) -> Iterator[Fence]:
    """A fence on a connection of its own."""
    with autocommit(engine) as connection:
        yield Fence(connection)


def append(connection: Connection, count: int = 1) -> list[int]:
    """Append events in the connection's transaction; return the positions they were given."""
    snapshots = [lead_event(FLOW) for _ in range(count)]
    EventRepository().append(connection, snapshots)
    return [position_of(connection, snapshot) for snapshot in snapshots]


def append_one(engine: Engine) -> int:
    """Append and commit one event; return its position."""
    with engine.begin() as connection:
        (position,) = append(connection)
    return position


def position_of(connection: Connection, snapshot: bytes) -> int:
    """Where an event lies."""
    return int(
        connection.execute(
            sa.text("SELECT position FROM auditstore.events WHERE event_id = :id"),
            {"id": id_of(snapshot)},
        ).scalar_one()
    )


def read_upto(connection: Connection, fence: int, *, after: int = 0) -> list[int]:
    """The positions that a reader behind the fence gets, in a statement of its own."""
    found = connection.execute(
        sa.text(
            "SELECT position FROM auditstore.events"
            " WHERE position > :after AND position <= :fence ORDER BY position"
        ),
        {"after": after, "fence": fence},
    )
    return list(found.scalars())
