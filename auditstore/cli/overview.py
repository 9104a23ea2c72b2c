"""How far each stream is and what it waits for, asked of the database once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from auditstore import streams
from auditstore.cli.daemons import keeper_of
from auditstore.ledger import LedgerFile
from auditstore.sql import events, fence, leases, progress, schedules, server
from auditstore.sql.schedules import Schedule
from auditstore.sql.streams import last_position
from auditstore.streams import Stream

#: An open writer this old, in seconds, is shown as what holds the export back.
LONG_OPEN_S: Final = 1.0
#: Beyond its stream's own delay, in seconds, an event that waits is late.
LATE_S: Final = 10.0
#: The order in which states are shown, the worst first.
_WORST_FIRST: Final = ("halted", "blocked", "retrying", "late", "streaming", "disabled")


def is_long_open(writer: fence.OpenWriter) -> bool:
    """Whether it is worth showing. One whose age is hidden may be the oldest of all."""
    return writer.age is None or writer.age >= LONG_OPEN_S


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far one stream is; ``waiting`` events, the oldest since ``oldest``.

    ``daemon`` is the living one that has it, with the fence that it reads behind.
    """

    stream: Stream
    waiting: int
    oldest: datetime | None
    last_file: LedgerFile | None
    daemon: Any | None

    def lag(self, now: datetime) -> float:
        """Seconds since the oldest event that is not in the store was appended."""
        return 0.0 if self.oldest is None else max(0.0, (now - self.oldest).total_seconds())

    def is_late(self, now: datetime) -> bool:
        """Whether an event waits for longer than its stream's delay explains."""
        return self.lag(now) > self.stream.limits.max_delay + LATE_S

    def standing(self, now: datetime) -> str:
        """The state, or ``late`` for a stream that has no trouble and is behind all the same."""
        state = self.stream.shown_state
        return "late" if state == "streaming" and self.is_late(now) else state

    @property
    def fence_age(self) -> float | None:
        """Seconds since what may be read was all that there was; reported every few seconds."""
        return None if self.daemon is None else self.daemon.fence_age


@dataclass(frozen=True, slots=True)
class Overview:
    """All that `status` shows, at the server's time ``now``; the worst streams first."""

    now: datetime
    position: int
    streams: Sequence[StreamProgress]
    daemons: Sequence[Any]
    writers: Sequence[fence.OpenWriter]
    schedules: Mapping[int, Sequence[Schedule]] = field(default_factory=dict)

    def holding(self, each: StreamProgress) -> Sequence[fence.OpenWriter]:
        """The transactions that a stream's waiting events wait for, the oldest first."""
        if not each.waiting or not each.stream.enabled:
            return ()
        return [writer for writer in self.writers if is_long_open(writer)]


def overview(connection: Connection) -> Overview:
    """Ask the database."""
    position = last_position(connection)
    writers = fence.open_writers(connection)
    daemons = leases.list_daemons(connection)
    now = server.clock(connection)
    found = [progress_of(connection, each, daemons, now) for each in streams.find(connection)]
    planned: defaultdict[int, list[Schedule]] = defaultdict(list)
    for each in schedules.find(connection):
        planned[each.stream_id].append(each)
    # The clock last, so that nothing seems to lie in the future.
    now = server.clock(connection)
    found.sort(key=lambda each: (_WORST_FIRST.index(each.standing(now)), each.stream.stream_id))
    return Overview(now=now, position=position, streams=found, daemons=daemons, writers=writers,
                    schedules=planned)  # fmt: skip


def progress_of(
    connection: Connection, stream: Stream, daemons: Sequence[Any], now: datetime
) -> StreamProgress:
    """How far one stream is, at the server's time ``now``."""
    sealed = progress.undelivered(connection, stream.stream_id)
    count, oldest = (
        events.waiting(connection, stream.flow_id, after=stream.sealed_position)
        if stream.enabled
        else (0, None)
    )
    return StreamProgress(
        stream=stream,
        waiting=sealed.events + count,
        oldest=min((each for each in (sealed.oldest, oldest) if each), default=None),
        last_file=progress.last_delivered(connection, stream.stream_id),
        daemon=keeper_of(stream, daemons, now),
    )
