"""Reconciliations on schedule: one exporter at a time, missed runs once, beside what hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.eventually import eventually, never
from support.ledger_builder import Scene
from support.memory_store import DENIED, MemoryStore
from support.site import Site
from support.stores import Place

from auditstore import streams
from auditstore.objects import ObjectInfo, ObjectStore
from auditstore.reconciliation import Finding, Kind, Summary
from auditstore.reconciliation.results import Run
from auditstore.sql import schedules
from auditstore.sql.schedules import Schedule
from exporters.reconciling import Reconciling, ReconcilingConfig

QUICK = ReconcilingConfig(tick=0.05, lease_ttl=2.0, patience=0.3, pause=0.001, grace=10.0)


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.summaries: list[Summary] = []
        self.dropped_runs: list[Run] = []

    def finding(self, run: Run, finding: Finding) -> None:
        """Kept."""
        assert run.stream_id == finding.stream_id
        self.findings.append(finding)

    def done(self, run: Run, summary: Summary) -> None:
        """Kept."""
        assert (run.stream_id, run.level) == (summary.stream_id, summary.level)
        self.summaries.append(summary)

    def dropped(self, run: Run) -> None:
        """Kept."""
        self.dropped_runs.append(run)


class Clock:
    """The time that decides what is due."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, 1, 30, tzinfo=UTC)

    def __call__(self, _: sa.Connection) -> datetime:
        return self.now


class HangingStore(MemoryStore):
    """One whose listings hang until ``answering`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = threading.Event()
        self.listing = threading.Event()

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Hangs."""
        self.listing.set()
        self.answering.wait()
        return super().list(prefix, start_after=start_after)


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    """A fresh database, no stream yet."""
    made = Site(database_url)
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    """Half past one."""
    return Clock()


@contextmanager
def running(
    site: Site,
    clock: Clock,
    *sinks: Any,
    config: ReconcilingConfig = QUICK,
    open_store: Callable[..., ObjectStore] | None = None,
) -> Iterator[Reconciling]:
    """An exporter's schedule at work."""
    made = Reconciling(site.new_engine(), open_store or site.open, config, sinks=sinks, now=clock)
    made.start()
    try:
        yield made
    finally:
        # Nothing of it may be left when the engines go.
        for store in site.stores.values():
            if isinstance(store, HangingStore):
                store.answering.set()
        assert made.stop()


def of(site: Site, stream_id: int, level: str = "files") -> Schedule | None:
    """The stream's schedule."""
    with site.engine.connect() as connection:
        found = schedules.find(connection, [stream_id])
    return next((each for each in found if each.level == level), None)


def ended(site: Site, stream_id: int, level: str = "files") -> Schedule | None:
    """The stream's schedule once it has run."""
    found = of(site, stream_id, level)
    return found if found is not None and found.result is not None else None


def planned(site: Site, *stream_ids: int) -> None:
    """Wait until the streams' runs are planned."""
    for stream_id in stream_ids:
        eventually(lambda each=stream_id: of(site, each), what=f"stream {stream_id} planned")


def filled(site: Site, count: int = 3) -> int:
    """A stream with a delivered file, without a daemon left running."""
    stream_id = site.add()
    site.append(stream_id, count)
    daemon = site.start()
    site.wait(stream_id)
    site.stop(daemon)
    return stream_id


def test_holds_no_session_while_nothing_runs(site: Site, clock: Clock) -> None:
    """Between two turns it leaves the server's connections to those who export."""
    stream_id = filled(site)
    for engine in site.engines:
        engine.dispose()
    with running(site, clock, config=replace(QUICK, tick=3600)):
        planned(site, stream_id)
        eventually(lambda: sessions(site) == 1, what="only the session that asks")


def test_a_planner_that_is_paused_keeps_no_stream_from_being_exported(site: Site) -> None:
    """Its transaction only refers to the streams: others lease them, seal and record."""
    stream_id = site.add()
    site.append(stream_id)
    with site.engine.begin() as paused:
        schedules.plan(paused, [schedules.Planned(stream_id, "files", "0 * * * *", None)])
        site.start()
        site.wait(stream_id)


