"""The fence never passes a position whose transaction may still commit, and never starves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from support.fences import append, append_one, autocommit, open_fence, read_upto
from support.fixtures_postgres import Database

from auditstore.sql import fence as sql

End = Callable[[Connection], None]


@pytest.fixture
def any_engine(database_any: Database) -> Iterator[Engine]:
    """An engine on a fresh database of each version."""
    made = sa.create_engine(database_any.url)
    yield made
    made.dispose()


def commit(connection: Connection) -> None:
    """End a transaction well."""
    connection.commit()


def roll_back(connection: Connection) -> None:
    """End a transaction without a trace."""
    connection.rollback()


def test_an_empty_outbox_is_safe_at_zero(engine: Engine) -> None:
    """Before the first position is handed out the fence stands at 0, and follows the first."""
    with open_fence(engine) as fence:
        assert fence.advance() == 0
        assert fence.advance() == 0
        position = append_one(engine)
        assert fence.advance() == position


@pytest.mark.parametrize("end", [commit, roll_back])
def test_waits_for_the_lower_position_that_commits_later(any_engine: Engine, end: End) -> None:
    """What a plain reader skips: the fence stays below the open writer until it has ended."""
    with any_engine.connect() as slow, open_fence(any_engine) as fence:
        before = append_one(any_engine)
        assert fence.advance() == before
        (lower,) = append(slow)
        higher = append_one(any_engine)
        assert lower < higher

        for _ in range(3):
            assert fence.advance() == before
        end(slow)

        assert fence.advance() == higher
        expected = [before, lower, higher] if end is commit else [before, higher]
        with any_engine.connect() as reader:
            assert read_upto(reader, fence.position) == expected


@pytest.mark.parametrize("release", [True, False], ids=["released", "rolled-back"])
def test_a_savepoint_does_not_hide_its_writer(any_engine: Engine, release: bool) -> None:
    """A position taken outside a savepoint is waited for, whatever becomes of the savepoint."""
    with any_engine.connect() as slow, open_fence(any_engine) as fence:
        (outer,) = append(slow)
        savepoint = slow.begin_nested()
        (inner,) = append(slow)
        higher = append_one(any_engine)
        assert fence.advance() < outer
        if release:
            savepoint.commit()
        else:
            savepoint.rollback()
        assert fence.advance() < outer
        slow.commit()

        assert fence.advance() == higher
        with any_engine.connect() as reader:
            expected = [outer, inner, higher] if release else [outer, higher]
            assert read_upto(reader, fence.position) == expected


def test_a_writer_inside_a_released_savepoint_is_waited_for(any_engine: Engine) -> None:
    """A position taken only inside a savepoint belongs to the transaction once released."""
    with any_engine.connect() as slow, open_fence(any_engine) as fence:
        slow.execute(sa.text("SELECT 1"))
        savepoint = slow.begin_nested()
        (inner,) = append(slow)
        higher = append_one(any_engine)
        assert fence.advance() < inner
        savepoint.commit()
        assert fence.advance() < inner
        slow.commit()

        assert fence.advance() == higher
        with any_engine.connect() as reader:
            assert read_upto(reader, fence.position) == [inner, higher]


@pytest.mark.parametrize("taken", ["before", "after"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_prepared_transaction_is_waited_for(any_engine: Engine, taken: str, end: str) -> None:
    """Prepared after or before the fence looked, and ended by another session."""
    gid = f"held-{taken}-{end}-{any_engine.url.database}"
    with open_fence(any_engine) as fence:
        with any_engine.connect() as slow:
            (lower,) = append(slow)
            higher = append_one(any_engine)
            if taken == "before":
                assert fence.advance() < lower
            slow.exec_driver_sql(f"PREPARE TRANSACTION '{gid}'")
        for _ in range(3):
            assert fence.advance() < lower
        # A session that takes the writer's place in the server must not be taken for it.
        append_one(any_engine)
        assert fence.advance() < lower
        with autocommit(any_engine) as other:
            other.exec_driver_sql(f"{end} PREPARED '{gid}'")

        assert fence.advance() == higher + 1
        expected = [lower, higher, higher + 1][end == "ROLLBACK" :]
        with any_engine.connect() as reader:
            assert read_upto(reader, fence.position) == expected


def test_an_unrelated_long_transaction_delays_nothing(any_engine: Engine) -> None:
    """A transaction that writes elsewhere holds pg_snapshot_xmin back, but not the fence."""
    with any_engine.connect() as unrelated, open_fence(any_engine) as fence:
        unrelated.execute(sa.text("CREATE TABLE elsewhere (a int)"))
        unrelated.execute(sa.text("INSERT INTO elsewhere VALUES (1)"))
        assert unrelated.scalar(sa.text("SELECT pg_current_xact_id_if_assigned()::text"))
        for _ in range(3):
            position = append_one(any_engine)
            assert fence.advance() == position


def test_moves_on_while_some_writer_is_always_open(any_engine: Engine) -> None:
    """Writers that overlap without end do not starve the fence: each waits for its own only."""
    with any_engine.connect() as one, any_engine.connect() as two, open_fence(any_engine) as fence:
        writers = (one, two)
        positions = append(one)
        fence.advance()
        for turn in range(40):
            # The next writer opens before the last one ends, and the fence looks in between.
            positions += append(writers[(turn + 1) % 2])
            fence.advance()
            writers[turn % 2].commit()
            assert fence.advance() >= positions[-2], f"starved in turn {turn}"
            assert fence.position < positions[-1]
        assert sql.open_writers(one)


def test_behind_one_long_writer_it_keeps_few_marks_and_still_catches_up(engine: Engine) -> None:
    """Marks behind a long writer are thinned; when it ends, the newest position is safe."""
    with engine.connect() as slow, open_fence(engine) as fence:
        (lower,) = append(slow)
        for _ in range(200):
            append_one(engine)
            assert fence.advance() < lower
        assert len(fence._marks) <= 65
        slow.commit()
        assert fence.advance() == lower + 200


def test_sees_an_insert_straight_into_a_partition(any_engine: Engine) -> None:
    """On 18 an owner's direct insert is given a position, and waited for; on 15 it is refused.

    Before 17 partitions have no identity of their own, so the position stays empty.
    """
    statement = sa.text(
        "INSERT INTO auditstore.events_default (event_id, flow_id, payload, size_bytes, sha256)"
        " VALUES (:id, 'flow-1', '{}', 2, sha256('{}')) RETURNING position"
    )
    with any_engine.connect() as owner, open_fence(any_engine) as fence:
        version = owner.dialect.server_version_info
        assert version is not None
        if version < (17,):
            with pytest.raises(sa.exc.IntegrityError, match='null value in column "position"'):
                owner.execute(statement, {"id": f"{0:024x}"})
            return
        lower = owner.execute(statement, {"id": f"{0:024x}"}).scalar_one()
        higher = append_one(any_engine)
        assert lower < higher
        assert fence.advance() < lower
        owner.commit()
        assert fence.advance() == higher


def test_nobody_copies_a_position_in_as_the_writer(any_engine: Engine) -> None:
    """COPY writes explicit values even into GENERATED ALWAYS, so the grant must not allow it."""
    with any_engine.connect() as connection:
        connection.execute(sa.text("SET ROLE auditstore_writer"))
        driver = connection.connection.driver_connection
        assert driver is not None
        with (
            pytest.raises(Exception, match="permission denied"),
            driver.cursor() as cursor,
            cursor.copy(
                "COPY auditstore.events (position, event_id, flow_id, payload, size_bytes, sha256)"
                " FROM STDIN"
            ),
        ):
            pass
