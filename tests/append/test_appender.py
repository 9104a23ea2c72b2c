"""Many threads, few commits: each caller gets its own result, and only when it is durable."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, text
from support.eventually import eventually
from support.postgres import Cluster
from support.snapshots import fields, snapshot

from auditstore import AppenderLimits, AppendResult, EventRepository, GroupAppender
from auditstore.database import migrate
from auditstore.errors import (
    AppenderBusy,
    AppenderClosed,
    AuditStoreError,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    EventConflict,
    EventRefused,
    OutcomeUnknown,
)

NEW = AppendResult(appended=1, existing=0)
KNOWN = AppendResult(appended=0, existing=1)


@contextmanager
def held_up(engine: Engine, appender: GroupAppender) -> Iterator[Future[AppendResult]]:
    """A first group that waits for another transaction while the block runs.

    What is submitted meanwhile makes the next group.
    """
    blocking = snapshot()
    with engine.connect() as connection:
        EventRepository().append(connection, blocking)
        first = appender.submit(blocking)
        eventually(lambda: waiting(engine, "Lock"), what="the first group never came to wait")
        try:
            yield first
        finally:
            connection.rollback()


def waiting(engine: Engine, kind: str) -> list[int]:
    """The sessions that wait for this."""
    with engine.connect() as connection:
        return list(
            connection.scalars(
                text(
                    "SELECT pid FROM pg_stat_activity"
                    " WHERE wait_event_type = :kind OR wait_event = :kind"
                ),
                {"kind": kind},
            )
        )


def terminate(engine: Engine, pid: int) -> None:
    """End a session as an administrator does."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})


def stored(engine: Engine) -> list[bytes]:
    """Every snapshot in the outbox, in order of position."""
    with engine.connect() as connection:
        rows = connection.scalars(
            text("SELECT payload::text FROM auditstore.events ORDER BY position")
        )
        return [payload.encode() for payload in rows]


def transactions(engine: Engine) -> int:
    """How many transactions wrote what the outbox holds."""
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT count(DISTINCT xmin::text) FROM auditstore.events"))
    assert isinstance(found, int)
    return found


