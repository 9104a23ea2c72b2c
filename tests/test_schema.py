"""The schema: migrated from empty, and append-only whoever tries.

What the roles may do is in ``security/test_roles.py``.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
from alembic import command
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from support.fixtures_postgres import Database, drop_database
from support.postgres import Cluster
from support.snapshots import snapshot

from auditstore import EventRepository
from auditstore.database import check_schema, migrate
from auditstore.database import create_engine as create_checked_engine
from auditstore.errors import (
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    SchemaOutdated,
)
from auditstore.sql import partitions, server

INSERTED = (
    "event_id, flow_id, payload, size_bytes, sha256) VALUES"
    " ('6924f1c0a1b2c3d4e5f60718', 'f', '{}', 2, sha256('{}'))"
)


@pytest.fixture
def any_engine(database_any: Database) -> Iterator[Engine]:
    """An engine on a fresh database of each version."""
    made = create_engine(database_any.url)
    yield made
    made.dispose()


@pytest.fixture
def empty_database(cluster_any: Cluster) -> Iterator[str]:
    """A database without our schema."""
    name = f"empty_{uuid.uuid4().hex}"
    cluster_any.execute(f"CREATE DATABASE {name}")
    yield cluster_any.url(name)
    drop_database(cluster_any, name)


def refused(engine: Engine, statement: str) -> str:
    """Run a statement that must fail; return the server's words."""
    with engine.connect() as connection, pytest.raises(DBAPIError) as error:
        connection.execute(text(statement))
    return str(error.value.orig)


def test_migrates_from_empty_and_again(empty_database: str) -> None:
    """The first run applies the migrations, the second finds nothing to do."""
    assert migrate(empty_database) == ["outbox"]
    assert migrate(empty_database) == []


def test_tables_are_what_the_code_says(
    database_any: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`alembic check` finds no difference between the migrations and sql/tables.py."""
    from auditstore.database import _alembic_config  # noqa: PLC0415  # the test looks inside

    monkeypatch.setenv("AUDITSTORE_DATABASE_URL", database_any.url)
    command.check(_alembic_config())


def test_two_migrations_at_once_are_one(cluster: Cluster) -> None:
    """Processes that migrate at the same moment wait for each other."""
    name = f"empty_{uuid.uuid4().hex}"
    cluster.execute(f"CREATE DATABASE {name}")
    failures: list[BaseException] = []
    # Alembic's context is global to a process, so the contender is a session with the lock.
    holder = create_engine(cluster.url(name))
    with holder.connect() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": 0x61756469})

        def contend() -> None:
            try:
                migrate(cluster.url(name))
            except BaseException as error:  # noqa: BLE001  # handed to the main thread
                failures.append(error)

        thread = threading.Thread(target=contend)
        thread.start()
        while not cluster.execute(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        ):
            assert thread.is_alive()
        connection.rollback()
        thread.join(60)
    holder.dispose()
    assert failures == []
    drop_database(cluster, name)


def test_an_outdated_schema_is_named(empty_database: str) -> None:
    """Working on a database that was not migrated says what to run."""
    engine = create_checked_engine(empty_database)
    with engine.connect() as connection, pytest.raises(SchemaOutdated) as outdated:
        check_schema(connection)
    engine.dispose()

    assert "auditstore migrate" in outdated.value.hint


def test_refuses_an_encoding_that_would_alter_events(cluster: Cluster) -> None:
    """Only UTF8 keeps every snapshot."""
    name = f"latin_{uuid.uuid4().hex}"
    cluster.execute(
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    with pytest.raises(ConfigurationError, match="LATIN1"):
        migrate(cluster.url(name))
    drop_database(cluster, name)


def test_goes_on_without_the_right_to_make_roles(
    restartable_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A database owner who may not create roles gets the schema, and is told what is missing."""
    cluster = restartable_cluster
    cluster.execute("CREATE ROLE owner LOGIN NOCREATEROLE")
    cluster.execute("CREATE DATABASE owned OWNER owner")

    url = cluster.url("owned", user="owner")
    assert migrate(url) == ["outbox"]

    for role in ("auditstore_writer", "auditstore_exporter", "auditstore_reader"):
        assert f"role {role}" in caplog.text
    assert "may not create roles" in caplog.text
    engine = create_engine(url)
    with engine.begin() as connection:
        assert EventRepository().append(connection, snapshot()).appended == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("mysql://host/db", ConfigurationError, "not PostgreSQL"),
        ("nonsense", ConfigurationError, "not a database URL"),
        ("postgresql://nobody@127.0.0.1:1/x", DatabaseUnavailable, "away"),
    ],
)
def test_says_what_is_wrong_with_a_url(url: str, error: type[Exception], words: str) -> None:
    """A wrong URL is a clear error."""
    with pytest.raises(error, match=words):
        migrate(url)


