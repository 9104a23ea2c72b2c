"""Freezing the next range: where a file ends, when it is due, and what the ledger says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lead_events import lead_event

from auditstore import EventRepository, streams
from auditstore.ledger import SealedFile
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import streams as streams_sql
from auditstore.sql.events import TailRow
from auditstore.streams import Limits, NewStream
from exporters.encoding import ENCODERS
from exporters.sealing import Batch, NotDue, cut, seal

AT = datetime(2026, 5, 6, 7, 30, tzinfo=UTC)
LATER = AT + timedelta(days=2)
LIMITS = st.builds(
    Limits, max_bytes=st.integers(1, 3000), max_events=st.integers(1, 12),
    max_delay=st.floats(0, 3600),
)  # fmt: skip


@st.composite
def tails(draw: st.DrawFn, min_size: int = 0) -> list[TailRow]:
    """What waits in the outbox: positions with gaps, times that may step back a little."""
    steps = st.tuples(st.integers(1, 5), st.integers(2, 1500), st.integers(-20, 1500))
    rows, position, at = [], draw(st.integers(0, 10**6)), AT
    for gap, size, seconds in draw(st.lists(steps, min_size=min_size, max_size=40)):
        position += gap
        at += timedelta(seconds=seconds)
        rows.append(TailRow(position, size, at))
    return rows


def hour(moment: datetime) -> tuple[int, int]:
    """Day and hour in UTC."""
    return (moment.toordinal(), moment.hour)


def row(position: int, *, size: int = 99, at: datetime = AT) -> TailRow:
    """An event of 100 bytes with its line end."""
    return TailRow(position, size, at)


# --- where a file ends ------------------------------------------------------------------


@given(tails(min_size=1), LIMITS)
@settings(deadline=None)
def test_a_file_keeps_within_its_limits(rows: list[TailRow], limits: Limits) -> None:
    """Events, bytes and the UTC hour are kept, but for one event that is too large by itself."""
    batch = cut(rows, limits, now=LATER, flush=True)
    assert isinstance(batch, Batch)
    taken = rows[: batch.event_count]
    assert (batch.first_position, batch.last_position) == (taken[0].position, taken[-1].position)
    assert batch.content_bytes == sum(each.size_bytes + 1 for each in taken)
    assert batch.event_count <= limits.max_events
    assert batch.content_bytes <= limits.max_bytes or batch.event_count == 1
    times = [each.recorded_at for each in taken]
    assert (batch.first_recorded_at, batch.last_recorded_at) == (min(times), max(times))
    assert len({hour(each) for each in times}) == 1


@given(tails(), LIMITS)
@settings(deadline=None)
def test_cutting_again_and_again_covers_all_once(rows: list[TailRow], limits: Limits) -> None:
    """Every event is in exactly one file, in order, and each file is as full as can be."""
    rest, covered = rows, []
    while rest:
        batch = cut(rest, limits, now=LATER, flush=True)
        assert isinstance(batch, Batch)
        taken, rest = rest[: batch.event_count], rest[batch.event_count :]
        covered += taken
        if rest:
            assert (
                batch.event_count == limits.max_events
                or batch.content_bytes + rest[0].size_bytes + 1 > limits.max_bytes
                or hour(rest[0].recorded_at) != hour(batch.first_recorded_at)
            )
    assert covered == rows
    assert cut([], limits, now=LATER, flush=True) is None


@given(tails(min_size=1), tails(), LIMITS)
@settings(deadline=None)
def test_a_full_file_does_not_depend_on_what_comes_later(
    rows: list[TailRow], more: list[TailRow], limits: Limits
) -> None:
    """A file that is not cut by time or by flushing stays the same, whatever arrives."""
    batch = cut(rows, replace(limits, max_delay=3600.0), now=rows[0].recorded_at)
    ends_by_itself = isinstance(batch, Batch) and batch.event_count < len(rows)
    if isinstance(batch, Batch) and (
        batch.event_count == limits.max_events or batch.content_bytes >= limits.max_bytes
    ):
        ends_by_itself = True
    if not ends_by_itself:
        return
    shift = rows[-1].position
    later = [each._replace(position=each.position + shift) for each in more]
    for now in (rows[0].recorded_at, LATER):
        for flush in (False, True):
            assert cut([*rows, *later], limits, now=now, flush=flush) == batch


@given(tails(min_size=1), LIMITS, st.floats(0, 7200))
@settings(deadline=None)
def test_a_file_is_due_exactly_when_it_says(
    rows: list[TailRow], limits: Limits, waited: float
) -> None:
    """Before ``due_in`` is over nothing is sealed; after it the file is, without new events."""
    now = rows[0].recorded_at + timedelta(seconds=waited)
    found = cut(rows, limits, now=now)
    if isinstance(found, NotDue):
        assert 0 < found.due_in <= limits.max_delay + 20  # times may step back by that much
        due_at = now + timedelta(seconds=found.due_in)
        early = due_at - timedelta(milliseconds=1)
        if early > now:
            assert isinstance(cut(rows, limits, now=early), NotDue)
        assert isinstance(cut(rows, limits, now=due_at + timedelta(microseconds=1)), Batch)
    assert isinstance(cut(rows, limits, now=now, flush=True), Batch)


def test_due_at_the_delay_or_at_the_end_of_the_hour() -> None:
    """The oldest event's age counts; the hour's end comes first where it is nearer."""
    limits = Limits(max_delay=600)
    rows = [row(1), row(2, at=AT + timedelta(seconds=100))]
    assert cut(rows, limits, now=AT + timedelta(seconds=100)) == NotDue(500)
    late = [row(1, at=AT + timedelta(minutes=25))]
    assert cut(late, limits, now=AT + timedelta(minutes=26)) == NotDue(240)
    assert isinstance(cut(late, limits, now=AT + timedelta(minutes=30)), Batch)
    assert cut([], limits, now=AT) is None


def test_the_hour_is_utc() -> None:
    """A time zone with half hours moves no boundary: 12:59:59 in India is 7:29:59."""
    india = datetime.fromisoformat("2026-05-06T12:59:59+05:30")
    rows = [row(1, at=india), row(2, at=india + timedelta(seconds=2))]
    assert isinstance(batch := cut(rows, Limits(), now=LATER), Batch)
    assert batch.event_count == 2


@pytest.mark.parametrize(
    ("sizes", "limit", "taken"),
    [
        ([99, 99, 99], 200, 2), ([99, 99, 99], 199, 1), ([99, 99, 99], 299, 2),
        ([500, 9], 100, 1), ([9, 500], 100, 1), ([100], 100, 1),
    ],
)  # fmt: skip
def test_the_limit_of_bytes_counts_line_ends(sizes: list[int], limit: int, taken: int) -> None:
    """Exactly full is full; an oversize event is a file of its own, never an obstacle."""
    rows = [row(number, size=size) for number, size in enumerate(sizes, start=1)]
    batch = cut(rows, Limits(max_bytes=limit), now=AT, flush=True)
    assert isinstance(batch, Batch)
    assert batch.event_count == taken


def test_nothing_is_read_behind_a_full_file() -> None:
    """A backlog of any size costs no more than the file that is cut off it."""
    read = []

    def backlog() -> Iterator[TailRow]:
        for position in range(1, 10**9):
            read.append(position)
            yield row(position)

    cut(backlog(), Limits(max_events=5), now=AT)
    assert read == [1, 2, 3, 4, 5]


# --- sealing in a real database ---------------------------------------------------------


def add_stream(engine: sa.Engine, **changes: object) -> int:
    """A stream of flow-1; its delay is an hour unless told otherwise."""
    settings_ = {
        "flow_id": "flow-1", "url": "s3://bucket-1/some/prefix",
        "limits": Limits(max_events=3, max_delay=3600), **changes,
    }  # fmt: skip
    with engine.begin() as connection:
        return streams.add(connection, NewStream(**settings_), actor="test").stream_id  # type: ignore[arg-type]  # checked by NewStream


def append(engine: sa.Engine, count: int, flow: str = "flow-1") -> None:
    """So many events, in one transaction."""
    with engine.begin() as connection:
        EventRepository().append(connection, [lead_event(flow) for _ in range(count)])


def seal_one(
    engine: sa.Engine, stream_id: int, *, fence: int | None = None, flush: bool = False
) -> SealedFile | NotDue | None:
    """Seal in a transaction of its own."""
    with engine.begin() as connection:
        upto = streams_sql.last_position(connection) if fence is None else fence
        return seal(connection, stream_id, fence=upto, flush=flush)


def test_files_are_numbered_without_gaps(engine: sa.Engine) -> None:
    """Sequence, ranges, counts and marks follow one another; a rollback leaves no hole."""
    stream_id = add_stream(engine)
    append(engine, 4)
    append(engine, 2, flow="flow-2")
    append(engine, 4)
    with engine.connect() as connection:
        rolled_back = seal(connection, stream_id, fence=10)
        connection.rollback()
    sealed = []
    while (found := seal_one(engine, stream_id, flush=True)) is not None:
        assert isinstance(found, SealedFile)
        sealed.append(found)
    assert isinstance(rolled_back, SealedFile)
    assert replace(rolled_back, sealed_at=sealed[0].sealed_at) == sealed[0]
    assert [
        (file.sequence, file.first_position, file.last_position, file.event_count)
        for file in sealed
    ] == [(1, 1, 3, 3), (2, 4, 8, 3), (3, 9, 10, 2)]
    with engine.connect() as connection:
        stream = streams.get(connection, stream_id)
        rows = [file.sealed for file in ledger_sql.stream_files(connection, stream_id)]
    assert (stream.sealed_sequence, stream.sealed_position) == (3, 10)
    assert (stream.delivered_sequence, stream.delivered_position) == (0, 0)
    assert rows == sealed


def test_nothing_behind_the_fence_is_sealed(engine: sa.Engine) -> None:
    """Events above the safe position wait, though they can be seen."""
    stream_id = add_stream(engine)
    append(engine, 3)
    assert seal_one(engine, stream_id, fence=0, flush=True) is None
    assert isinstance(two := seal_one(engine, stream_id, fence=2, flush=True), SealedFile)
    assert two.last_position == 2
    assert seal_one(engine, stream_id, fence=2, flush=True) is None
    # A fence that a slower worker read earlier takes nothing back.
    assert seal_one(engine, stream_id, fence=1, flush=True) is None


def test_the_key_says_what_is_in_the_file(engine: sa.Engine) -> None:
    """The template is filled in from the sealed range and the earliest event's hour."""
    stream_id = add_stream(engine, key_template="{flow}/{date}T{hour}/{stream}.{sequence}.{first}")
    append(engine, 3)
    sealed = seal_one(engine, stream_id)
    assert isinstance(sealed, SealedFile)
    at = sealed.first_recorded_at.astimezone(UTC)
    assert sealed.object_key == (
        f"some/prefix/flow-1/{at:%Y-%m-%d}T{at:%H}/{stream_id:06d}.0000000001.0000000000000001"
    )
    assert (sealed.format, sealed.encoder) == ("ndjson.gz", ENCODERS["ndjson.gz"])
    assert sealed.content_bytes == 3 * (len(lead_event("flow-1")) + 1)