def test_each_caller_returns_when_its_event_is_committed(engine: Engine) -> None:
    """Sixteen threads share commits, and each sees its own event from elsewhere at once."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    wide = sa.create_engine(engine.url, pool_size=17)
    visible = text("SELECT count(*) FROM auditstore.events WHERE event_id = ANY(:ids)")

    def call(number: int) -> int:
        chance = random.Random(f"{seed}-{number}")
        total = 0
        for _ in range(15):
            given = [snapshot() for _ in range(chance.choice((1, 1, 1, 2, 7)))]
            result = appender.append(given if len(given) > 1 else given[0])
            assert result == AppendResult(appended=len(given), existing=0)
            with wide.connect() as connection:
                ids = [json.loads(payload)["id"] for payload in given]
                assert connection.scalar(visible, {"ids": ids}) == len(given)
            total += len(given)
        return total

    with GroupAppender(wide) as appender, ThreadPoolExecutor(16) as threads:
        total = sum(threads.map(call, range(16)))

    assert len(stored(engine)) == total
    assert transactions(engine) < 16 * 15
    wide.dispose()


def test_stores_in_the_order_of_the_calls(engine: Engine) -> None:
    """With one connection, positions follow the order in which the events were submitted."""
    given = [snapshot() for _ in range(500)]
    with GroupAppender(engine, limits=AppenderLimits(group_events=37)) as appender:
        futures = [appender.submit(payload) for payload in given]
        assert {future.result(60) for future in futures} == {NEW}

    assert stored(engine) == given


def test_a_bad_event_fails_nobody_else(engine: Engine) -> None:
    """In one group: refused by the server, known, in conflict, and good ones around them."""
    known, taken = snapshot(), fields()
    with engine.begin() as connection:
        EventRepository().append(connection, [known, taken])
        connection.execute(
            text("ALTER TABLE auditstore.events ADD CONSTRAINT no_poison CHECK (type <> 'poison')")
        )
    good = [snapshot() for _ in range(5)]
    changed = taken | {"reason": "rewritten"}
    with GroupAppender(engine) as appender:
        with held_up(engine, appender) as first:
            offered = {
                "good": appender.submit(good[0]),
                "poison": appender.submit(snapshot(type="poison")),
                "known": appender.submit(known),
                "conflict": appender.submit(changed),
                "all or none": appender.submit([snapshot(), changed, snapshot()]),
                "twice in the group": appender.submit([good[0], good[1]]),
                "other content in the group": appender.submit(
                    json.loads(good[1]) | {"reason": "other"}
                ),
                "many": appender.submit(good[2:]),
            }
            with pytest.raises(EventRefused) as refused:
                appender.append([snapshot(), b"{}"])
        outcome = {
            name: future.exception(60) or future.result() for name, future in offered.items()
        }
        assert first.result(60) == NEW

    assert (refused.value.index, refused.value.field) == (1, "id")
    assert outcome["good"] == NEW
    assert isinstance(outcome["poison"], DatabaseRefused)
    assert "no_poison" in str(outcome["poison"])
    assert outcome["known"] == KNOWN
    for name in ("conflict", "all or none", "other content in the group"):
        assert isinstance(outcome[name], EventConflict), name
    assert outcome["twice in the group"] == AppendResult(appended=1, existing=1)
    assert outcome["many"] == AppendResult(appended=3, existing=0)
    assert sorted(stored(engine)[2:]) == sorted([*good, *stored(engine)[2:3]])


def test_repeated_events_stay_in_one_transaction(engine: Engine) -> None:
    """A group half of which is stored already is written by one COPY nevertheless."""
    old, new = [snapshot() for _ in range(20)], [snapshot() for _ in range(20)]
    with GroupAppender(engine) as appender:
        appender.append(old)
        with held_up(engine, appender):
            futures = [
                appender.submit(payload) for pair in zip(old, new, strict=True) for payload in pair
            ]
        assert [future.result(60) for future in futures] == [KNOWN, NEW] * 20

    assert stored(engine)[-20:] == new
    assert transactions(engine) == 3


def test_a_full_queue_holds_callers_back(engine: Engine) -> None:
    """Beyond the limits a call waits for room, and gives up with a clear error after a while."""
    limits = AppenderLimits(queued_events=3, queue_timeout=30)
    with GroupAppender(engine, limits=limits) as appender, ThreadPoolExecutor(1) as threads:
        with held_up(engine, appender) as first:
            taken = [appender.submit(snapshot()) for _ in range(2)]
            with pytest.raises(AppenderBusy, match="3 events") as busy:
                appender.append(snapshot(), timeout=0.05)
            with pytest.raises(AppenderBusy):
                appender.submit(snapshot(), timeout=0)
            patient = threads.submit(appender.append, snapshot())
        assert patient.result(60) == NEW
        assert [future.result(60) for future in (first, *taken)] == [NEW] * 3
        # Alone, a call larger than the limit goes through.
        assert appender.append([snapshot() for _ in range(10)]).appended == 10

    assert "Nothing of this call was appended" in busy.value.hint
    assert len(stored(engine)) == 14


def test_a_full_queue_counts_bytes_too(engine: Engine) -> None:
    """A few large events fill the queue as many small ones do."""
    limits = AppenderLimits(queued_bytes=50_000)
    with (
        GroupAppender(engine, limits=limits) as appender,
        held_up(engine, appender),
    ):
        appender.submit(snapshot(padding="x" * 40_000))
        with pytest.raises(AppenderBusy):
            appender.submit(snapshot(padding="x" * 40_000), timeout=0)


def test_lingers_for_company_and_no_longer_than_needed(engine: Engine) -> None:
    """With a linger, calls that come soon share a commit; a full group does not wait."""
    patient = AppenderLimits(linger_us=300_000, group_events=1000)
    with GroupAppender(engine, limits=patient) as appender:
        futures = [appender.submit(snapshot()), appender.submit(snapshot())]
        assert [future.result(60) for future in futures] == [NEW, NEW]
    assert transactions(engine) == 1

    minute = AppenderLimits(linger_us=200_000_000, group_events=2)
    with GroupAppender(engine, limits=minute) as appender:
        futures = [appender.submit(snapshot()), appender.submit(snapshot())]
        assert [future.result(60) for future in futures] == [NEW, NEW]
        # Closing ends the waiting.
        last = appender.submit(snapshot())
    assert last.result(0) == NEW


def test_closing_commits_what_is_queued_and_takes_no_more(engine: Engine) -> None:
    """After close every call taken has its result, and the connection is back in the pool."""
    appender = GroupAppender(engine)
    futures = [appender.submit(snapshot()) for _ in range(300)]
    appender.close()

    assert [future.result(0) for future in futures] == [NEW] * 300
    with pytest.raises(AppenderClosed):
        appender.append(snapshot())
    appender.close()
    assert len(stored(engine)) == 300
    assert isinstance(engine.pool, sa.QueuePool)
    assert engine.pool.checkedout() == 0


def test_closing_gives_up_after_its_timeout(engine: Engine) -> None:
    """What is in no group by then fails, says so, and is not stored; a held-back caller too."""
    appender = GroupAppender(engine, limits=AppenderLimits(queued_events=2))
    with held_up(engine, appender) as first, ThreadPoolExecutor(1) as threads:
        queued = appender.submit(snapshot())
        held_back = threads.submit(appender.append, snapshot())
        appender.close(timeout=0.05)
        assert isinstance(queued.exception(60), AppenderClosed)
        assert isinstance(held_back.exception(60), AppenderClosed)
    assert first.result(60) == NEW
    appender.close()
    assert len(stored(engine)) == 1


def test_a_session_lost_before_the_commit_appended_nothing(engine: Engine) -> None:
    """Everybody in the group is told that nothing was appended, and the next group goes on."""
    with GroupAppender(engine) as appender:
        with held_up(engine, appender) as first:
            behind = appender.submit(snapshot())
            (pid,) = waiting(engine, "Lock")
            terminate(engine, pid)
            lost = first.exception(60)
        assert isinstance(lost, DatabaseUnavailable)
        assert not isinstance(lost, OutcomeUnknown)
        assert "nothing of this call was appended" in str(lost)
        assert behind.result(60) == NEW

    assert len(stored(engine)) == 1


def test_a_session_lost_while_idle_is_replaced(engine: Engine) -> None:
    """Nobody notices that the server closed the connection between two groups."""
    with GroupAppender(engine) as appender:
        appender.append(snapshot())
        with engine.begin() as connection:
            ended = connection.scalar(
                text(
                    "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        assert ended
        assert appender.append(snapshot()) == NEW


def test_a_session_lost_during_the_commit_leaves_the_outcome_open(
    restartable_cluster: Cluster,
) -> None:
    """Killed after COMMIT was sent, each caller learns that it is not known; repeating is right."""
    cluster = restartable_cluster
    engine = migrated(cluster)
    given = [snapshot() for _ in range(5)]
    with GroupAppender(engine) as appender:
        appender.append(snapshot())
        # A commit that waits for a standby which never comes: on disk, not yet answered.
        cluster.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        cluster.execute("SELECT pg_reload_conf()")
        eventually(lambda: cluster.execute("SHOW synchronous_standby_names") == [("nobody",)])
        futures = [appender.submit(given)]
        (pid,) = eventually(lambda: waiting(engine, "SyncRep"), within=30)
        futures += [appender.submit(snapshot()) for _ in range(3)]
        cluster.execute("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.execute(f"SELECT pg_terminate_backend({pid})")
        unknown = futures[0].exception(60)
        cluster.execute("SELECT pg_reload_conf()")
        assert [future.result(60) for future in futures[1:]] == [NEW] * 3
        assert isinstance(unknown, OutcomeUnknown)
        assert "not known" in str(unknown)
        assert "Append the same events again" in unknown.hint
        assert appender.append(given) == AppendResult(appended=0, existing=5)
    engine.dispose()


def test_every_waiting_caller_hears_that_the_database_is_away(
    restartable_cluster: Cluster,
) -> None:
    """Also those still queued; when the server is back, the same appender goes on."""
    engine = migrated(restartable_cluster)
    given = [snapshot() for _ in range(20)]
    with GroupAppender(engine, limits=AppenderLimits(group_events=4)) as appender:
        appender.append(snapshot())
        restartable_cluster.stop("immediate")
        with ThreadPoolExecutor(20) as threads:
            failures = [
                future.exception(60)
                for future in [threads.submit(appender.append, payload) for payload in given]
            ]
        assert all(isinstance(failure, DatabaseUnavailable) for failure in failures), failures
        assert len({id(failure) for failure in failures}) == len(given)
        restartable_cluster.start()
        assert [appender.append(payload) for payload in given] == [NEW] * 20
    engine.dispose()


def test_a_result_survives_a_crash_though_the_server_would_not_wait(
    restartable_cluster: Cluster,
) -> None:
    """With synchronous_commit off for everybody, the appender's commits wait for the disk."""
    engine = migrated(restartable_cluster)
    for setting in ("synchronous_commit = off", "wal_writer_delay = '10s'"):
        restartable_cluster.execute(f"ALTER SYSTEM SET {setting}")
    restartable_cluster.restart()
    with GroupAppender(engine) as appender:
        assert appender.append(snapshot()) == NEW
        assert appender.append([snapshot() for _ in range(9)]).appended == 9
        restartable_cluster.stop("immediate")
        restartable_cluster.start()
    engine.dispose()

    assert restartable_cluster.execute("SELECT count(*) FROM auditstore.events") == [(10,)]


