"""The real daemon at work: promptness, fairness, leases, and what it lives through."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa
from support.eventually import eventually, never
from support.memory_store import DENIED
from support.postgres import Cluster
from support.site import QUICK, Site

import exporters.daemon
from auditstore import streams
from auditstore.database import migrate
from auditstore.errors import DatabaseUnavailable, TailingUnsafe
from auditstore.sql import leases as leases_sql
from auditstore.sql import partitions as partitions_sql
from exporters import worker
from exporters.daemon import Daemon, DaemonConfig


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    """A fresh database, no stream and no daemon yet."""
    made = Site(database_url)
    yield made
    made.close()


# --- when files go out --------------------------------------------------------------


def test_a_quiet_flow_is_flushed_after_its_delay(site: Site) -> None:
    """One event and nothing after it: delivered when its delay is over, not before."""
    stream_id = site.add(max_delay=0.6)
    site.start()
    site.append(stream_id)
    waited = site.wait(stream_id)
    assert 0.4 < waited < 3
    site.check()


def test_an_idle_store_is_hardly_looked_at(site: Site) -> None:
    """A few times a second instead of at each tick; what comes then is still in time."""
    stream_id = site.add(max_delay=2.0)
    daemon = site.start()
    site.append(stream_id)
    assert site.wait(stream_id) < 2.5
    looks: list[str] = []

    def listen(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "last_position" in statement:
            looks.append(statement)

    sa.event.listen(site.engines[-1], "before_cursor_execute", listen)
    never(lambda: len(looks) > 12, during=1.0)
    assert looks
    site.append(stream_id)
    assert site.wait(stream_id) < 2.5
    site.stop(daemon)


def test_a_full_file_goes_out_before_its_delay(site: Site) -> None:
    """Events that fill a file do not wait for an hour."""
    stream_id = site.add(max_delay=3600, max_events=5)
    site.start()
    site.append(stream_id, 3)
    never(lambda: site.stores[stream_id].objects, during=0.2)
    site.append(stream_id, 2)
    assert site.wait(stream_id) < 3
    site.check()


def test_a_stream_covers_what_is_appended_after_it_was_enabled(site: Site) -> None:
    """Events from before, of its own flow, are not its own; a new stream needs no restart."""
    site.start()
    stream_id = site.add(enabled=False)
    site.append(stream_id, 3, covered=False)
    site.change(streams.enable, stream_id)
    site.append(stream_id, 2)
    site.wait(stream_id)
    site.check()


@pytest.mark.parametrize("catch_up", [False, True])
def test_disabling_and_enabling_again(site: Site, catch_up: bool) -> None:
    """What came while it was disabled is covered with --catch-up, else it is not."""
    stream_id = site.add()
    site.start()
    site.append(stream_id, 2)
    site.wait(stream_id)
    site.change(streams.disable, stream_id)
    site.append(stream_id, 3, covered=catch_up)
    never(lambda: len(site.stores[stream_id].objects) > 2, during=0.2)
    site.change(streams.enable, stream_id, catch_up=catch_up)
    site.append(stream_id, 2)
    site.wait(stream_id)
    site.check()


# --- streams in trouble -----------------------------------------------------------------


@pytest.mark.parametrize("act", ["change", "resume"])
def test_a_blocked_stream_goes_on_as_soon_as_it_is_changed(site: Site, act: str) -> None:
    """Not after its half minute, but when the daemon next looks at its leases."""
    stream_id = site.add()
    site.stores[stream_id].trouble = DENIED
    site.start()
    site.append(stream_id, 2)
    eventually(lambda: site.stream(stream_id).status.state == "blocked")
    site.stores[stream_id].trouble = None
    never(lambda: site.delivered(stream_id), during=0.3)
    if act == "change":
        site.change(streams.change, stream_id, {"region": "eu-west-1"})
    else:
        site.change(streams.resume, stream_id)
    assert site.wait(stream_id) < QUICK.lease_ttl
    assert site.stream(stream_id).status.state == "streaming"
    site.check()


def test_a_blocked_stream_tries_again_by_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every half minute, shortened here; once the cause is gone it goes on, with nobody's help."""
    assert worker._BLOCKED_RETRY == 30.0
    monkeypatch.setattr(worker, "_BLOCKED_RETRY", 0.5)
    stream_id = site.add()
    store = site.stores[stream_id]
    store.trouble = DENIED
    site.start()
    site.append(stream_id, 2)
    eventually(lambda: site.stream(stream_id).status.attempts >= 3)
    assert site.stream(stream_id).status.state == "blocked"
    store.trouble = None
    site.wait(stream_id)
    assert site.stream(stream_id).status.state == "streaming"
    with site.engine.connect() as connection:
        changes = streams.state_changes(connection, stream_id, limit=10)
    assert [(each.from_state, each.to_state) for each in changes] == [
        ("blocked", "streaming"), ("streaming", "blocked"), ("disabled", "streaming"),
    ]  # fmt: skip
    assert changes[0].attempts >= 3
    site.check()


