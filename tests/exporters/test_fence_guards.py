"""A server or connection on which the fence could skip events is refused; holders are told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from structlog.testing import capture_logs
from support.fences import append, append_one, autocommit, open_fence, read_upto
from support.fixtures_postgres import Database
from support.postgres import Cluster

from auditstore.database import migrate
from auditstore.errors import DatabaseReadOnly, TailingUnsafe
from auditstore.sql import fence as sql
from exporters.fence import Fence


def refused(engine: Engine) -> TailingUnsafe:
    """Open a fence that must be refused."""
    with autocommit(engine) as connection, pytest.raises(TailingUnsafe) as error:
        Fence(connection)
    assert error.value.hint
    return error.value


def test_refuses_a_connection_that_is_not_in_autocommit(engine: Engine) -> None:
    """A transaction's statements would share what they see of the locks and the sequence."""
    with engine.connect() as connection, pytest.raises(TailingUnsafe, match="autocommit"):
        Fence(connection)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_refuses_a_stricter_isolation_than_read_committed(database: Database, level: str) -> None:
    """An isolation level set for the database would make the snapshot older than the check."""
    database.cluster.execute(
        f"ALTER DATABASE {database.name} SET default_transaction_isolation = '{level}'"
    )
    engine = sa.create_engine(database.url)
    error = refused(engine)
    assert level in error.message
    assert "default_transaction_isolation" in error.hint
    engine.dispose()


def test_refuses_a_sequence_that_hands_out_in_advance(database_any: Database) -> None:
    """With CACHE 2 a session keeps a lower position back; the hint's command mends it."""
    engine = sa.create_engine(database_any.url)
    with autocommit(engine) as owner:
        owner.execute(sa.text("ALTER TABLE auditstore.events ALTER COLUMN position SET CACHE 2"))
        error = refused(engine)
        assert "CACHE 2" in error.message
        command = error.hint.removeprefix("Run ").partition(" while ")[0]
        owner.exec_driver_sql(command)
        assert Fence(owner).advance() == 0
    engine.dispose()


def test_refuses_a_standby(restartable_cluster: Cluster) -> None:
    """A standby does not show who writes; the primary, and the standby once promoted, are used."""
    primary = restartable_cluster
    primary.execute("CREATE DATABASE audit")
    migrate(primary.url("audit"))
    standby = primary.base_backup()
    try:
        engine = sa.create_engine(standby.url("audit"))
        error = refused(engine)
        assert "standby" in error.message
        assert "primary" in error.hint
        standby.promote()
        with open_fence(engine) as fence:
            position = append_one(engine)
            assert fence.advance() == position
        engine.dispose()
    finally:
        standby.destroy()


# --- what a restart changes ---------------------------------------------------------


def test_a_prepared_transaction_left_over_a_restart_is_waited_for(
    restartable_cluster: Cluster,
) -> None:
    """It has another virtual transaction id then: old fences fail, new ones wait for it."""
    cluster = restartable_cluster
    migrate(cluster.url())
    engine = sa.create_engine(cluster.url())
    with autocommit(engine) as old_connection:
        old = Fence(old_connection)
        before = append_one(engine)
        assert old.advance() == before
        with engine.connect() as slow:
            (lower,) = append(slow)
            higher = append_one(engine)
            assert old.advance() == before
            slow.exec_driver_sql("PREPARE TRANSACTION 'left over'")
        (held,) = sql.open_writers(old_connection)
        cluster.restart()
        with pytest.raises(sa.exc.OperationalError):
            old.advance()
        with pytest.raises(sa.exc.PendingRollbackError):
            old.advance()
    engine.dispose()

    with open_fence(engine) as fence, autocommit(engine) as other:
        (still_held,) = sql.open_writers(other)
        assert still_held.prepared == held.prepared == "left over"
        assert still_held.virtualtransaction != held.virtualtransaction
        for _ in range(3):
            assert fence.advance() < lower
        other.exec_driver_sql("COMMIT PREPARED 'left over'")
        assert fence.advance() >= higher
        assert read_upto(other, fence.position) == [before, lower, higher]
    engine.dispose()


def crash_a_backend(cluster: Cluster) -> None:
    """Kill one backend: the postmaster stays, and recovers as from a crash of the server."""
    with cluster.connect() as victim:
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            victim.execute("SELECT pg_sleep(60)")
    deadline = time.monotonic() + 60
    while True:
        try:
            cluster.execute("SELECT 1")
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
        else:
            return


