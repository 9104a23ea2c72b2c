"""Exporting once: everything that is there, at once, and an honest answer about the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa
from support.bucket_check import check_bucket
from support.lead_events import id_of, lead_event
from support.memory_store import DENIED, MemoryStore

from auditstore import EventRepository, streams
from auditstore.objects import ObjectStore
from auditstore.sql import streams as streams_sql
from auditstore.streams import Limits, NewStream, Stream
from exporters.once import export_once

Opener = Callable[[sa.Connection, Stream], ObjectStore]


def add(engine: sa.Engine, flow: str) -> int:
    """A stream whose files wait an hour."""
    new = NewStream(
        flow_id=flow, url=f"s3://bucket-{flow}/p", limits=Limits(max_events=3, max_delay=3600)
    )
    with engine.begin() as connection:
        return streams.add(connection, new, actor="test").stream_id


def append(connection: sa.Connection, flow: str, count: int) -> dict[str, bytes]:
    """Events in the caller's transaction."""
    made = [lead_event(flow) for _ in range(count)]
    EventRepository().append(connection, made)
    return {id_of(each): each for each in made}


def opener(stores: Mapping[int, MemoryStore]) -> Opener:
    """Opens the store of each stream."""
    return lambda _, stream: stores[stream.stream_id]


def test_once_drains_without_waiting_for_delays(engine: sa.Engine) -> None:
    """Full files and the rest of every enabled stream, in one call; a second finds nothing."""
    stores = {add(engine, flow): MemoryStore() for flow in ("one", "two")}
    one, two = stores
    with engine.begin() as connection:
        expected = {one: append(connection, "one", 7), two: append(connection, "two", 1)}
    result = export_once(engine, opener(stores))
    assert (result.failed, result.behind) == (False, False)
    assert [
        (stream.stream_id, outcome.delivered, outcome.events) for stream, outcome in result.outcomes
    ] == [(one, 3, 7), (two, 1, 1)]
    for stream_id, store in stores.items():
        check_bucket(engine, stream_id, store, expected[stream_id])
        assert store.closed == 1
    again = export_once(engine, opener(stores))
    assert [outcome.delivered for _, outcome in again.outcomes] == [0, 0]


def test_once_says_when_writers_keep_events_back(engine: sa.Engine) -> None:
    """What an open transaction appended, and all behind it, waits for the next time."""
    stream_id = add(engine, "one")
    store = MemoryStore()
    with engine.begin() as connection:
        before = append(connection, "one", 2)
    with engine.connect() as writer:
        held = append(writer, "one", 1)
        with engine.begin() as connection:
            behind = append(connection, "one", 1)
        result = export_once(engine, opener({stream_id: store}), patience=0.1)
        assert result.behind
        assert not result.failed
        delivered = sum(outcome.events for _, outcome in result.outcomes)
        # A fence of its own has seen nothing older, so it may hold back even what came before.
        assert delivered <= len(before)
        writer.commit()
    result = export_once(engine, opener({stream_id: store}), patience=0.1)
    assert not result.behind
    check_bucket(engine, stream_id, store, before | held | behind)


def test_once_waits_for_writers_that_finish_in_time(engine: sa.Engine) -> None:
    """An open transaction that commits within the patience is in; nothing is behind."""
    stream_id = add(engine, "one")
    store = MemoryStore()
    writer = engine.connect()
    held = append(writer, "one", 2)
    moments = iter(range(100))

    def monotonic() -> float:
        moment = next(moments)
        if moment == 3:
            writer.commit()
        return moment / 100

    result = export_once(engine, opener({stream_id: store}), monotonic=monotonic)
    writer.close()
    assert not result.behind
    check_bucket(engine, stream_id, store, held)


def test_once_tells_failures_apart(engine: sa.Engine) -> None:
    """One stream that cannot deliver takes nothing from another; only some may be asked for."""
    stores = {add(engine, flow): MemoryStore() for flow in ("one", "two", "three")}
    one, two, three = stores
    with engine.begin() as connection:
        expected = {two: append(connection, "two", 4)}
        append(connection, "one", 1)
        append(connection, "three", 1)
    stores[one].trouble = DENIED
    result = export_once(engine, opener(stores), stream_ids=[one, two])
    assert result.failed
    assert [(stream.stream_id, outcome.error) for stream, outcome in result.outcomes] == [
        (one, DENIED), (two, None),
    ]  # fmt: skip
    check_bucket(engine, two, stores[two], expected[two])
    assert stores[three].objects == {}


def test_once_fails_while_a_stream_is_halted(engine: sa.Engine) -> None:
    """What only an operator can let go on is no success, and is not tried by itself."""
    stream_id = add(engine, "one")
    store = MemoryStore()
    with engine.begin() as connection:
        append(connection, "one", 1)
        streams_sql.set_state(
            connection, stream_id, state="halted", cause="another object is there", hint="Look."
        )
    result = export_once(engine, opener({stream_id: store}))
    ((_, outcome),) = result.outcomes
    assert result.failed
    assert outcome.error is not None
    assert (outcome.error.message, outcome.error.hint) == ("another object is there", "Look.")
    assert store.tries.total() == 0