def test_a_missing_database_is_the_operators(cluster: Cluster) -> None:
    """A database that is not there does not pass by itself."""
    with pytest.raises(DatabaseRefused, match="does not exist"):
        migrate(cluster.url("no_such_database"))


# --- append only --------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE auditstore.events SET reason = 'x'",
        "DELETE FROM auditstore.events",
        "TRUNCATE auditstore.events",
        "UPDATE {partition} SET reason = 'x'",
        "DELETE FROM {partition}",
        "TRUNCATE {partition}",
        "INSERT INTO auditstore.events (" + INSERTED + " ON CONFLICT (flow_id, event_id)"
        " DO UPDATE SET reason = 'x'",
    ],
)
def test_not_even_the_owner_changes_an_event(any_engine: Engine, statement: str) -> None:
    """Triggers refuse it on the table and on each partition, those made later too."""
    with any_engine.begin() as connection:
        partitions.make_partitions(
            connection, period="month", first_at=server.clock(connection), periods=8
        )
        connection.execute(text("INSERT INTO auditstore.events (" + INSERTED))
        EventRepository().append(connection, snapshot())
        leaves = connection.execute(
            text(
                "SELECT relid::regclass::text AS name, EXISTS (SELECT 1 FROM auditstore.events e"
                " WHERE e.tableoid = relid) AS filled"
                " FROM pg_partition_tree('auditstore.events') WHERE isleaf"
            )
        ).all()
    # A row trigger needs a row; TRUNCATE is refused on the empty ones too.
    names = [leaf.name for leaf in leaves if leaf.filled or "TRUNCATE" in statement]
    assert len(names) >= 2

    for name in names if "{partition}" in statement else [""]:
        assert "append-only" in refused(any_engine, statement.replace("{partition}", name))


def test_ledger_rows_are_written_twice_at_most(any_engine: Engine) -> None:
    """Sealed fields are frozen, a delivered row is final, and none is deleted."""
    with any_engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO auditstore.streams (flow_id, url, location, format, key_template,"
                " max_bytes, max_events, max_delay, enabled, chain_hash)"
                " VALUES ('f', 'file:///x', 'x', 'json', 't', 1, 1, 0, true, '')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO auditstore.files (stream_id, sequence, first_position, last_position,"
                " event_count, content_bytes, first_recorded_at, last_recorded_at, format, encoder,"
                " object_key, sealed_at)"
                " SELECT 1, n, n, n, 1, 1, now(), now(), 'json', '1', 'k', now()"
                " FROM generate_series(1, 2) n"
            )
        )
    delivered = (
        "UPDATE auditstore.files SET delivered_at = now(), content_sha256 = 'a', object_bytes = 1,"
        " object_sha256 = 'a', previous_hash = 'a', row_hash = 'a' WHERE sequence = 1"
    )

    assert "sealed" in refused(any_engine, "UPDATE auditstore.files SET last_position = 9")
    assert "sealed" in refused(any_engine, "UPDATE auditstore.files SET object_key = 'other'")
    with any_engine.begin() as connection:
        connection.execute(text(delivered))
    assert "delivered" in refused(any_engine, delivered)
    assert "append-only" in refused(any_engine, "DELETE FROM auditstore.files")
    assert "append-only" in refused(any_engine, "TRUNCATE auditstore.files")