def test_a_halted_stream_waits_for_its_operator(site: Site) -> None:
    """A conflict is not tried again by itself; resumed, it goes on."""
    stream_id = site.add(key_template="{stream}-{sequence}")
    store = site.stores[stream_id]
    site.append(stream_id, 1)
    site.start()
    site.wait(stream_id)
    taken = f"some/prefix/{stream_id:06d}-0000000002"
    store.objects[taken] = b"somebody else's"
    site.append(stream_id, 1)
    eventually(lambda: site.stream(stream_id).status.state == "halted")
    tries = store.tries.total()
    never(lambda: store.tries.total() > tries, during=0.4)
    assert store.objects.pop(taken) == b"somebody else's"
    site.change(streams.resume, stream_id)
    site.wait(stream_id)
    site.check()


# --- several daemons ----------------------------------------------------------------------


def test_daemons_share_the_streams_and_take_over(site: Site) -> None:
    """Two halves while both live; all for one after the other left in order."""
    for _ in range(6):
        site.add()
    one, two = site.start(), site.start()

    def shares() -> list[int]:
        owned = list(site.owners().values())
        return sorted(owned.count(daemon.daemon_id) for daemon in (one, two))

    eventually(lambda: shares() == [3, 3])
    for stream_id in site.stores:
        site.append(stream_id, 3)
    site.wait()
    assert site.stop(one)
    assert one.daemon_id not in site.owners().values()
    eventually(lambda: set(site.owners().values()) == {two.daemon_id})
    for stream_id in site.stores:
        site.append(stream_id, 3)
    site.wait()
    site.check()


def test_a_dead_daemon_s_streams_are_taken_over(site: Site) -> None:
    """One that said no good-bye is missed after its leases' time, and its work goes on."""
    stream_ids = [site.add() for _ in range(2)]
    with site.engine.begin() as connection:
        leases_sql.announce(connection, daemon_id="dead", host="away", pid=1, version="0")
        leases_sql.acquire(connection, daemon_id="dead", ttl=1.0, limit=2)
    daemon = site.start()
    for stream_id in stream_ids:
        site.append(stream_id, 3)
    never(lambda: any(site.stores[each].objects for each in stream_ids), during=0.4)
    eventually(lambda: set(site.owners().values()) == {daemon.daemon_id}, within=4)
    site.wait()
    site.check()


def test_a_stream_that_is_being_sealed_stays_leased(site: Site) -> None:
    """Renewing does not wait for the stream's lock, and does not take the lease for lost."""
    stream_ids = [site.add(), site.add()]
    with site.engine.begin() as connection:
        leases_sql.announce(connection, daemon_id="busy", host="here", pid=1, version="0")
        leases_sql.acquire(connection, daemon_id="busy", ttl=60, limit=2)
    with site.engine.begin() as sealing, site.engine.begin() as renewing:
        streams.get(sealing, stream_ids[0], lock=True)
        assert leases_sql.renew(renewing, daemon_id="busy", ttl=60) == stream_ids


# --- what it lives through -----------------------------------------------------------------


def test_the_database_is_restarted_under_it(restartable_cluster: Cluster) -> None:
    """It waits while the server is away, without giving up, and goes on where it was."""
    restartable_cluster.execute("CREATE DATABASE audit")
    url = restartable_cluster.url("audit")
    migrate(url)
    site = Site(url)
    stream_id = site.add()
    daemon = site.start()
    site.append(stream_id, 3)
    site.wait(stream_id)
    restartable_cluster.stop("immediate")
    eventually(lambda: daemon._waiting_for, what="the daemon notices")
    restartable_cluster.start()
    site.append(stream_id, 3)
    site.wait(stream_id, within=20)
    site.check()
    assert site.stop(daemon)
    site.close()


@pytest.mark.parametrize(("period", "ahead"), [("month", 3), ("day", 15)])
def test_partitions_are_made_ahead(site: Site, period: Any, ahead: int) -> None:
    """A daemon that starts makes those of the next months or days, so none is late."""
    with site.engine.begin() as connection:
        for (name,) in connection.execute(
            sa.text(
                "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_inherits ON inhrelid = c.oid"
                " WHERE inhparent = 'auditstore.events'::regclass AND"
                " pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'"
            )
        ).all():
            connection.execute(sa.text(f"DROP TABLE {name}"))
    site.start(DaemonConfig(tick=0.02, lease_ttl=1.0, partitions=period))

    def made() -> int:
        with site.engine.connect() as connection:
            return int(
                connection.execute(
                    sa.text(
                        "SELECT count(*) FROM pg_inherits JOIN pg_class c ON inhrelid = c.oid"
                        " WHERE inhparent = 'auditstore.events'::regclass AND"
                        " pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'"
                    )
                ).scalar_one()
            )

    eventually(lambda: made() >= ahead)
    stream_id = site.add()
    site.append(stream_id)
    site.wait(stream_id)
    with site.engine.connect() as connection:
        lies_in = connection.execute(
            sa.text("SELECT tableoid::regclass::text FROM auditstore.events")
        ).scalar_one()
    today = datetime.now(UTC)
    assert f"{today:%Y}" in lies_in


