"""Appending joins the caller's transaction, is idempotent, all or none; reading is paged."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from support.snapshots import event_id, fields, snapshot

from auditstore import (
    AppendResult,
    AuditStoreError,
    Event,
    EventConflict,
    EventRefused,
    EventRepository,
)
from auditstore.errors import ConfigurationError
from auditstore.sql.events import EventFilter

repository = EventRepository()
# One event goes by INSERT, two by INSERTs in a savepoint, many by COPY.
SIZES = [1, 2, 3, 50]


def stored(engine: Engine) -> list[bytes]:
    """Every snapshot in the outbox, in order of position, as the server holds it."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT payload::text FROM auditstore.events ORDER BY position")
        )
        return [row[0].encode() for row in rows]


@pytest.mark.parametrize("size", SIZES)
def test_appends_byte_for_byte(engine: Engine, size: int) -> None:
    """What was given lies in the outbox unaltered, in the order given, with its size and hash."""
    given = [snapshot(odd="\u2028 ü \\ud83d", n=n) for n in range(size)]

    with engine.begin() as connection:
        result = repository.append(connection, given)

    assert result == AppendResult(appended=size, existing=0)
    assert stored(engine) == given
    with engine.connect() as connection:
        wrong = connection.scalar(
            text(
                "SELECT count(*) FROM auditstore.events"
                " WHERE size_bytes <> octet_length(payload::text)"
                " OR sha256 <> sha256(convert_to(payload::text, 'UTF8'))"
            )
        )
    assert wrong == 0


def test_takes_each_form_of_an_event(engine: Engine) -> None:
    """A mapping, bytes, str and an Event go in one call; one alone needs no list."""
    event = Event.from_json(snapshot())

    with engine.begin() as connection:
        many = repository.append(connection, [fields(), snapshot(), snapshot().decode(), event])
        one = repository.append(connection, fields())

    assert (many.appended, one.appended) == (4, 1)


@pytest.mark.parametrize("size", SIZES)
def test_never_commits(engine: Engine, size: int) -> None:
    """The caller's rollback takes the append back."""
    with engine.connect() as connection:
        repository.append(connection, [snapshot() for _ in range(size)])
        assert connection.in_transaction()
        connection.rollback()

    assert stored(engine) == []


@pytest.mark.parametrize("size", SIZES)
def test_counts_what_is_there_already(engine: Engine, size: int) -> None:
    """The same id with the same content is no error, in another call and within one."""
    given = [snapshot() for _ in range(size)]
    with engine.begin() as connection:
        repository.append(connection, given)
    new = [snapshot() for _ in range(size)]

    with engine.begin() as connection:
        again = repository.append(connection, given)
        mixed = repository.append(connection, [*given, *new, *new])

    assert again == AppendResult(appended=0, existing=size)
    assert mixed == AppendResult(appended=size, existing=2 * size)
    assert stored(engine) == [*given, *new]


@pytest.mark.parametrize("size", SIZES)
def test_refuses_other_content_under_a_stored_id(engine: Engine, size: int) -> None:
    """A conflict names both hashes, appends nothing, and leaves the transaction usable."""
    first = Event.from_json(snapshot())
    changed = Event.from_mapping(json.loads(first.payload) | {"reason": "rewritten"})
    with engine.begin() as connection:
        repository.append(connection, first)

    with engine.begin() as connection:
        before = repository.append(connection, snapshot(reason="before"))
        with pytest.raises(EventConflict) as conflict:
            repository.append(connection, [*(snapshot() for _ in range(size - 1)), changed])
        after = repository.append(connection, snapshot(reason="after"))

    assert conflict.value.stored_sha256 == first.sha256.hex()
    assert conflict.value.offered_sha256 == changed.sha256.hex()
    assert first.sha256.hex() in str(conflict.value)
    assert changed.sha256.hex() in str(conflict.value)
    assert (before.appended, after.appended) == (1, 1)
    assert [json.loads(payload)["reason"] for payload in stored(engine)] == ["", "before", "after"]


def test_refuses_one_id_with_two_contents_in_a_call(engine: Engine) -> None:
    """The conflict may lie within the call itself."""
    one = fields()
    with engine.begin() as connection, pytest.raises(EventConflict):
        repository.append(connection, [snapshot(), one, one | {"reason": "other"}, snapshot()])

    assert stored(engine) == []


def test_one_id_in_two_flows_is_two_events(engine: Engine) -> None:
    """Ids are unique within a flow."""
    one = event_id()
    with engine.begin() as connection:
        result = repository.append(
            connection, [snapshot(id=one, flow="a"), snapshot(id=one, flow="b")]
        )
        found = repository.get(connection, one)

    assert result.appended == 2
    assert [item.event.flow_id for item in found] == ["a", "b"]


