"""Limits that a server sets: timeouts, connections, a pool. They are told apart, and pass."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url
from support.eventually import eventually
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import Database
from support.lead_events import lead_event
from support.stores import Place

from auditstore.database import create_engine
from auditstore.errors import DatabaseRefused, DatabaseUnavailable
from auditstore.repository import EventRepository
from auditstore.sql import events as events_sql
from auditstore.sql.failures import translated

FLOW = "flow-1"


@pytest.fixture
def user(database: Database) -> Iterator[str]:
    """A user who may append and export, and for whom limits can be set."""
    name = f"limited_{uuid.uuid4().hex}"
    database.cluster.execute(
        f"CREATE ROLE {name} LOGIN IN ROLE auditstore_writer, auditstore_exporter"
    )
    yield name
    database.cluster.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", name
    )
    database.cluster.execute(f"DROP ROLE {name}")


def limited(database: Database, user: str, **options: object) -> sa.Engine:
    """An engine for the user."""
    return create_engine(url_for(database, user), **options)


def url_for(database: Database, user: str) -> str:
    """The database as the user reaches it."""
    return make_url(database.url).set(username=user).render_as_string(hide_password=False)


def append(engine: sa.Engine, count: int) -> None:
    """As a flow engine does."""
    with engine.begin() as connection:
        EventRepository().append(connection, [lead_event(FLOW) for _ in range(count)])


def connect(engine: sa.Engine) -> None:
    """As the exporter does."""
    with translated(), engine.connect():
        pass


def failure(call: Callable[[], None]) -> DatabaseUnavailable:
    """What the call raises: ours, of the passing kind, with a hint."""
    with pytest.raises(DatabaseUnavailable) as caught:
        call()
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("count", [1, 5], ids=["insert", "copy"])
def test_a_lock_timeout_of_the_writer(database: Database, user: str, count: int) -> None:
    """The append fails as a whole, in our words, and works once the lock is gone."""
    database.cluster.execute(f"ALTER ROLE {user} SET lock_timeout = '50ms'")
    engine = limited(database, user)
    with database.cluster.connect(database.name) as locker, locker.transaction():
        locker.execute("LOCK TABLE auditstore.events IN SHARE MODE")
        error = failure(lambda: append(engine, count))
    assert "lock timeout" in error.message
    append(engine, count)
    engine.dispose()


@pytest.mark.parametrize("count", [1, 5], ids=["insert", "copy"])
def test_a_statement_timeout_of_the_writer(database: Database, user: str, count: int) -> None:
    """The append fails as a whole; a new session goes by the setting as it then is."""
    database.cluster.execute(f"ALTER ROLE {user} SET statement_timeout = '50ms'")
    engine = limited(database, user)
    with database.cluster.connect(database.name) as locker, locker.transaction():
        locker.execute("LOCK TABLE auditstore.events IN SHARE MODE")
        error = failure(lambda: append(engine, count))
    assert "statement timeout" in error.message
    assert "raise statement_timeout" in error.hint
    append(engine, count)
    engine.dispose()


def test_a_session_that_outlived_its_setting_is_left(database: Database, user: str) -> None:
    """Sessions keep the timeout that they began with: after one, new ones see it mended."""
    database.cluster.execute(f"ALTER ROLE {user} SET statement_timeout = '30ms'")
    engine = limited(database, user)

    def read() -> None:
        with translated(), engine.connect() as connection:
            list(events_sql.payloads(connection, FLOW, 1, 10))

    def ask() -> None:
        with translated(), engine.connect() as connection:
            connection.execute(sa.text("SELECT count(*) FROM auditstore.events")).one()

    for use in (read, ask):
        database.cluster.execute(f"ALTER ROLE {user} SET statement_timeout = '30ms'")
        engine.dispose()
        with database.cluster.connect(database.name) as locker, locker.transaction():
            locker.execute("LOCK TABLE auditstore.events IN ACCESS EXCLUSIVE MODE")
            assert "statement timeout" in failure(use).message
        database.cluster.execute(f"ALTER ROLE {user} RESET statement_timeout")
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SHOW statement_timeout")) == "0", use
    engine.dispose()


def test_a_session_idle_for_too_long(database: Database, user: str) -> None:
    """A transaction that its server ended for idling is a passing trouble, not a refusal."""
    setting = "idle_in_transaction_session_timeout"
    database.cluster.execute(f"ALTER ROLE {user} SET {setting} = '50ms'")
    engine = limited(database, user)

    def idle() -> None:
        with engine.begin() as connection:
            pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            while database.cluster.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid):
                pass
            EventRepository().append(connection, [lead_event(FLOW)])

    error = failure(idle)
    assert "idle-in-transaction timeout" in error.message, error.message
    engine.dispose()


def test_no_connection_left(database: Database, user: str) -> None:
    """The limit of a user is named as such, and not as a server that is away."""
    database.cluster.execute(f"ALTER ROLE {user} CONNECTION LIMIT 1")
    engine = limited(database, user, poolclass=sa.NullPool)
    with engine.connect():
        error = failure(lambda: connect(engine))
    assert error.message.startswith("the database has no room")
    assert "too many connections for role" in error.message
    assert "CONNECTION LIMIT" in error.hint
    connect(engine)


def test_no_connection_free_in_the_pool(database: Database, user: str) -> None:
    """SQLAlchemy's own timeout is no driver's error, and becomes ours all the same."""
    engine = limited(database, user, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with engine.connect():
        assert "pool_size" in failure(lambda: connect(engine)).hint
    connect(engine)
    engine.dispose()


def test_a_refusal_stays_one(database: Database, user: str) -> None:
    """What only an operator can mend is not taken for passing."""
    database.cluster.execute(f"REVOKE auditstore_writer FROM {user}")
    engine = limited(database, user)
    with pytest.raises(DatabaseRefused, match="permission denied"):
        append(engine, 1)
    engine.dispose()


# --- under load ---------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
@pytest.mark.long
def test_timeouts_under_load(database: Database, folder_place: Place, setting: str) -> None:
    """Writers' and exporters' statements end at locks that others hold; nothing else happens."""
    # A prepared transaction whose end met a fault would stay open for the rest of the run.
    run = FaultRun(database.url, folder_place, exporters=2, limits=LARGE, without=["prepare"])
    database.cluster.execute(
        f"ALTER ROLE postgres IN DATABASE {database.name} SET {setting} = '250ms'"
    )
    with run.running(), database.cluster.connect(database.name) as locker:
        locker.execute(f"SET {setting} = 0")
        for table in ("events", "streams", "files"):
            run.progress(events=20, within=60)
            with locker.transaction():
                locker.execute(f"LOCK TABLE auditstore.{table} IN ACCESS EXCLUSIVE MODE")
                run.injected(f"{table} locked beyond the {setting}")
                locker.execute("SELECT pg_sleep(0.6)")
        run.recovered(within=60)
        logs = "".join(each.logged() for each in run.exporters)
    run.check()
    assert run.writers.done["met a fault"]
    assert f"due to {setting.replace('_', ' ')}" in logs


def test_what_lives_is_used_where_no_more_is_to_be_had(database: Database, user: str) -> None:
    """After the server ended all of them and grants one only, that one serves everybody."""
    engine = limited(database, user, pool_size=4)
    for each in [engine.connect() for _ in range(4)]:
        each.close()
    database.cluster.execute(f"ALTER ROLE {user} CONNECTION LIMIT 1")
    database.cluster.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", user
    )
    with engine.connect():
        for _ in range(3):
            assert "no room" in failure(lambda: connect(engine)).message
    for _ in range(8):
        connect(engine)
    engine.dispose()


@pytest.mark.long
def test_no_connection_left_under_load(database: Database, user: str, folder_place: Place) -> None:
    """Exporters work with the connections that they get; without any they wait, and say why."""
    limit = f"ALTER ROLE {user} CONNECTION LIMIT"
    run = FaultRun(
        database.url, folder_place, exporters=2, limits=LARGE, exporter_url=url_for(database, user)
    )
    end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s"
    with run.running():
        run.progress(events=40)
        for most in (0, 3):  # with 3: two fences, and one connection for the work of both
            database.cluster.execute(f"{limit} {most}")
            ended = database.cluster.execute(end, user)[0][0]
            run.injected("connections taken away", ended)
            if most:
                run.progress(events=40, within=60)
            else:
                eventually(lambda: refused(database, user) >= 4, within=30, what="they try again")
                assert all(each.running for each in run.exporters)
                run.injected("no connection left")
            database.cluster.execute(f"{limit} -1")
            run.recovered(within=60)
    run.check()


def refused(database: Database, user: str) -> int:
    """How often the server had no connection for the user."""
    return database.cluster.log.read_text().count(f'too many connections for role "{user}"')


@pytest.mark.long
def test_started_without_a_connection_left(
    database: Database, user: str, folder_place: Place
) -> None:
    """It waits for one, says what to do, and begins as soon as there is one."""
    database.cluster.execute(f"ALTER ROLE {user} CONNECTION LIMIT 0")
    run = FaultRun(
        database.url, folder_place, exporters=2, limits=LARGE, exporter_url=url_for(database, user)
    )
    with run.running():
        eventually(
            lambda: all(
                "the database has no room" in each.logged()
                and "CONNECTION LIMIT" in each.logged()
                for each in run.exporters
            ),
            within=30, what="they say why they wait",
        )  # fmt: skip
        run.injected("started without a connection left", len(run.exporters))
        database.cluster.execute(f"ALTER ROLE {user} CONNECTION LIMIT -1")
        run.recovered(within=60)
    run.check()
