"""Streams: what they cover, what they refuse, and that every change is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from support.sample_events import snapshot

from auditstore import streams
from auditstore.errors import ConfigurationError, NotFound
from auditstore.layout import DEFAULT_TEMPLATE, EVENT_TEMPLATE
from auditstore.repository import EventRepository
from auditstore.sql import ledger, server
from auditstore.sql import streams as sql
from auditstore.streams import Limits, NewStream, Stream


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with engine.connect() as opened:
        yield opened


def add(connection: Connection, **more: Any) -> Stream:
    """Add a stream of flow-1."""
    given = {"flow_id": "flow-1", "url": "s3://some-bucket/one"} | more
    return streams.add(connection, NewStream(**given), actor="me@here")


def append(connection: Connection, *numbers: int) -> None:
    """Append events of flow-1."""
    EventRepository().append(connection, [snapshot(number) for number in numbers])


def seal(connection: Connection, stream: Stream, position: int) -> None:
    """Move the sealed mark as the exporter does."""
    ledger.move_sealed_mark(connection, stream.stream_id, stream.sealed_sequence + 1, position)


def covered(connection: Connection, stream: Stream) -> list[tuple[int, int | None]]:
    """The recorded intervals."""
    return sql.intervals(connection, stream.stream_id)


def test_an_enabled_stream_covers_what_is_appended_from_then_on(connection: Connection) -> None:
    """The interval begins behind the newest event, and so does sealing."""
    append(connection, 1, 2, 3)
    stream = add(connection)
    assert stream.enabled
    assert stream.sealed_position == 3
    assert covered(connection, stream) == [(3, None)]


def test_a_stream_added_disabled_covers_nothing_until_enabled(connection: Connection) -> None:
    """Nor does catching up reach back to before it was first enabled."""
    stream = add(connection, enabled=False)
    append(connection, 1, 2)
    assert covered(connection, stream) == []
    streams.enable(connection, stream.stream_id, catch_up=True, actor="me")
    assert covered(connection, stream) == [(2, None)]


def test_disabling_ends_the_interval_at_what_was_sealed(connection: Connection) -> None:
    """What was appended and not sealed is not covered."""
    stream = add(connection)
    append(connection, 1, 2, 3)
    seal(connection, stream, 2)
    after = streams.disable(connection, stream.stream_id, actor="me")
    assert not after.enabled
    assert after.shown_state == "disabled"
    assert covered(connection, stream) == [(0, 2)]


def test_enabling_again_starts_from_then(connection: Connection) -> None:
    """What was appended meanwhile stays uncovered."""
    stream = add(connection)
    append(connection, 1)
    seal(connection, stream, 1)
    streams.disable(connection, stream.stream_id, actor="me")
    append(connection, 2, 3)
    after = streams.enable(connection, stream.stream_id, actor="me")
    assert after.sealed_position == 3
    assert covered(connection, stream) == [(0, 1), (3, None)]


def test_catching_up_starts_from_where_it_stopped(connection: Connection) -> None:
    """Nothing between is left out."""
    stream = add(connection)
    append(connection, 1)
    seal(connection, stream, 1)
    streams.disable(connection, stream.stream_id, actor="me")
    append(connection, 2, 3)
    after = streams.enable(connection, stream.stream_id, catch_up=True, actor="me")
    assert after.sealed_position == 1
    assert covered(connection, stream) == [(0, 1), (1, None)]


def test_enabling_twice_changes_nothing(connection: Connection) -> None:
    """Nor does disabling twice; neither is recorded as a change."""
    stream = add(connection)
    streams.enable(connection, stream.stream_id, actor="me")
    streams.disable(connection, stream.stream_id, actor="me")
    streams.disable(connection, stream.stream_id, actor="me")
    actions = [change.action for change in streams.changes(connection, stream.stream_id)]
    assert actions == ["add", "disable"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://some-bucket/one", "s3://some-bucket/one"),
        ("s3://some-bucket/one", "s3://some-bucket/one/within"),
        ("s3://some-bucket/one/within", "s3://some-bucket/one"),
        ("s3://some-bucket", "s3://some-bucket/one"),
        ("file:///srv/one", "file:///srv/one/within"),
    ],
)
def test_two_enabled_streams_never_share_a_place(
    connection: Connection, one: str, other: str
) -> None:
    """Neither the same prefix nor one within the other; the refusal names the stream."""
    first = add(connection, url=one)
    with pytest.raises(ConfigurationError, match=f"stream {first.stream_id} already delivers"):
        add(connection, url=other, flow_id="flow-2")


def test_a_disabled_stream_leaves_its_place_until_it_is_enabled(connection: Connection) -> None:
    """Added disabled beside an enabled one, it is refused when it is to start."""
    first = add(connection)
    second = add(connection, enabled=False)
    with pytest.raises(ConfigurationError, match="already delivers"):
        streams.enable(connection, second.stream_id, actor="me")
    streams.disable(connection, first.stream_id, actor="me")
    assert streams.enable(connection, second.stream_id, actor="me").enabled


def test_neighbours_are_no_overlap(connection: Connection) -> None:
    """A prefix that only begins with the same letters is another place."""
    add(connection, url="s3://some-bucket/one")
    assert add(connection, url="s3://some-bucket/one-more").enabled


def test_changing_the_endpoint_may_not_lead_into_a_taken_place(connection: Connection) -> None:
    """The endpoint is part of the place."""
    add(connection, endpoint_url="http://127.0.0.1:9000")
    second = add(connection, endpoint_url="http://127.0.0.1:9001")
    with pytest.raises(ConfigurationError, match="already delivers"):
        streams.change(
            connection, second.stream_id, {"endpoint_url": "http://127.0.0.1:9000/"}, actor="me"
        )


@pytest.mark.parametrize(
    "template",
    ["{flow}/{date}.gz", "{flow}/{sequence}.gz", "{stream}.gz", "{stream}-{sequence}-{lead}.gz",
     "../{stream}-{sequence}", "a//{stream}-{sequence}", "{stream}-{sequence",
     "{stream!r}-{sequence}"],
)  # fmt: skip
def test_templates_under_which_files_could_share_a_key_are_refused(
    connection: Connection, template: str
) -> None:
    """At adding and at changing alike."""
    with pytest.raises(ConfigurationError, match="template"):
        add(connection, key_template=template)
    stream = add(connection)
    with pytest.raises(ConfigurationError, match="template"):
        streams.change(connection, stream.stream_id, {"key_template": template}, actor="me")


def test_a_template_goes_with_its_format(connection: Connection) -> None:
    """LeadConduit's layout has none of its own, and going back brings the default back."""
    with pytest.raises(ConfigurationError, match="LeadConduit's own layout"):
        add(connection, format="json", key_template="{stream}-{sequence}")
    stream = add(connection, key_template="{stream}/{sequence}.ndjson.gz")
    after = streams.change(connection, stream.stream_id, {"format": "json"}, actor="me")
    assert after.key_template == EVENT_TEMPLATE
    after = streams.change(connection, stream.stream_id, {"format": "ndjson.gz"}, actor="me")
    assert after.key_template == DEFAULT_TEMPLATE