@pytest.mark.parametrize("size", SIZES)
def test_one_bad_event_refuses_the_call(engine: Engine, size: int) -> None:
    """The refusal names the event, the field and the reason; nothing is appended."""
    one = event_id()
    bad = [snapshot() for _ in range(size - 1)] + [snapshot(id=one, flow=None)]

    with engine.begin() as connection:
        with pytest.raises(EventRefused) as refused:
            repository.append(connection, bad)
        repository.append(connection, snapshot())

    assert (refused.value.index, refused.value.event_id) == (size - 1, one)
    assert refused.value.field == "vars.flow.id"
    assert one in str(refused.value)
    assert refused.value.hint
    assert len(stored(engine)) == 1


@pytest.mark.parametrize("junk", [7, None, [1], [None]])
def test_refuses_what_is_no_event_at_all(engine: Engine, junk: object) -> None:
    """A number in place of an event is refused like any other bad event."""
    with engine.begin() as connection, pytest.raises((EventRefused, TypeError)) as refused:
        repository.append(connection, [junk])  # type: ignore[list-item]  # on purpose

    assert isinstance(refused.value, EventRefused)


def test_an_id_of_any_time_is_taken(engine: Engine) -> None:
    """Ids from 1970 to 2106 find a place, in the default partition where there is no other."""
    given = [snapshot(id=f"{prefix}{n:016x}") for n, prefix in enumerate(["00000000", "ffffffff"])]

    with engine.begin() as connection:
        repository.append(connection, given)
        repository.append(connection, given)

    with engine.connect() as connection:
        places = connection.scalars(
            text("SELECT DISTINCT tableoid::regclass::text FROM auditstore.events")
        )
        assert list(places) == ["auditstore.events_default"]


def test_refuses_a_connection_it_could_not_be_atomic_on(engine: Engine) -> None:
    """Autocommit and foreign drivers are refused with a hint, before anything is sent."""
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigurationError, match="autocommit"),
    ):
        repository.append(connection, snapshot())
    other = create_engine("sqlite://")
    with other.connect() as connection, pytest.raises(ConfigurationError, match="sqlite"):
        repository.append(connection, snapshot())
    other.dispose()


@pytest.mark.parametrize("size", SIZES)
def test_works_from_asyncio(database_url: str, engine: Engine, size: int) -> None:
    """Through AsyncConnection.run_sync, by INSERT and by COPY, duplicates included."""
    given = [snapshot() for _ in range(size)]

    async def append_twice() -> list[AppendResult]:
        asynchronous = create_async_engine(database_url)
        results = []
        for _ in range(2):
            async with asynchronous.begin() as connection:
                results.append(await connection.run_sync(repository.append, given))
        await asynchronous.dispose()
        return results

    assert asyncio.run(append_twice()) == [AppendResult(size, 0), AppendResult(0, size)]
    assert stored(engine) == given


@pytest.mark.parametrize("size", SIZES)
def test_waits_for_another_writer_of_the_same_events(engine: Engine, size: int) -> None:
    """Two writers of one batch: the second finds it stored, or stores it after a rollback."""
    for first_commits in (True, False):
        given = [snapshot() for _ in range(size)]
        results: list[AppendResult] = []

        def second(given: list[bytes] = given, results: list[AppendResult] = results) -> None:
            with engine.begin() as connection:
                results.append(repository.append(connection, given))

        with engine.connect() as connection:
            repository.append(connection, given)
            thread = threading.Thread(target=second)
            thread.start()
            _await_blocked(engine)
            finish: Callable[[], None] = connection.commit if first_commits else connection.rollback
            finish()
            thread.join(30)

        assert results == [AppendResult(0, size) if first_commits else AppendResult(size, 0)]


def _await_blocked(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(3000):
            blocked = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            if blocked:
                return
            connection.execute(text("SELECT pg_sleep(0.01)"))
    pytest.fail("the second writer never waited for the first")


def test_repeatable_read_gets_an_error_rather_than_a_loop(engine: Engine) -> None:
    """What the caller's snapshot cannot see is reported, and nothing is appended twice."""
    given = [snapshot() for _ in range(5)]
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SELECT count(*) FROM auditstore.events"))
        with engine.begin() as other:
            repository.append(other, given)
        with pytest.raises(AuditStoreError) as failure:
            repository.append(connection, given)

    assert "append again" in failure.value.hint
    assert stored(engine) == given


# --- reading ------------------------------------------------------------------------


@pytest.fixture
def history(engine: Engine) -> list[Event]:
    """Two flows, three leads, over four hours, one event a minute."""
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=4)
    events = [
        Event.from_mapping(
            fields(
                id=event_id(at=(began + timedelta(minutes=n)).timestamp()),
                flow=f"flow-{n % 2}", lead=f"lead-{n % 3}",
                type="filter" if n % 5 == 0 else "source",
                outcome="stop" if n % 10 == 0 else "success",
            )
        )
        for n in range(240)
    ]  # fmt: skip
    with engine.begin() as connection:
        repository.append(connection, list(reversed(events)))
    return events


