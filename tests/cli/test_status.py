"""``auditstore status``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from support import little_exporter
from support.commands import CommandLine
from support.fixtures_postgres import Database
from support.sample_events import snapshot

from auditstore import streams
from auditstore.repository import EventRepository
from auditstore.sql import leases
from auditstore.sql import streams as streams_sql


def append(engine: Engine, *numbers: int) -> None:
    """Append events of flow-1."""
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(number) for number in numbers])


def test_lag_counts_what_waits_and_what_is_sealed(cli: CommandLine, engine: Engine) -> None:
    """From the append of the oldest event that is not delivered; nothing from before the stream."""
    append(engine, 1)
    cli.run("stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket")
    assert cli.json("status")["streams"][0]["waiting_events"] == 0
    append(engine, 2, 3)
    with engine.begin() as connection:
        little_exporter.seal(connection, 1)
    append(engine, 4)
    (waiting,) = cli.json("status")["streams"]
    assert waiting["waiting_events"] == 3
    assert waiting["lag_seconds"] > 0
    assert waiting["last_file"] is None
    with engine.begin() as connection:
        little_exporter.seal(connection, 1)
        little_exporter.deliver(connection, 1)
    (done,) = cli.json("status")["streams"]
    assert (done["waiting_events"], done["lag_seconds"]) == (0, 0)
    assert done["last_file"]["sequence"] == 2
    shown = cli.run("status").stdout
    assert "#2, 0." in shown
    assert "s3://some-bucket" in shown


def test_daemons_are_shown_with_how_far_they_may_read(cli: CommandLine, engine: Engine) -> None:
    """And a warning where none is alive."""
    assert "No exporter is running" in cli.run("status").stdout
    append(engine, 1, 2, 3)
    little_exporter.announce(engine)
    with engine.begin() as connection:
        leases.report_fence(connection, daemon_id="test", position=1, age=65.0)
    shown = cli.run("status").stdout
    assert "1 exporter running" in shown
    assert "safe to read up to position 1 (2 positions behind, for 1 min 5 s)" in shown
    (daemon,) = cli.json("status")["daemons"]
    assert (daemon["alive"], daemon["fence_position"]) == (True, 1)


def test_a_daemon_that_fell_silent_is_not_alive(cli: CommandLine, engine: Engine) -> None:
    """Its heartbeat tells, not its row."""
    little_exporter.announce(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE auditstore.daemons SET seen_at = seen_at - interval '31 seconds'")
        )
    assert "No exporter is running" in cli.run("status").stdout
    assert cli.json("status")["daemons"][0]["alive"] is False


def test_a_stream_has_the_fence_of_the_daemon_that_has_it(cli: CommandLine, engine: Engine) -> None:
    """Its age is true: from when all that was handed out could be read, not from the report."""
    cli.run("stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket")
    little_exporter.announce(engine)
    with engine.begin() as connection:
        leases.report_fence(connection, daemon_id="test", position=0, age=125.0)
    (free,) = cli.json("status")["streams"]
    assert (free["daemon_id"], free["fence_age_seconds"]) == (None, None)
    assert "No exporter has taken it yet" in cli.run("status").stdout
    with engine.begin() as connection:
        leases.acquire(connection, daemon_id="test", ttl=60, limit=1)
    (held,) = cli.json("status")["streams"]
    assert (held["daemon_id"], held["fence_position"]) == ("test", 0)
    assert 125 <= held["fence_age_seconds"] < 185
    assert "2 min" in cli.run("status").stdout


def test_with_hundreds_of_streams_those_in_trouble_come_first(
    cli: CommandLine, engine: Engine
) -> None:
    """The worst first, a cause once; of the others not more than a screen, unless all are asked."""
    with engine.begin() as connection:
        for number in range(200):
            new = streams.NewStream(flow_id=f"flow-{number}", url=f"s3://bucket-{number:03d}/p")
            streams.add(connection, new, actor="me")
        for stream_id in (150, 160):
            streams_sql.set_state(
                connection, stream_id, state="blocked", code="AccessDenied", cause="no right",
                hint="Get it.", attempts=1, retry_in=30,
            )  # fmt: skip
        streams_sql.set_state(connection, 170, state="halted", code="x", cause="c", hint="h")
    lines = cli.run("status").stdout.splitlines()
    assert "200 streams: 1 halted, 2 blocked, 197 streaming" in lines
    ids = [line.split()[0] for line in lines if " flow-" in line]
    assert ids[:4] == ["170", "150", "160", "1"]
    assert len(lines) < 50
    assert sum("Try: Get it." in line for line in lines) == 1
    assert any("AccessDenied, as stream 150; tries again" in line for line in lines)
    assert "and 177 more streams without trouble: auditstore status --all" in lines
    everything = cli.run("status", "--all").stdout.splitlines()
    assert sum(" flow-" in line for line in everything) == 200
    assert [each["stream_id"] for each in cli.json("status")["streams"]][:3] == [170, 150, 160]


def test_a_writer_that_stays_open_is_named(cli: CommandLine, engine: Engine) -> None:
    """Who it is and for how long: what was appended after it began waits for it."""
    cli.run("stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket")
    with engine.connect() as writer:
        EventRepository().append(writer, snapshot(1))
        append(engine, 2)
        pid = writer.execute(text("SELECT pg_backend_pid()")).scalar_one()
        (held,) = cli.json("status")["open_writers"]
        assert held["pid"] == pid
        writer.execute(text("SELECT pg_sleep(1.1)"))
        shown = cli.run("status").stdout
        assert "Held back by" in shown
        assert f"Held back by process {pid}, open for 1." in shown
        (stream,) = cli.json("status")["streams"]
        assert [each["pid"] for each in stream["held_back_by"]] == [pid]
        writer.rollback()
    assert "Held back by" not in cli.run("status").stdout
    assert cli.json("status")["streams"][0]["held_back_by"] == []


def test_the_exporters_database_role_sees_it_all(
    cli: CommandLine, engine: Engine, as_member: Callable[[str], None]
) -> None:
    """Looking needs no more than delivering; changing settings says who may."""
    cli.run("stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket")
    append(engine, 1)
    as_member("auditstore_exporter")
    for command in (
        ("status",), ("stream", "list"), ("stream", "show", "1"), ("credential", "list"),
        ("events", "list"), ("events", "show", "690000000000000000000001"),
    ):  # fmt: skip
        cli.run(*command, "--json")
    said, do = cli.error("stream", "set", "1", "--max-delay", "9")
    assert said.startswith("the database says no: permission denied")
    assert do == "Settings are changed by the database user that ran `auditstore migrate`."


def test_the_exporters_database_role_sees_who_holds_it_back(
    cli: CommandLine, database: Database, as_member: Callable[[str], None]
) -> None:
    """Pid, user, application and age of another user's session, though not what it runs."""
    engine = create_engine(database.url, connect_args={"application_name": "forgetful engine"})
    as_member("auditstore_exporter")
    with engine.connect() as writer:
        EventRepository().append(writer, snapshot(1))
        pid = writer.execute(text("SELECT pg_backend_pid()")).scalar_one()
        writer.execute(text("SELECT pg_sleep(1.1)"))
        (held,) = cli.json("status")["open_writers"]
        shown = cli.run("status").stdout
        writer.rollback()
    engine.dispose()
    assert (held["pid"], held["user_name"], held["application"], held["state"]) == (
        pid, "postgres", "forgetful engine", "idle in transaction",
    )  # fmt: skip
    assert 60 > held["age"] > 1
    assert held["query"] is None
    for words in ("Held back by", str(pid), "postgres", "forgetful engine", "its query is hidden"):
        assert words in shown, words


def test_a_reader_sees_events_and_is_told_of_the_rest(
    cli: CommandLine, engine: Engine, as_member: Callable[[str], None]
) -> None:
    """The role auditstore_reader may read events, and nothing else."""
    append(engine, 1)
    as_member("auditstore_reader")
    assert cli.run("events", "list", "--json").stdout_bytes == snapshot(1) + b"\n"
    shown = cli.run("events", "show", "690000000000000000000001").stdout
    assert "may read events, not streams" in shown
    assert "permission denied" in cli.error("status")[0]


@pytest.fixture
def as_member(cli: CommandLine, database: Database) -> Iterator[Callable[[str], None]]:
    """Runs later commands as a user who has no other rights than a role's."""
    user = f"member_{uuid.uuid4().hex}"
    owner = cli.environment

    def become(role: str) -> None:
        database.cluster.execute(f"CREATE ROLE {user} LOGIN IN ROLE {role}")
        url = make_url(database.url).set(username=user)
        mine = {"AUDITSTORE_DATABASE_URL": url.render_as_string(hide_password=False)}
        cli.environment = dict(owner) | mine

    yield become
    database.cluster.execute(f"DROP ROLE {user}")
