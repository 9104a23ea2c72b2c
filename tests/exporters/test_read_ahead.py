"""Reading ahead gives the very file that is sealed next, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from support.lead_events import lead_event

from auditstore import EventRepository, streams
from auditstore.ledger import SealedFile
from auditstore.sql import server
from auditstore.sql import streams as streams_sql
from auditstore.streams import Limits, NewStream, Stream
from exporters.delivery import render
from exporters.fence import SafePosition
from exporters.read_ahead import ReadAhead
from exporters.sealing import seal

FLOW = "flow-1"


class Desk:
    """A stream with files of two events, and somebody who reads ahead."""

    def __init__(self, engine: sa.Engine, threads: ThreadPoolExecutor) -> None:
        self.engine = engine
        self.threads = threads
        new = NewStream(FLOW, "s3://bucket-1/some/prefix", limits=Limits(max_events=2, max_delay=0))
        with engine.begin() as connection:
            self.stream_id = streams.add(connection, new, actor="test").stream_id

    def append(self, count: int) -> None:
        """Commit events."""
        with self.engine.begin() as connection:
            EventRepository().append(connection, [lead_event(FLOW) for _ in range(count)])

    def fence(self) -> SafePosition:
        """Up to the last position; every writer of these tests is done."""
        with self.engine.connect() as connection:
            return SafePosition(streams_sql.last_position(connection), server.run(connection))

    def ahead(self, fence: SafePosition | None = None) -> ReadAhead:
        """A turn's reading ahead."""
        return ReadAhead(self.engine, self.threads, fence or self.fence())

    def seal(self) -> SealedFile:
        """Seal the next file."""
        position = self.fence().position
        with self.engine.begin() as connection:
            sealed = seal(connection, self.stream_id, fence=position)
        assert isinstance(sealed, SealedFile)
        return sealed

    @property
    def stream(self) -> Stream:
        """As it stands."""
        with self.engine.connect() as connection:
            return streams.get(connection, self.stream_id)

    def change(self, **settings: Any) -> None:
        """Change a setting, as an operator does."""
        with self.engine.begin() as connection:
            streams.change(connection, self.stream_id, settings, actor="test")


@pytest.fixture
def desk(engine: sa.Engine) -> Iterator[Desk]:
    """A desk; no thread outlives it."""
    with ThreadPoolExecutor(1) as threads:
        yield Desk(engine, threads)


def let_it_read(desk: Desk) -> None:
    """Until the one thread has done what it was given before."""
    desk.threads.submit(lambda: None).result()


def test_the_next_file_is_rendered_as_it_would_be_after_its_seal(desk: Desk) -> None:
    """The same objects, metadata included; and it is given once."""
    desk.append(5)
    first = desk.seal()
    ahead = desk.ahead()
    ahead.begin(desk.stream, first)
    let_it_read(desk)
    second = desk.seal()
    with desk.engine.connect() as connection:
        expected = render(connection, desk.stream, second)
    assert ahead.take(second) == expected
    assert ahead.take(second) is None


def test_the_last_file_of_a_backlog_is_foreseen_too(desk: Desk) -> None:
    """One that is due by its delay is as sure as one that is full: the turn's fence stands."""
    desk.append(3)
    first = desk.seal()
    ahead = desk.ahead()
    ahead.begin(desk.stream, first)
    let_it_read(desk)
    second = desk.seal()
    assert second.event_count == 1
    assert ahead.take(second) is not None


@pytest.mark.parametrize(
    "change", [{"max_events": 1}, {"key_template": "{flow}/{stream}-{sequence}.gz"}]
)
def test_another_file_than_was_foreseen_is_read_anew(desk: Desk, change: dict[str, Any]) -> None:
    """Somebody changed the stream meanwhile."""
    desk.append(5)
    first = desk.seal()
    ahead = desk.ahead()
    ahead.begin(desk.stream, first)
    let_it_read(desk)
    desk.change(**change)
    assert ahead.take(desk.seal()) is None


def test_a_fence_of_an_earlier_run_reads_nothing(desk: Desk) -> None:
    """After a crash positions are handed out again; it says nothing of them."""
    desk.append(4)
    first = desk.seal()
    ahead = desk.ahead(replace(desk.fence(), run="another"))
    ahead.begin(desk.stream, first)
    let_it_read(desk)
    assert ahead.take(desk.seal()) is None


def test_what_goes_wrong_there_is_left_to_whoever_asks(desk: Desk) -> None:
    """An event is gone: the file is not given, and reading it again says why."""
    desk.append(4)
    first = desk.seal()
    second = desk.seal()
    with desk.engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        connection.execute(sa.text("DELETE FROM auditstore.events WHERE position = 3"))
    ahead = desk.ahead()
    ahead.begin(desk.stream, first)
    let_it_read(desk)
    assert ahead.take(second) is None


def test_nothing_is_read_where_no_backlog_is_likely(desk: Desk) -> None:
    """A small file was due by its delay; and one object an event would be twice the memory."""
    desk.append(4)
    first = desk.seal()
    for stream in (
        replace(desk.stream, limits=Limits(max_events=5)),
        replace(desk.stream, format="json"),
    ):
        desk.ahead().begin(stream, first)
        # One is started with the first thing that there is to do.
        assert not desk.threads._threads
    desk.ahead().begin(desk.stream, first)
    assert desk.threads._threads


def test_a_host_short_of_threads_does_without(desk: Desk) -> None:
    """As an exporter does that is leaving."""
    desk.append(4)
    first = desk.seal()
    desk.threads.shutdown()
    ahead = desk.ahead()
    ahead.begin(desk.stream, first)
    assert ahead.take(desk.seal()) is None