def test_reads_by_lead_across_flows(engine: Engine, history: list[Event]) -> None:
    """A lead's events come in the order of their ids."""
    with engine.connect() as connection:
        found = [item.event for item in repository.lead(connection, "lead-1")]

    assert found == [event for event in history if event.lead_id == "lead-1"]


def test_reads_by_flow_time_type_and_outcome(engine: Engine, history: list[Event]) -> None:
    """Bounds are half-open; filters combine; the order can be turned."""
    start, end = history[60].created_at, history[120].created_at
    wanted = [
        event
        for event in history[60:120]
        if event.flow_id == "flow-0" and event.type == "filter" and event.outcome == "stop"
    ]

    with engine.connect() as connection:
        found = repository.find(
            connection, flow_id="flow-0", type="filter", outcome="stop", start=start, end=end,
            order="desc",
        )  # fmt: skip

    assert wanted
    assert [item.event for item in found] == wanted[::-1]


def test_pages_by_id_in_either_direction(engine: Engine, history: list[Event]) -> None:
    """Walking with after_id or before_id meets every event of the flow once."""
    flow = [event for event in history if event.flow_id == "flow-1"]
    forward: list[Event] = []
    backward: list[Event] = []
    with engine.connect() as connection:
        while page := repository.find(
            connection, flow_id="flow-1", limit=7,
            after_id=forward[-1].event_id if forward else None,
        ):  # fmt: skip
            forward += [item.event for item in page]
        while page := repository.find(
            connection, flow_id="flow-1", limit=7, order="desc",
            before_id=backward[-1].event_id if backward else None,
        ):  # fmt: skip
            backward += [item.event for item in page]

    assert forward == flow
    assert backward == flow[::-1]


def test_iterating_crosses_pages_and_shared_ids(engine: Engine) -> None:
    """One id in many flows, at a page's edge too, is met once in each."""
    ids = [event_id() for _ in range(40)]
    with engine.begin() as connection:
        repository.append(
            connection, [snapshot(id=one, flow=f"flow-{n:02d}") for one in ids for n in range(30)]
        )
        keys = [
            (item.event.event_id, item.event.flow_id)
            for item in repository.iterate(connection, EventFilter())
        ]

    assert keys == sorted((one, f"flow-{n:02d}") for one in ids for n in range(30))


def test_time_ranges_read_only_their_partitions(engine: Engine, history: list[Event]) -> None:
    """The planner prunes: a query of one hour does not open a partition of another month."""
    question = text(
        "EXPLAIN SELECT event_id FROM auditstore.events"
        " WHERE flow_id = 'flow-0' AND event_id >= :first AND event_id < :last"
    )
    bounds = {"first": history[0].event_id, "last": history[9].event_id}
    with engine.connect() as connection:
        plan = "\n".join(connection.scalars(question, bounds))

    assert len({word for word in plan.split() if word.startswith("events_20")}) <= 2
    assert "events_default" not in plan


def test_refuses_questions_without_a_time_zone(engine: Engine) -> None:
    """A naive datetime could mean any hour."""
    naive = datetime(2026, 1, 1)  # noqa: DTZ001  # on purpose
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="time zone"):
        repository.find(connection, start=naive)


def test_refuses_a_connection_that_would_convert_the_snapshot(database_url: str) -> None:
    """Under another client encoding the server would alter the bytes that it is sent."""
    latin = create_engine(database_url, connect_args={"client_encoding": "LATIN1"})
    with latin.connect() as connection, pytest.raises(ConfigurationError, match="client_encoding"):
        repository.append(connection, [snapshot(reason="Zürich") for _ in range(3)])
    latin.dispose()


def test_an_event_made_by_hand_passes_the_same_judge(engine: Engine) -> None:
    """Line breaks become spaces, the hash is computed anew, and the size limit holds."""
    honest = Event.from_json(snapshot())
    forged = replace(honest, payload=honest.payload.replace(b": ", b":\n"), sha256=bytes(32))
    with engine.begin() as connection:
        repository.append(connection, forged)
        with pytest.raises(EventRefused, match="over the limit"):
            EventRepository(max_event_bytes=10).append(connection, honest)

    assert stored(engine) == [honest.payload]
    with engine.connect() as connection:
        assert repository.get(connection, honest.event_id)[0].event == honest