def migrated(cluster: Cluster) -> Engine:
    """An engine on a server of the test's own, with the schema in it."""
    migrate(cluster.url())
    return sa.create_engine(cluster.url())


def test_serves_asyncio_and_forgets_what_was_cancelled(engine: Engine) -> None:
    """A wrapped future is awaited; one that is cancelled in time is not stored."""
    given = [snapshot() for _ in range(10)]

    async def append_all() -> list[AppendResult]:
        futures = [asyncio.wrap_future(appender.submit(payload, timeout=0)) for payload in given]
        return list(await asyncio.gather(*futures))

    with GroupAppender(engine) as appender:
        assert asyncio.run(append_all()) == [NEW] * 10
        with held_up(engine, appender):
            unwanted, wanted = appender.submit(snapshot()), appender.submit(snapshot())
            assert unwanted.cancel()
        assert wanted.result(60) == NEW

    assert len(stored(engine)) == 12


def test_several_connections_store_each_event_once(engine: Engine) -> None:
    """Groups of several connections repeat each other's events, and each is stored once."""
    given = [snapshot() for _ in range(200)]
    with GroupAppender(engine, connections=3) as appender:
        futures = [appender.submit(payload) for payload in given * 2]
        results = [future.result(60) for future in futures]

    assert sum(result.appended for result in results) == 200
    assert sorted(stored(engine)) == sorted(given)