def test_a_template_can_be_taken_away(connection: Connection) -> None:
    """``None`` asks for the default."""
    stream = add(connection, key_template="{stream}/{sequence}.ndjson.gz")
    after = streams.change(connection, stream.stream_id, {"key_template": None}, actor="me")
    assert after.key_template == DEFAULT_TEMPLATE


@pytest.mark.parametrize(
    "limits",
    [{"max_bytes": 0}, {"max_bytes": 2**31}, {"max_events": 0}, {"max_events": 10**7},
     {"max_delay": -1}, {"max_delay": 3601}, {"max_delay": float("nan")}],
)  # fmt: skip
def test_limits_that_cannot_work_are_refused(
    connection: Connection, limits: dict[str, Any]
) -> None:
    """At changing as at making."""
    with pytest.raises(ConfigurationError, match=next(iter(limits)).replace("_", "-")):
        Limits(**limits)
    stream = add(connection)
    with pytest.raises(ConfigurationError):
        streams.change(connection, stream.stream_id, limits, actor="me")


def test_every_change_is_recorded_with_what_was_and_what_is(connection: Connection) -> None:
    """Who did what, in order, with the settings before and after."""
    stream = add(connection)
    streams.change(connection, stream.stream_id, {"max_delay": 30.0}, actor="other@there")
    streams.disable(connection, stream.stream_id, actor="me@here")
    streams.enable(connection, stream.stream_id, catch_up=True, actor="me@here")
    streams.resume(connection, stream.stream_id, actor="me@here")
    changes = streams.changes(connection, stream.stream_id)
    assert [(change.actor, change.action) for change in changes] == [
        ("me@here", "add"), ("other@there", "set"), ("me@here", "disable"),
        ("me@here", "enable --catch-up"), ("me@here", "resume"),
    ]  # fmt: skip
    assert changes[0].before is None
    assert changes[1].before["max_delay"] == 2.0
    assert changes[1].after["max_delay"] == 30.0
    assert changes[2].after["enabled"] is False