@pytest.mark.parametrize("how", ["restart", "crash"])
@pytest.mark.parametrize("while_looking", [False, True], ids=["between-looks", "while-looking"])
def test_a_pooler_that_swaps_the_server_does_not_free_old_marks(
    restartable_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, how: str, while_looking: bool
) -> None:
    """The connection lives on in front of another server: marks of the first are thrown away.

    The swap may even come between the fence's two statements.
    """
    cluster = restartable_cluster
    migrate(cluster.url())
    engine = sa.create_engine(cluster.url(), poolclass=sa.NullPool)
    # As the engine's own level it also holds for a connection that SQLAlchemy made anew.
    fences = sa.create_engine(cluster.url(), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    ask = sql.writers
    with fences.connect() as connection:
        fence = Fence(connection)
        with engine.connect() as slow:
            (lower,) = append(slow)
            append_one(engine)
            assert fence.advance() < lower
            slow.exec_driver_sql("PREPARE TRANSACTION 'swapped'")

        def swap() -> None:
            connection.invalidate()
            {"restart": cluster.restart, "crash": lambda: crash_a_backend(cluster)}[how]()
            # SQLAlchemy puts a new driver's connection beneath, as a pooler does.
            connection.rollback()

        def swap_first(asked: sa.Connection) -> sql.Writers:
            monkeypatch.undo()
            swap()
            return ask(asked)

        if while_looking:
            monkeypatch.setattr(sql, "writers", swap_first)
        else:
            swap()
        for _ in range(3):
            assert fence.advance() < lower
        connection.exec_driver_sql("COMMIT PREPARED 'swapped'")
        assert fence.advance() > lower


# --- who holds it back --------------------------------------------------------------


def test_open_writers_are_told_oldest_first(database_any: Database) -> None:
    """Pid, user, application, state, query and age of a session; a prepared one has its gid."""
    engine = sa.create_engine(
        database_any.url, connect_args={"application_name": "slow engine"}, poolclass=sa.NullPool
    )
    gid = f"told-{database_any.name}"
    with engine.connect() as slow, autocommit(engine) as watcher:
        with engine.connect() as preparing:
            append(preparing)
            # A savepoint has a transaction id of its own, which is no prepared transaction.
            with preparing.begin_nested():
                append(preparing)
            preparing.exec_driver_sql(f"PREPARE TRANSACTION '{gid}'")
        append(slow)
        slow_pid = slow.scalar(sa.text("SELECT pg_backend_pid()"))

        prepared, session = sql.open_writers(watcher)

        assert (prepared.prepared, prepared.pid, prepared.state) == (gid, None, None)
        assert session.pid == slow_pid
        assert session.prepared is None
        assert (session.user_name, session.application) == ("postgres", "slow engine")
        assert session.state == "idle in transaction"
        assert session.query == "SELECT pg_backend_pid()"
        assert prepared.age is not None
        assert session.age is not None
        assert 60 > prepared.age > session.age > 0
        slow.rollback()
        watcher.exec_driver_sql(f"ROLLBACK PREPARED '{gid}'")
        assert sql.open_writers(watcher) == []
    engine.dispose()


def test_the_log_names_who_holds_the_fence_back(engine: sa.Engine) -> None:
    """After ten seconds, then every minute, and the end of it; never what the session runs."""
    now = [0.0]
    logged: list[dict[str, Any]] = []

    def looked() -> list[str]:
        with capture_logs() as entries:
            fence.advance()
        logged.extend(entries)
        return [entry["event"] for entry in entries]

    held = "held back by a writer that stays open"
    with engine.connect() as slow, autocommit(engine) as connection:
        fence = Fence(connection, monotonic=lambda: now[0])
        assert looked() == []
        append(slow)
        pid = slow.scalar(sa.text("SELECT pg_backend_pid()"))
        # The writer's age is the server's to tell, and this test does not wait for it.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sql, "open_writers", aged(sql.open_writers, 10.0))
            for now[0], expected in (
                (9.0, []), (10.0, [held]), (11.0, []), (69.0, []), (70.0, [held]), (71.0, []),
            ):  # fmt: skip
                assert looked() == expected, now
        slow.commit()
        assert looked() == ["held back no more"]
        assert looked() == []
    first = logged[0]
    assert (first["pid"], first["user"], first["application"], first["state"]) == (
        pid, "postgres", "", "idle in transaction",
    )  # fmt: skip
    assert first["open_for"] >= 10
    assert "idle_in_transaction_session_timeout" in first["hint"]
    assert not any("SELECT" in str(entry) for entry in logged)


def aged(
    ask: Callable[[sa.Connection], list[sql.OpenWriter]], seconds: float
) -> Callable[[sa.Connection], list[sql.OpenWriter]]:
    """The open writers as they would be told so many seconds later."""
    return lambda connection: [
        replace(writer, age=(writer.age or 0.0) + seconds) for writer in ask(connection)
    ]


def test_a_server_that_takes_no_writes_is_waited_for(database: Database) -> None:
    """The fence says so at once, on the connection that it has, and goes on when it is lifted."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    with open_fence(engine) as fence:
        position = append_one(engine)
        assert fence.advance() == position
        fence._connection.exec_driver_sql("SET default_transaction_read_only = on")
        with pytest.raises(DatabaseReadOnly, match="takes no writes") as caught:
            fence.advance()
        assert "AUDITSTORE_DATABASE_URL at the primary" in caught.value.hint
        fence._connection.exec_driver_sql("SET default_transaction_read_only = off")
        assert fence.advance() == position
    engine.dispose()