def test_single_objects_have_a_pattern_for_a_key(engine: sa.Engine) -> None:
    """In LeadConduit's layout the row names where the objects lie."""
    stream_id = add_stream(engine, format="json")
    append(engine, 3)
    assert isinstance(sealed := seal_one(engine, stream_id), SealedFile)
    assert sealed.object_key == "some/prefix/{lead}/{event}.json"
    assert (sealed.format, sealed.encoder) == ("json", ENCODERS["json"])


def test_what_waits_says_when_it_is_due(engine: sa.Engine) -> None:
    """Two events of three wait for their delay; flushing does not."""
    stream_id = add_stream(engine)
    append(engine, 2)
    assert isinstance(waiting := seal_one(engine, stream_id), NotDue)
    assert 0 < waiting.due_in <= 3600
    assert isinstance(seal_one(engine, stream_id, flush=True), SealedFile)


def test_a_disabled_stream_seals_nothing(engine: sa.Engine) -> None:
    """Not even when flushing, and not what was appended before it was disabled."""
    stream_id = add_stream(engine)
    append(engine, 5)
    with engine.begin() as connection:
        streams.disable(connection, stream_id, actor="test")
    assert seal_one(engine, stream_id, flush=True) is None


def test_a_new_format_counts_from_the_next_file(engine: sa.Engine) -> None:
    """What is sealed keeps its format and key; the sequence goes on."""
    stream_id = add_stream(engine)
    append(engine, 6)
    assert isinstance(first := seal_one(engine, stream_id), SealedFile)
    with engine.begin() as connection:
        streams.change(connection, stream_id, {"format": "json"}, actor="test")
    assert isinstance(second := seal_one(engine, stream_id), SealedFile)
    assert [(file.sequence, file.format) for file in (first, second)] == [
        (1, "ndjson.gz"), (2, "json"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("default", "during"),
    [
        ("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"),
        ("remote_apply", "remote_apply"),
    ],
)  # fmt: skip
def test_sealing_commits_durably(engine: sa.Engine, default: str, during: str) -> None:
    """Whatever the server's default, a sealed row is flushed; a stronger default is kept."""
    stream_id = add_stream(engine)
    append(engine, 3)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET synchronous_commit = {default}")
        connection.commit()
        assert isinstance(seal(connection, stream_id, fence=3), SealedFile)
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == during
        connection.commit()
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == default
        connection.rollback()
