"""The server is shut down at once, again and again, while writers append and exporters export."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from support.eventually import eventually
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import NEWEST, VERSIONS
from support.lead_events import id_of, lead_event
from support.postgres import Cluster
from support.stores import Place

from auditstore.database import migrate
from auditstore.repository import EventRepository

# By so many positions a sequence is ahead in the WAL, so that they are not handed out again.
_LOGGED_AHEAD = 32


@pytest.fixture
def cluster_of_its_own(restartable_cluster: Cluster) -> Cluster:
    """A migrated server that may be crashed."""
    migrate(restartable_cluster.url())
    return restartable_cluster


def test_immediate_shutdowns_under_load(cluster_of_its_own: Cluster, folder_place: Place) -> None:
    """Commits whose answer was lost are asked for afterwards; all others are as they were told."""
    # A prepared transaction whose end met a crash would stay open for the rest of the run.
    run = FaultRun(
        cluster_of_its_own.url(), folder_place, exporters=2, limits=LARGE, without=["prepare"]
    )
    with run.running():
        for _ in range(2):
            run.progress(events=40)
            cluster_of_its_own.restart("immediate")
            run.injected("immediate shutdown")
            run.recovered(within=60)
    run.check()


def test_a_prepared_transaction_left_open_over_a_crash(
    cluster_of_its_own: Cluster, folder_place: Place
) -> None:
    """It holds everything behind it back, over the restart too, until it is committed."""
    run = FaultRun(
        cluster_of_its_own.url(), folder_place, exporters=2, limits=LARGE, without=["prepare"]
    )
    flow = run.streams[0].flow_id
    held = [lead_event(flow) for _ in range(5)]
    with run.running():
        run.progress(events=40)
        with run.engine.connect() as connection:
            EventRepository().append(connection, held)
            first = connection.scalar(
                sa.text("SELECT min(position) FROM auditstore.events WHERE event_id = :id"),
                {"id": id_of(held[0])},
            )
            connection.exec_driver_sql("PREPARE TRANSACTION 'left open'")
        cluster_of_its_own.restart("immediate")
        run.injected("crash with a prepared transaction left open")
        waiting = "SELECT count(*) FROM auditstore.events WHERE position > :first"
        eventually(lambda: ask(run, waiting, first) > 200, within=60, what="others go on")
        assert ask(run, "SELECT max(sealed_position) FROM auditstore.streams") < first
        with run.engine.connect() as plain:
            autocommit = plain.execution_options(isolation_level="AUTOCOMMIT")
            autocommit.exec_driver_sql("COMMIT PREPARED 'left open'")
        run.writers.committed[flow] |= {id_of(each): each for each in held}
        run.recovered(within=60)
    run.check()


def ask(run: FaultRun, statement: str, first: int = 0) -> int:
    """A number from the database; 0 while it is away."""
    try:
        with run.engine.connect() as connection:
            return int(connection.scalar(sa.text(statement), {"first": first}) or 0)
    except sa.exc.DBAPIError:
        return 0


@pytest.fixture
def hasty_cluster() -> Iterator[Cluster]:
    """A server that commits without waiting, and whose WAL writer hardly ever writes."""
    own = Cluster.create(
        VERSIONS[NEWEST],
        settings={"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_buffers": "64MB"},
    )
    migrate(own.url())
    own.execute("CHECKPOINT")  # the schema is there to stay
    yield own
    own.destroy()


def exported(run: FaultRun) -> set[str]:
    """The ids of the events in the buckets."""
    found: set[str] = set()
    for stream in run.streams:
        store = run.open_store(stream)
        for info in store.list(""):
            body = b"".join(store.read(info.key) or ())
            content = gzip.decompress(body) if info.key.endswith(".gz") else body
            found |= {id_of(line) for line in content.splitlines()}
        store.close()
    return found


def stored(run: FaultRun) -> set[str]:
    """The ids of the events in the outbox."""
    with run.engine.connect() as connection:
        return set(connection.execute(sa.text("SELECT event_id FROM auditstore.events")).scalars())


@pytest.mark.long
def test_crashes_that_take_commits_back_under_load(
    hasty_cluster: Cluster, folder_place: Place
) -> None:
    """Positions are handed out again, but no event that lies in the bucket is one of the lost."""
    # Two acts would take for known what the database has forgotten.
    run = FaultRun(
        hasty_cluster.url(),
        folder_place,
        exporters=2,
        limits=LARGE,
        without=["repeat", "conflict", "prepare"],
    )
    hasty_cluster.execute("CHECKPOINT")
    again = 0
    with run.running():
        for _ in range(2):
            run.progress(events=40)
            # What they seal flushes everything; stopped, they come back with an old fence.
            for exporter in run.exporters:
                exporter.pause()
            before = ask(run, "SELECT auditstore.last_position()")
            goal = before + _LOGGED_AHEAD + 40
            eventually(
                lambda: ask(run, "SELECT auditstore.last_position()") > goal,  # noqa: B023  # called at once
                within=30, what="more is appended",
            )  # fmt: skip
            before = ask(run, "SELECT auditstore.last_position()")
            hasty_cluster.stop("immediate")
            in_buckets = exported(run)
            hasty_cluster.start()
            run.injected("crash of a server that commits without waiting")
            again += before > ask(run, "SELECT auditstore.last_position()")
            gone = in_buckets - stored(run)
            assert not gone, f"{len(gone)} exported events are gone"
            for exporter in run.exporters:
                exporter.resume()
            run.recovered(within=60)
    lost = run.writers.forget_what_was_lost()
    run.check(f"{lost} committed events lost, positions handed out again after {again} crashes")
    # Else the crashes took nothing back, and the test proves nothing.
    assert lost
