"""How far each stream is, as `auditstore status` and `auditstore stream` show it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from auditstore.ledger import LedgerFile
from auditstore.sql import ledger
from auditstore.sql.tables import files


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The sealed files of a stream that are not in the store yet."""

    files: int
    events: int
    oldest: datetime | None


def undelivered(connection: Connection, stream_id: int) -> Undelivered:
    """What is sealed and not delivered, and when its oldest event was recorded."""
    statement = select(
        func.count(), func.coalesce(func.sum(files.c.event_count), 0),
        func.min(files.c.first_recorded_at),
    ).where(files.c.stream_id == stream_id, files.c.delivered_at.is_(None))  # fmt: skip
    count, events, oldest = connection.execute(statement).one()
    return Undelivered(files=count, events=int(events), oldest=oldest)


def last_delivered(connection: Connection, stream_id: int) -> LedgerFile | None:
    """The newest file of a stream that lies in its store."""
    sequence = connection.execute(
        select(func.max(files.c.sequence)).where(
            files.c.stream_id == stream_id, files.c.delivered_at.is_not(None)
        )
    ).scalar_one()
    return None if sequence is None else ledger.one_file(connection, stream_id, sequence)


def file_holding(connection: Connection, stream_id: int, position: int) -> LedgerFile | None:
    """The file that an event's position is sealed in.

    The caller has checked that the event is of the stream's flow: ranges of files also span
    the positions of other flows' events.
    """
    sequence = connection.execute(
        select(files.c.sequence).where(
            files.c.stream_id == stream_id,
            files.c.first_position <= position,
            files.c.last_position >= position,
        )
    ).scalar_one_or_none()
    return None if sequence is None else ledger.one_file(connection, stream_id, sequence)
