"""Limits that a server sets: timeouts, connections, a pool. They are told apart, and pass."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url
from support.fixtures_postgres import Database
from support.lead_events import lead_event

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
    url = make_url(database.url).set(username=user).render_as_string(hide_password=False)
    return create_engine(url, **options)


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