# --- states -------------------------------------------------------------------------


def test_a_state_that_the_exporter_sets_is_recorded(any_engine: Engine) -> None:
    """Though it has no right to write the record itself."""
    with any_engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO auditstore.streams (flow_id, url, location, format, key_template,"
                " max_bytes, max_events, max_delay, enabled, chain_hash)"
                " VALUES ('f', 'file:///x', 'x', 'json', 't', 1, 1, 0, true, '')"
            )
        )
        connection.execute(text("SET LOCAL ROLE auditstore_exporter"))
        connection.execute(text("UPDATE auditstore.streams SET state = 'blocked'"))
        recorded = connection.execute(text("SELECT to_state FROM auditstore.state_changes"))
        assert recorded.scalars().all() == ["blocked"]


# --- partitions ---------------------------------------------------------------------


def test_partitions_are_made_by_month_and_by_day(any_engine: Engine) -> None:
    """Ranges follow UTC; what is there is left; an overlap and rows in the default are told."""
    first_at = "2031-02-27T12:00Z"
    make = text("SELECT * FROM auditstore.make_partitions(:period, :first_at, :periods)")

    def made(period: str, first_at: str, periods: int) -> dict[str, str]:
        with any_engine.begin() as connection:
            connection.execute(text("SET LOCAL timezone = 'Pacific/Auckland'"))
            rows = connection.execute(
                make, {"period": period, "first_at": first_at, "periods": periods}
            )
            return {row.partition_name: row.outcome for row in rows}

    assert made("day", first_at, 3) == {
        "events_2031_02_27": "created",
        "events_2031_02_28": "created",
        "events_2031_03_01": "created",
    }
    assert made("month", first_at, 3) == {
        "events_2031_02": "overlaps",
        "events_2031_03": "overlaps",
        "events_2031_04": "created",
    }
    assert made("day", first_at, 1) == {"events_2031_02_27": "exists"}
    odd = snapshot(id=f"{1_970_000_000:08x}" + "0" * 16)
    with any_engine.begin() as connection:
        EventRepository().append(connection, odd)
    assert made("month", "2032-06-01T00:00Z", 1) == {"events_2032_06": "rows-in-default"}
    with any_engine.begin() as connection:
        low, high = connection.execute(
            text("SELECT substring(b, '\\(''(.+?)''\\) TO'), substring(b, 'TO \\(''(.+?)''\\)')"
                 " FROM (SELECT pg_get_expr(relpartbound, oid) AS b FROM pg_class"
                 "       WHERE relname = 'events_2031_02_27') x")
        ).one()  # fmt: skip
    assert (int(low, 16), int(high, 16)) == (1_929_916_800, 1_930_003_200)


def test_a_store_may_begin_with_days(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daily by setting: this month and the next have days, so upkeep meets no month there."""
    monkeypatch.setenv("AUDITSTORE_PARTITIONS", "day")
    migrate(empty_database)
    engine = create_engine(empty_database)
    with engine.begin() as connection:
        made = partitions.make_partitions(
            connection, period="day", first_at=server.clock(connection), periods=15
        )
    engine.dispose()

    assert {outcome for _, outcome in made} == {"exists"}


def test_writers_go_on_while_a_partition_is_made(engine: Engine) -> None:
    """Upkeep takes no lock that an append waits for."""
    with engine.connect() as upkeep, engine.connect() as writer:
        upkeep.execute(text("SELECT auditstore.make_partitions('month', '2033-01-01', 1)"))
        writer.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert EventRepository().append(writer, [snapshot() for _ in range(5)]).appended == 5
        writer.commit()
        upkeep.commit()