def test_a_clock_set_back_stops_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler goes by the host's clock; an hour back, and the jobs still run."""
    import apscheduler.schedulers.base as scheduling  # noqa: PLC0415  # its clock is set back too

    back = timedelta(0)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # a plain datetime
            return datetime.now(tz) + back

    class Time:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def time() -> float:
            return time.time() + back.total_seconds()

    for module in (exporters.daemon, scheduling):
        monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(exporters.daemon, "time", Time)
    stream_id = site.add()
    daemon = site.start()
    site.append(stream_id)
    site.wait(stream_id)
    back = timedelta(hours=-1)
    for _ in range(3):
        site.append(stream_id)
        site.wait(stream_id, within=5)
    assert site.stop(daemon)
    site.check()


def test_a_start_that_fails_leaves_no_connection_behind(site: Site) -> None:
    """It is tried again until the cause is mended, so each try gives back what it took."""
    engine = site.new_engine()
    assert isinstance(engine.pool, sa.QueuePool)
    sequence = "ALTER TABLE auditstore.events ALTER COLUMN position SET CACHE"
    with site.engine.begin() as connection:
        connection.execute(sa.text(f"{sequence} 20"))
    for _ in range(3):
        with pytest.raises(TailingUnsafe, match="CACHE 20"):
            Daemon(engine, site.open, QUICK).start()
        assert engine.pool.checkedout() == 0
    with site.engine.begin() as connection:
        connection.execute(sa.text(f"{sequence} 1"))
    daemon = Daemon(engine, site.open, QUICK)
    daemon.start()
    assert daemon.stop()


def test_a_host_without_threads_to_spare(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not begin is not forgotten: it begins when there are threads again."""
    start, short = threading.Thread.start, Event()

    def refusing(thread: threading.Thread) -> None:
        if short.is_set() and thread.name.startswith("stream"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    stream_ids = [site.add() for _ in range(3)]
    for stream_id in stream_ids:
        site.append(stream_id, 2)
    short.set()
    site.start()
    never(lambda: any(site.delivered(each) for each in stream_ids), during=0.3)
    short.clear()
    stream_ids.append(site.add())
    site.append(stream_ids[-1])
    site.wait()
    site.check()


def test_partitions_that_cannot_be_made_hold_nothing_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files go out meanwhile, and it is tried again soon, not at the next upkeep."""
    monkeypatch.setattr(exporters.daemon, "_UPKEEP_AGAIN", 0.05)
    make, refused = partitions_sql.make_partitions, []

    def busy(*arguments: Any, **named: Any) -> Any:
        if len(refused) < 3:
            refused.append(True)
            raise DatabaseUnavailable("the lock was not granted", hint="Later.")
        return make(*arguments, **named)

    monkeypatch.setattr(partitions_sql, "make_partitions", busy)
    stream_id = site.add()
    daemon = site.start()
    eventually(lambda: len(refused) == 3)
    assert daemon._waiting_for is None
    site.append(stream_id)
    site.wait(stream_id)
    site.check()


# --- leaving ---------------------------------------------------------------------------------


def test_stopping_finishes_the_upload_in_hand(site: Site) -> None:
    """What hangs when it is told to stop gets its grace; then the leases are given back."""
    stream_id = site.add()
    daemon = site.start()
    store = site.stores[stream_id]
    store.open.clear()
    site.append(stream_id, 2)
    eventually(lambda: store.hanging)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(site.stop, daemon)
        eventually(daemon._stopping.is_set)
        store.open.set()
        assert stopping.result(5)
    assert site.delivered(stream_id)
    assert site.owners() == {stream_id: None}
    assert store.closed == 1
    site.check()


def test_stopping_does_not_wait_for_ever(site: Site) -> None:
    """A hanging upload is left behind after the grace; the next daemon delivers it once."""
    stream_id = site.add()
    daemon = site.start(DaemonConfig(tick=0.02, recheck=0.05, lease_ttl=1.0, grace=0.3))
    store = site.stores[stream_id]
    store.open.clear()
    site.append(stream_id, 2)
    eventually(lambda: store.hanging)
    began = time.monotonic()
    assert not site.stop(daemon)
    assert time.monotonic() - began < 2
    assert site.owners() == {stream_id: None}
    store.open.set()
    site.start()
    site.wait(stream_id)
    site.check()


def test_nothing_is_taken_back_after_leaving(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for a job that is about to renew leases, and only then gives them back."""
    announce, slow, entered, go = leases_sql.announce, Event(), Event(), Event()

    def paused(*arguments: Any, **named: Any) -> None:
        if slow.is_set():
            entered.set()
            assert go.wait(10)
        announce(*arguments, **named)

    monkeypatch.setattr(leases_sql, "announce", paused)
    stream_id = site.add()
    daemon = site.start()
    slow.set()
    assert entered.wait(10)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(site.stop, daemon)
        eventually(daemon._stopping.is_set)
        never(stopping.done, during=0.2)
        go.set()
        assert stopping.result(10)
    with site.engine.connect() as connection:
        assert leases_sql.list_daemons(connection) == []
    assert site.owners() == {stream_id: None}