@pytest.mark.parametrize(
    "statement",
    ["UPDATE auditstore.changes SET actor = 'nobody'", "DELETE FROM auditstore.changes",
     "TRUNCATE auditstore.changes"],
)  # fmt: skip
def test_changes_cannot_be_altered(connection: Connection, statement: str) -> None:
    """Not even by the owner of the table."""
    add(connection)
    with pytest.raises(DBAPIError), connection.begin_nested():
        connection.execute(text(statement))
    assert connection.execute(text("SELECT count(*) FROM auditstore.changes")).scalar_one() == 1


def test_resuming_clears_the_state(connection: Connection) -> None:
    """A halted stream goes on, with the history of the server as it is now."""
    stream = add(connection)
    sql.set_history(connection, stream.stream_id, {"system": "1"})
    sql.set_state(connection, stream.stream_id, state="halted", code="x", cause="c", hint="h")
    after = streams.resume(connection, stream.stream_id, actor="me")
    assert (after.shown_state, after.status.cause) == ("streaming", None)
    assert after.history == server.history(connection)


def test_a_change_of_state_is_recorded_and_another_try_is_not(connection: Connection) -> None:
    """Each change of state or code, with its cause and how many tries had failed by then."""
    stream_id = add(connection).stream_id

    def fail(state: str, code: str, attempts: int) -> None:
        sql.set_state(connection, stream_id, state=state, code=code, cause=f"{code}!",
                      hint="h", attempts=attempts, retry_in=30)  # fmt: skip

    fail("retrying", "SlowDown", 1)
    fail("retrying", "SlowDown", 2)
    fail("retrying", "InternalError", 3)
    fail("blocked", "AccessDenied", 4)
    fail("blocked", "AccessDenied", 5)
    sql.set_state(connection, stream_id, state="streaming")
    sql.set_state(connection, stream_id, state="streaming")
    found = streams.state_changes(connection, stream_id, limit=100)
    assert [
        (each.from_state, each.to_state, each.to_code, each.cause, each.attempts)
        for each in reversed(found)
    ] == [
        ("disabled", "streaming", None, None, 0),
        ("streaming", "retrying", "SlowDown", "SlowDown!", 1),
        ("retrying", "retrying", "InternalError", "InternalError!", 3),
        ("retrying", "blocked", "AccessDenied", "AccessDenied!", 4),
        ("blocked", "streaming", None, None, 5),
    ]
    times = [each.changed_at for each in found]
    assert times == sorted(times, reverse=True)
    assert len(streams.state_changes(connection, stream_id, limit=2)) == 2


def test_being_disabled_is_a_state(connection: Connection) -> None:
    """It begins when somebody disables; trouble that it had is found again when it is enabled."""
    stream_id = add(connection).stream_id
    sql.set_state(connection, stream_id, state="blocked", code="x", cause="c", hint="h")
    blocked_since = streams.get(connection, stream_id).status.since
    disabled = streams.disable(connection, stream_id, actor="me")
    assert disabled.status.since > blocked_since
    # What a worker in the midst of it says of its last try is no change that anybody sees.
    sql.set_state(connection, stream_id, state="retrying", code="y", cause="d", hint="h")
    streams.enable(connection, stream_id, actor="me")
    found = streams.state_changes(connection, stream_id, limit=100)
    assert [(each.from_state, each.to_state, each.to_code) for each in reversed(found)][1:] == [
        ("streaming", "blocked", "x"), ("blocked", "disabled", None),
        ("disabled", "retrying", "y"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    ["UPDATE auditstore.state_changes SET cause = 'x'", "DELETE FROM auditstore.state_changes",
     "TRUNCATE auditstore.state_changes"],
)  # fmt: skip
def test_the_record_of_states_cannot_be_altered(connection: Connection, statement: str) -> None:
    """Not even by the owner of the table."""
    stream = add(connection)
    with pytest.raises(DBAPIError), connection.begin_nested():
        connection.execute(text(statement))
    assert len(streams.state_changes(connection, stream.stream_id, limit=9)) == 1


def test_what_is_not_there_is_not_found(connection: Connection) -> None:
    """Each operation on an unknown stream says so."""
    for operation in (streams.enable, streams.disable, streams.resume):
        with pytest.raises(NotFound, match="no stream 7"):
            operation(connection, 7, actor="me")
