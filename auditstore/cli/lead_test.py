"""``auditstore stream test --lead``: from a lead's events to the files that hold them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.daemons import any_alive
from auditstore.cli.display import busy, show, write_json
from auditstore.cli.object_urls import object_key, object_url
from auditstore.cli.wording import age, number
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.events import StoredEvent
from auditstore.ledger import LedgerFile
from auditstore.repository import EventRepository
from auditstore.sql import progress
from auditstore.streams import Stream

_POLL_S = 0.1
_STOPPED = ("blocked", "halted")


@dataclass(frozen=True, slots=True)
class _Delivered:
    """The test lead's events, each with the delivered file that holds it."""

    events: Sequence[StoredEvent]
    files: Sequence[LedgerFile]

    @property
    def delay(self) -> float:
        """Seconds from the last event's append to the last file's delivery, by the server."""
        delivered = max(file.delivered_at for file in self.files if file.delivered_at)
        return (delivered - max(event.recorded_at for event in self.events)).total_seconds()


def deliver_test_lead(session: Session, stream_id: int, *, timeout: float, as_json: bool) -> None:
    """Append a test lead for the stream's flow, wait for its files, and show them."""
    stream = _ready(session, stream_id)
    events = _append(session, stream)
    with busy(f"{number(len(events), 'event')} appended, waiting for the exporter") as say:
        done = _wait(session, stream, events, timeout, say)
    urls = _unique(
        object_url(stream, object_key(stream, event, file))
        for event, file in zip(done.events, done.files, strict=True)
    )
    lead_id = events[0].event.lead_id
    if as_json:
        write_json({
            "stream_id": stream_id, "lead_id": lead_id, "delay_seconds": round(done.delay, 3),
            "event_ids": [each.event.event_id for each in events], "objects": urls,
        })  # fmt: skip
        return
    show(f"Test lead {lead_id}: {number(len(events), 'event')} delivered "
         f"{age(done.delay)} after the append")  # fmt: skip
    for url in urls:
        show(url, indent="  ", style="cyan")


def _ready(session: Session, stream_id: int) -> Stream:
    """The stream, if a test lead can arrive; nothing is appended in vain."""
    with session.reading() as connection:
        stream = streams.get(connection, stream_id)
        alive = any_alive(connection)
    if not stream.enabled:
        raise ConfigurationError(
            f"stream {stream_id} is disabled, so no test lead was appended",
            hint=f"Start it first: `auditstore stream enable {stream_id}`.",
        )
    _raise_if_stopped(stream)
    if not alive:
        raise ConfigurationError(
            "no exporter is running, so no test lead was appended",
            hint="Start one in another terminal: `auditstore export run`.",
        )
    return stream


def _append(session: Session, stream: Stream) -> list[StoredEvent]:
    from auditstore.demo.flow_engine import test_lead  # noqa: PLC0415  # only a test needs it

    repository = EventRepository()
    lead = test_lead(stream.flow_id, time.time)
    with session.reading() as connection:
        repository.append(connection, lead.events, flow_id=stream.flow_id)
        connection.commit()
        return list(repository.lead(connection, lead.lead_id))


def _wait(
    session: Session,
    stream: Stream,
    events: Sequence[StoredEvent],
    timeout: float,
    say: Callable[[str], None],
) -> _Delivered:
    deadline = time.monotonic() + timeout
    while True:
        # A new connection state each time: no transaction of ours stays open meanwhile.
        with session.reading(check=False) as connection:
            now = streams.get(connection, stream.stream_id)
            found = [
                progress.file_holding(connection, stream.stream_id, event.position)
                for event in events
            ]
        files = [file for file in found if file is not None]
        delivered = [file for file in files if file.delivered_at is not None]
        if len(delivered) == len(events):
            return _Delivered(events, delivered)
        if not now.enabled:
            raise ConfigurationError(
                f"stream {stream.stream_id} was disabled meanwhile",
                hint=f"Start it again: `auditstore stream enable {stream.stream_id} --catch-up`.",
            )
        _raise_if_stopped(now)
        say(f"{number(len(events), 'event')} appended, {len(files)} sealed, "
            f"{len(delivered)} delivered")  # fmt: skip
        if time.monotonic() > deadline:
            raise _late(now, len(events), len(files), len(delivered), timeout)
        time.sleep(_POLL_S)


def _late(
    stream: Stream, events: int, sealed: int, delivered: int, timeout: float
) -> AuditStoreError:
    cause = stream.status.cause
    return AuditStoreError(
        f"after {age(timeout)} only {delivered} of {number(events, 'event')} are delivered, "
        f"{sealed} sealed" + (f"; the exporter says: {cause}" if cause else ""),
        hint=stream.status.hint
        or "`auditstore status` shows what holds it up. The events are not lost: they are "
        "delivered as soon as it can go on.",
    )


def _raise_if_stopped(stream: Stream) -> None:
    if stream.shown_state in _STOPPED:
        raise ConfigurationError(
            f"stream {stream.stream_id} is {stream.shown_state}: {stream.status.cause}",
            hint=stream.status.hint or f"See `auditstore stream show {stream.stream_id}`.",
        )


def _unique(urls: Any) -> list[str]:
    return list(dict.fromkeys(urls))