def sessions(site: Site) -> int:
    """How many there are on the site's database."""
    statement = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    with site.engine.connect() as connection:
        return int(connection.execute(statement).scalar_one())


def test_runs_by_its_expressions(site: Site, clock: Clock) -> None:
    """Nothing runs before its time; files hourly, events daily, each at the stream's own place."""
    stream_id = filled(site)
    kept = Kept()
    with running(site, clock, kept):
        planned(site, stream_id)
        never(lambda: kept.summaries, during=0.3)
        clock.now = datetime(2026, 11, 25, 2, 10, tzinfo=UTC)
        done = eventually(lambda: ended(site, stream_id))
        assert (done.result, done.files, done.differences) == ("reconciled", 1, {})
        assert done.next_run_at is not None
        assert done.next_run_at.replace(minute=0, second=0) == datetime(2026, 11, 25, 3, tzinfo=UTC)
        assert ended(site, stream_id, "events") is None
        clock.now = datetime(2026, 11, 25, 3, 10, tzinfo=UTC)
        done = eventually(lambda: ended(site, stream_id, "events"))
        assert done.next_run_at is not None
        assert done.next_run_at.date() == datetime(2026, 11, 26, tzinfo=UTC).date()
        eventually(lambda: len(kept.summaries) == 3)
    assert kept.findings == []


def test_missed_runs_are_caught_up_once(site: Site, clock: Clock) -> None:
    """After two days without an exporter each level runs once, and then when it is due."""
    stream_id = filled(site)
    with running(site, clock):
        planned(site, stream_id)
    clock.now += timedelta(days=2)
    kept = Kept()
    with running(site, clock, kept):
        eventually(lambda: len(kept.summaries) == 2)
        never(lambda: len(kept.summaries) > 2, during=0.4)
    assert {each.level for each in kept.summaries} == {"files", "events"}
    done = ended(site, stream_id)
    assert done is not None
    assert done.next_run_at is not None
    assert clock.now < done.next_run_at <= clock.now + timedelta(hours=1)


def test_two_exporters_and_one_run(site: Site, clock: Clock) -> None:
    """Of two exporters one runs it; and while it runs nobody begins the stream's other level."""
    stream_id = filled(site)
    hanging = HangingStore()
    hanging.objects = site.stores[stream_id].objects
    site.stores[stream_id] = hanging
    one, two = Kept(), Kept()
    patient = ReconcilingConfig(tick=0.05, lease_ttl=0.5, patience=60, pause=0.001, grace=10)
    with running(site, clock, one, config=patient), running(site, clock, two, config=patient):
        planned(site, stream_id)
        clock.now += timedelta(days=1)
        assert hanging.listing.wait(10)
        # Longer than a lease lasts: it is renewed.
        never(lambda: _at_work(site) != 1, during=1.0)
        hanging.answering.set()
        eventually(lambda: len(one.summaries) + len(two.summaries) == 2)
        never(lambda: len(one.summaries) + len(two.summaries) > 2, during=0.3)
    assert {each.level for each in one.summaries + two.summaries} == {"files", "events"}


def _at_work(site: Site) -> int:
    with site.engine.connect() as connection:
        return sum(each.running_since is not None for each in schedules.find(connection))


def test_an_exporter_that_died_is_replaced(site: Site, clock: Clock) -> None:
    """Its run is another's once the lease is over."""
    stream_id = filled(site)
    with running(site, clock):
        planned(site, stream_id)
    with site.engine.begin() as connection:
        schedules.claim(connection, stream_id, "files", owner="dead", ttl=1.0)
    clock.now += timedelta(hours=1)
    with running(site, clock):
        never(lambda: ended(site, stream_id), during=0.5)
        eventually(lambda: ended(site, stream_id))