def test_an_empty_call_is_done_at_once(engine: Engine) -> None:
    """Nothing to append needs no database."""
    with GroupAppender(engine) as appender:
        assert appender.append([]) == AppendResult(appended=0, existing=0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda engine: GroupAppender(engine, connections=0),
        lambda _: AppenderLimits(group_events=0),
        lambda _: AppenderLimits(linger_us=-1),
    ],
)
def test_refuses_settings_that_cannot_work(
    engine: Engine, wrong: Callable[[Engine], object]
) -> None:
    """A limit without room and a time below zero are refused."""
    with pytest.raises(ConfigurationError):
        wrong(engine)


def test_an_engine_that_would_alter_events_is_told_to_every_caller(database_url: str) -> None:
    """What the repository refuses of a connection, the appender refuses too."""
    latin = sa.create_engine(database_url, connect_args={"client_encoding": "LATIN1"})
    with (
        GroupAppender(latin) as appender,
        pytest.raises(AuditStoreError, match="client_encoding"),
    ):
        appender.append(snapshot())
    latin.dispose()


EXITING = """
import os, sys
from sqlalchemy import create_engine
from auditstore import GroupAppender
engine = create_engine(os.environ["DATABASE_URL"])
appender = GroupAppender(engine)
appender.append(sys.stdin.readline())
child = os.fork()
if not child:
    try:
        appender.append(b"{}")
    except Exception as error:
        os.write(1, type(error).__name__.encode())
    appender.close()
    os._exit(0)
os.waitpid(child, 0)
for line in sys.stdin:
    appender.submit(line)
"""


def test_the_end_of_the_interpreter_flushes(engine: Engine, database_url: str) -> None:
    """An appender nobody closed commits what it holds; a forked child is refused its use."""
    given = [snapshot() for _ in range(200)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXITING],
        input=b"".join(payload + b"\n" for payload in given),
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"ConfigurationError"
    assert len(stored(engine)) == 200


def test_importing_the_package_loads_no_threads_of_it() -> None:
    """The appender is loaded when it is asked for."""
    asked = "import sys, auditstore; print('auditstore.appender' in sys.modules)"
    asked += "; auditstore.GroupAppender; print('auditstore.appender' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.split() == ["False", "True"]
    assert not [each for each in threading.enumerate() if "auditstore-appender" in each.name]
