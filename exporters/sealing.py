"""Sealing: freeze the next range of a stream before anything of it leaves the database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from auditstore import streams
from auditstore.layout import file_key, join
from auditstore.ledger import SealedFile
from auditstore.sql import events as events_sql
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import server
from auditstore.sql.events import TailRow
from auditstore.streams import Limits, Stream
from exporters.encoding import ENCODERS

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of the next file, as far as sealing knows them; ``content_bytes`` with line
    ends. The recorded times are the earliest and the latest.
    """

    first_position: int
    last_position: int
    event_count: int
    content_bytes: int
    first_recorded_at: datetime
    last_recorded_at: datetime


@dataclass(frozen=True, slots=True)
class NotDue:
    """Events wait, but no file is due for ``due_in`` seconds unless more of them come."""

    due_in: float


def cut(
    rows: Iterable[TailRow], limits: Limits, *, now: datetime, flush: bool = False
) -> Batch | NotDue | None:
    """Take the next file off the front of ``rows``, or say when it is due; None without rows.

    A file ends at the limit of events or bytes and at the UTC hour of ``recorded_at``. One that
    has not ended is due when its oldest event is ``max_delay`` old, or its hour is over, or
    with ``flush``. An event larger than the limit makes a file of its own.
    """
    max_bytes, max_events = limits.max_bytes, limits.max_events
    count = size = first = last = 0
    earliest = latest = hour_begins = hour_ends = now
    # Every waiting event passes here while its stream is locked, so nothing is worked out twice.
    for position, size_bytes, recorded_at in rows:
        if not count:
            first, earliest, latest = position, recorded_at, recorded_at
            hour_begins = _hour(recorded_at)
            hour_ends = hour_begins + _HOUR
        elif size + size_bytes >= max_bytes or not hour_begins <= recorded_at < hour_ends:
            break
        count, size, last = count + 1, size + size_bytes + 1, position
        if recorded_at < earliest:
            earliest = recorded_at
        elif recorded_at > latest:
            latest = recorded_at
        if count >= max_events or size >= max_bytes:
            break
    else:
        if not count:
            return None
        due_at = earliest + timedelta(seconds=limits.max_delay)
        if not flush and now < due_at and hour_begins <= now < hour_ends:
            due_at = min(due_at, hour_ends)
            return NotDue((due_at - now).total_seconds())
    return Batch(first, last, count, size, earliest, latest)


def seal(
    connection: Connection, stream_id: int, *, fence: int, flush: bool = False
) -> SealedFile | NotDue | None:
    """Seal the stream's next file, in the caller's transaction, or say why there is none.

    ``fence`` is a safe position, taken before this is called. Returns None when nothing waits.
    """
    stream = streams.get(connection, stream_id, lock=True)
    if not stream.enabled:
        return None
    now = server.clock(connection)
    batch = _cut_next(connection, stream, fence=fence, now=now, flush=flush)
    if not isinstance(batch, Batch):
        return batch
    ledger_sql.insist_on_durable_commit(connection)
    sealed = _sealed(stream, batch, now)
    ledger_sql.insert_sealed(connection, sealed)
    ledger_sql.move_sealed_mark(connection, stream_id, sealed.sequence, sealed.last_position)
    return sealed


def foresee(
    connection: Connection, stream: Stream, last: SealedFile, *, fence: int
) -> SealedFile | None:
    """What :func:`seal` will make of the stream as it is after ``last``, if that is sure by now.

    It is sure of a file that has ended or is due by its delay, as long as nobody changes the
    stream: below a safe fence nothing is added.
    """
    after = replace(stream, sealed_sequence=last.sequence, sealed_position=last.last_position)
    now = server.clock(connection)
    batch = _cut_next(connection, after, fence=fence, now=now)
    return _sealed(after, batch, now) if isinstance(batch, Batch) else None


def _cut_next(
    connection: Connection, stream: Stream, *, fence: int, now: datetime, flush: bool = False
) -> Batch | NotDue | None:
    rows = events_sql.tail(
        connection,
        stream.flow_id,
        after=stream.sealed_position,
        upto=fence,
        limit=stream.limits.max_events,
    )
    return cut(rows, stream.limits, now=now, flush=flush)


def _sealed(stream: Stream, batch: Batch, now: datetime) -> SealedFile:
    sequence = stream.sealed_sequence + 1
    if stream.format == "json":
        key = join(stream.destination.prefix, stream.key_template)
    else:
        key = file_key(
            stream.key_template,
            prefix=stream.destination.prefix,
            flow_id=stream.flow_id,
            stream_id=stream.stream_id,
            sequence=sequence,
            first=batch.first_position,
            last=batch.last_position,
            recorded_at=batch.first_recorded_at,
        )
    return SealedFile(
        stream_id=stream.stream_id,
        sequence=sequence,
        first_position=batch.first_position,
        last_position=batch.last_position,
        event_count=batch.event_count,
        content_bytes=batch.content_bytes,
        first_recorded_at=batch.first_recorded_at,
        last_recorded_at=batch.last_recorded_at,
        format=stream.format,
        encoder=ENCODERS[stream.format],
        object_key=key,
        sealed_at=now,
    )


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