def test_an_exporter_that_leaves_gives_its_run_back(site: Site, clock: Clock) -> None:
    """What it broke off is due for the others at once, and no result is recorded."""
    stream_id = filled(site)
    kept = Kept()

    class Slow(MemoryStore):
        """Whose listing never ends, but goes on."""

        listing = threading.Event()

        def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:  # noqa: ARG002  # the protocol's
            self.listing.set()
            while True:
                yield ObjectInfo("some/prefix/x", 1)

    slow = Slow()
    config = ReconcilingConfig(tick=0.05, lease_ttl=60, pause=0.001, grace=10)
    with running(site, clock, kept, config=config, open_store=lambda *_: slow) as made:
        planned(site, stream_id)
        clock.now += timedelta(hours=1)
        assert slow.listing.wait(10)
        assert made.stop()
    assert [each.stream_id for each in kept.dropped_runs] == [stream_id]
    assert ended(site, stream_id) is None
    with running(site, clock):
        eventually(lambda: ended(site, stream_id))


def test_a_hanging_store_holds_no_other(site: Site, clock: Clock) -> None:
    """Streams whose store hangs, more than there are places, keep no healthy one waiting, and
    one place hangs with no more than the places for runs."""
    healthy = filled(site)
    hanging = []
    for _ in range(4):
        stream_id = site.add(bucket="hangs")
        site.stores[stream_id] = HangingStore()
        hanging.append(stream_id)
    elsewhere = site.add()
    site.stores[elsewhere] = HangingStore()
    with site.engine.begin() as connection:
        # So that there is something to compare.
        connection.execute(
            sa.text("UPDATE auditstore.streams SET reconcile_events = 'off', sealed_sequence = 1"
                    " WHERE sealed_sequence = 0")
        )  # fmt: skip
    with running(site, clock):
        planned(site, healthy, *hanging, elsewhere)
        # The healthy one's turn is last.
        with site.engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE auditstore.schedules SET next_run_at = :at + make_interval("
                        " mins => CASE WHEN stream_id = :id THEN 1 ELSE 0 END)"
                        " WHERE level = 'files'"),
                {"at": clock.now, "id": healthy},
            )  # fmt: skip
        clock.now += timedelta(minutes=2)
        done = eventually(lambda: ended(site, healthy))
        assert done.result == "reconciled"
        assert site.stores[elsewhere].listing.is_set()  # type: ignore[attr-defined]  # a hanging one
        begun = [site.stores[each].listing.is_set() for each in hanging]  # type: ignore[attr-defined]  # hanging ones
        assert 1 <= sum(begun) <= QUICK.runs


def test_exporting_goes_on_beside_it(site: Site, clock: Clock) -> None:
    """While reconciliations of the same stores hang, files are delivered as ever."""
    stream_id = filled(site)
    store = HangingStore()
    store.objects = site.stores[stream_id].objects
    site.stores[stream_id] = store
    with running(site, clock):
        planned(site, stream_id)
        clock.now += timedelta(hours=1)
        assert store.listing.wait(10)
        site.start()
        site.append(stream_id, 5)
        site.wait(stream_id)  # which would not end while the store hangs


def test_what_could_not_be_compared_is_tried_again(site: Site, clock: Clock) -> None:
    """A store that says no is a result with its cause; it is tried again before the next time."""
    stream_id = filled(site)
    site.change(streams.change, stream_id, {"reconcile_files": "off"})
    site.stores[stream_id].trouble = DENIED
    kept = Kept()
    with running(site, clock, kept):
        planned(site, stream_id)
        clock.now += timedelta(days=1)
        done = eventually(lambda: ended(site, stream_id, "events"))
        assert (done.result, done.error_code) == ("not compared", "AccessDenied")
        assert (done.error_cause, done.error_hint) == (DENIED.message, DENIED.hint)
        assert done.next_run_at == clock.now + timedelta(minutes=15)
        site.stores[stream_id].trouble = None
        clock.now += timedelta(minutes=15)
        done = eventually(lambda: _reconciled(site, stream_id))
        assert (done.error_code, done.error_cause) == (None, None)
    assert [each.result for each in kept.summaries] == ["not compared", "reconciled"]


def _reconciled(site: Site, stream_id: int) -> Schedule | None:
    found = ended(site, stream_id, "events")
    return found if found is not None and found.result == "reconciled" else None


def test_settings_take_effect(site: Site, clock: Clock) -> None:
    """A new expression is planned anew, `off` and a disabled stream never run."""
    stream_id, other = filled(site), filled(site)
    site.change(streams.disable, other)
    site.change(streams.change, stream_id, {"reconcile_events": "off"})
    with running(site, clock):
        planned(site, stream_id)
        site.change(streams.change, stream_id, {"reconcile_files": "0 12 * * *"})
        changed = eventually(
            lambda: found if (found := of(site, stream_id)) and found.cron == "0 12 * * *" else None
        )
        assert changed.next_run_at is not None
        assert changed.next_run_at.hour == 12
        clock.now += timedelta(hours=5)
        never(lambda: ended(site, stream_id), during=0.3)
        clock.now += timedelta(hours=6)
        eventually(lambda: ended(site, stream_id))
        assert ended(site, stream_id, "events") is None
        assert of(site, other) is None


def test_a_row_with_nonsense_stops_no_other(site: Site, clock: Clock) -> None:
    """An expression that was written past the checks is shown with its stream."""
    broken, healthy = filled(site), filled(site)
    with site.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE auditstore.streams SET reconcile_files = 'x' WHERE stream_id = :id"),
            {"id": broken},
        )
    with running(site, clock):
        planned(site, broken, healthy)
        clock.now += timedelta(hours=1)
        eventually(lambda: ended(site, healthy))
        found = of(site, broken)
    assert found is not None
    assert (found.result, found.next_run_at, found.error_code) == (None, None, "configuration")


def test_a_sink_that_fails_hurts_nothing(site: Site, clock: Clock) -> None:
    """The result is recorded, and the other sinks get it."""

    class Fails(Kept):
        """Raises."""

        def done(self, run: Run, summary: Summary) -> None:
            raise RuntimeError(run, summary)

    stream_id = filled(site)
    kept = Kept()
    with running(site, clock, Fails(), kept):
        planned(site, stream_id)
        clock.now += timedelta(hours=1)
        eventually(lambda: kept.summaries)
    assert ended(site, stream_id) is not None


def test_damage_is_found_by_the_schedule(
    engine: sa.Engine, database_url: str, place: Place, clock: Clock
) -> None:
    """New files that are gone are found at their run; old ones by the sample, in their turn;
    both on each kind of store, at both levels."""
    scene = Scene(engine, place)
    scene.stream(reconcile_events="off")
    scene.append(12)
    old = scene.deliver(1)
    site, kept = Site(database_url), Kept()

    def opened(_: sa.Connection, __: Any) -> ObjectStore:
        return place.open()

    try:
        with running(site, clock, kept, open_store=opened):
            planned(site, 1)
            clock.now += timedelta(hours=1)
            eventually(lambda: len(kept.summaries) == 1)
            assert kept.summaries[0].result == "reconciled"
            # One byte of an old file, which only reading it again shows.
            damaged = old[1].sealed.object_key
            body = bytearray(scene.vandal.read(damaged))
            body[15] ^= 1
            scene.vandal.write(damaged, bytes(body))
            scene.append(4)
            new = scene.deliver(1)[-1].sealed.object_key
            scene.vandal.delete(new)
            clock.now += timedelta(hours=1)
            eventually(lambda: len(kept.summaries) == 2)
            assert {(each.kind, each.object_key) for each in kept.findings} == {
                (Kind.CHANGED_FILE, damaged), (Kind.MISSING_FILE, new),
            }  # fmt: skip
            done = ended(site, 1)
            assert done is not None
            assert (done.result, done.differences) == (
                "differences", {"missing-file": 1, "changed-file": 1},
            )  # fmt: skip
            assert (done.verified_sequence, done.unclean) == (4, 2)
    finally:
        site.close()
