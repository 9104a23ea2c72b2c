"""What an exporter shows of its work: real daemons, asked over HTTP."""

from __future__ import annotations

import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from support.eventually import eventually
from support.lead_events import lead_event
from support.memory_store import DENIED, UNAVAILABLE
from support.site import Site
from support.watched import Watched, watching

from auditstore import EventRepository, streams
from auditstore.sql import leases as leases_sql
from auditstore.sql import server
from exporters.fence import SafePosition
from exporters.metrics import Metrics
from exporters.observer import Pulse
from exporters.standing import StandingReader
from exporters.worker import Worker


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    """A fresh database, no stream and no daemon yet."""
    made = Site(database_url)
    yield made
    made.close()


@pytest.fixture
def watched(site: Site) -> Iterator[Watched]:
    """The site's daemon-to-be, under watch."""
    with watching(site) as made:
        yield made


# --- counters: after the commit, and nothing else ---------------------------------------


def test_delivered_work_is_counted(site: Site, watched: Watched) -> None:
    """Files, events and bytes are those of the ledger, by stream and flow."""
    one, two = site.add(max_events=5), site.add()
    watched.start()
    port = watched.port
    eventually(lambda: port.total("leased_streams") == 2)
    site.append(one, 10)
    site.append(two, 1)
    site.wait()
    # A file is counted just after it can be read as delivered.
    eventually(lambda: port.total("delivered_events_total") == 11)
    with site.engine.connect() as connection:
        ledger = connection.execute(
            sa.text(
                "SELECT stream_id, count(*), sum(event_count), sum(object_bytes)"
                " FROM auditstore.files WHERE delivered_at IS NOT NULL GROUP BY stream_id"
            )
        ).all()
    assert {row[0] for row in ledger} == {one, two}
    for stream_id, files, events, size in ledger:
        labels = {"stream": stream_id, "flow": f"flow-{stream_id}"}
        for name, expected in (
            ("sealed_files", files), ("sealed_events", events), ("delivered_files", files),
            ("delivered_events", events), ("delivered_bytes", size), ("failed_tries", 0),
        ):  # fmt: skip
            assert port.total(f"{name}_total", **labels) == expected, name
    assert port.total("upload_seconds_count", store="s3") == sum(row[1] for row in ledger)
    assert port.total("file_bytes_sum", store="s3") == sum(row[3] for row in ledger)
    # How streams stand is asked once a second at most.
    eventually(lambda: port.total("appended_events_total") == 11)
    assert port.total("build_info") == 1


def test_a_refused_upload_is_no_delivery(site: Site, watched: Watched) -> None:
    """A file that the store refuses is sealed and a failed try; delivered when it lies there."""
    stream_id = site.add()
    store, port = site.stores[stream_id], watched.port
    store.trouble = DENIED
    watched.start()
    site.append(stream_id, 3)
    eventually(lambda: port.total("failed_tries_total", state="blocked") == 1)
    assert port.total("sealed_files_total") == 1
    assert port.total("delivered_files_total") == 0
    assert port.total("upload_seconds_count") == 0
    eventually(lambda: port.total("stream_state", state="blocked") == 1)
    assert port.total("stream_lag_events") == 3
    store.trouble = None
    site.change(streams.resume, stream_id)
    eventually(lambda: port.total("delivered_files_total") == 1)
    assert port.total("sealed_files_total") == 1
    eventually(lambda: port.total("stream_state", state="streaming") == 1)
    assert port.total("stream_state") == 1


def test_a_put_that_cannot_be_recorded_is_no_delivery(site: Site, watched: Watched) -> None:
    """The object lies in the store, and counts once the ledger says so, not before."""
    stream_id = site.add()
    with site.engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'not now'; END $$;"
                " CREATE TRIGGER no BEFORE UPDATE ON auditstore.files"
                " FOR EACH ROW EXECUTE FUNCTION no()"
            )
        )
    watched.start()
    site.append(stream_id, 3)
    port = watched.port
    eventually(lambda: port.total("failed_tries_total", state="retrying") >= 1)
    assert len(site.stores[stream_id].objects) == 1
    assert port.total("delivered_files_total") == 0
    assert port.total("upload_seconds_count") == 0
    with site.engine.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER no ON auditstore.files"))
    eventually(lambda: port.total("delivered_files_total") == 1, within=30)
    assert port.total("sealed_files_total") == 1
    site.check()


def test_of_two_that_put_the_same_file_one_counts_it(site: Site) -> None:
    """Double work is harmless, and its sum is the truth: the recorder counts."""
    stream_id = site.add()
    store = site.stores[stream_id]
    site.append(stream_id, 3)
    with site.engine.connect() as connection:
        fence = SafePosition(2**62, server.run(connection))
    counting = [Metrics(), Metrics()]
    workers = [Worker(site.engine, site.open, metrics) for metrics in counting]
    store.open.clear()
    with ThreadPoolExecutor(2) as pool:
        works = [pool.submit(workers[0].work, stream_id, fence, flush=True)]
        eventually(lambda: store.hanging == 1)
        works.append(pool.submit(workers[1].work, stream_id, fence, flush=True))
        eventually(lambda: store.hanging == 2)
        store.open.set()
        assert all(work.result(20).error is None for work in works)
    pages = [metrics.render("")[0].decode() for metrics in counting]
    for name, total in (("sealed_files", 1), ("delivered_files", 1), ("delivered_events", 3)):
        line = f'auditstore_{name}_total{{flow="flow-1",stream="1"}} {float(total)}'
        assert [page.count(line) for page in pages].count(1) == 1, name
    assert store.tries.total() == 2
    site.check()


def test_appended_counts_every_event_once(site: Site, watched: Watched) -> None:
    """Whatever is sealed, refused, held back or rolled back between the scrapes."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ids = [site.add(max_events=7), site.add(max_delay=0.3), site.add()]
    watched.start()
    port = watched.port
    eventually(lambda: port.total("leased_streams") == 3)
    stop = threading.Event()
    seen: list[float] = []

    def scrape() -> None:
        while not stop.wait(0.05):
            seen.append(port.total("appended_events_total"))

    appended = 0
    with ThreadPoolExecutor(1) as pool, _set_at_the_end(stop):
        scraping = pool.submit(scrape)
        for turn in range(60):
            stream_id, count = chance.choice(ids), chance.randint(1, 12)
            if chance.random() < 0.3:
                _roll_back(site, stream_id, count)
            else:
                site.append(stream_id, count)
                appended += count
            if turn % 20 == 5:
                site.stores[ids[2]].trouble = UNAVAILABLE if turn < 40 else None
            time.sleep(0.05)
        site.stores[ids[2]].trouble = None
        site.wait(within=30)
        eventually(lambda: port.total("delivered_events_total") == appended)
        eventually(lambda: port.total("appended_events_total") == appended)
        stop.set()
        scraping.result()
    assert seen == sorted(seen)
    eventually(lambda: port.total("stream_lag_events") == 0)
    site.check()


@contextmanager
def _set_at_the_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def _roll_back(site: Site, stream_id: int, count: int) -> None:
    with site.engine.connect() as connection:
        made = [lead_event(f"flow-{stream_id}") for _ in range(count)]
        EventRepository().append(connection, made)
        connection.rollback()


def test_what_waits_while_a_stream_is_disabled_is_not_appended_twice(
    site: Site, watched: Watched
) -> None:
    """A counter never goes back, also when a stream gives up what waited."""
    stream_id = site.add()
    site.stores[stream_id].trouble = DENIED
    watched.start()
    port = watched.port
    eventually(lambda: port.total("leased_streams") == 1)
    site.append(stream_id, 4)
    eventually(lambda: port.total("appended_events_total") == 4)
    site.append(stream_id, 4, covered=False)
    eventually(lambda: port.total("appended_events_total") == 8)
    site.change(streams.disable, stream_id)
    eventually(lambda: port.total("leased_streams") == 0)
    assert port.total("appended_events_total") == 8
    site.stores[stream_id].trouble = None
    site.change(streams.enable, stream_id)
    eventually(lambda: port.total("leased_streams") == 1)
    site.append(stream_id, 2)
    site.wait()
    eventually(lambda: port.total("appended_events_total") == 10)


# --- state ------------------------------------------------------------------------------


def test_lag_is_what_is_not_in_the_store(site: Site, watched: Watched) -> None:
    """Sealed or not, behind the fence or not, every committed event that waits is shown."""
    stream_id = site.add(max_events=2)
    store, port = site.stores[stream_id], watched.port
    watched.start()
    store.open.clear()
    site.append(stream_id, 3)
    eventually(lambda: store.hanging)
    with site.engine.begin() as holding:
        EventRepository().append(holding, [lead_event("another flow")])
        site.append(stream_id, 4)
        eventually(lambda: port.total("stream_lag_events", stream=stream_id) == 7)
        eventually(lambda: port.total("fence_age_seconds") > 1.0)
        assert port.total("last_position") > port.total("fence_position")
        waited = port.total("stream_lag_seconds")
        eventually(lambda: port.total("stream_lag_seconds") > waited)
    assert port.total("stream_bound_seconds") == 10
    store.open.set()
    site.wait()
    eventually(lambda: port.total("stream_lag_events") == 0)
    assert port.total("stream_lag_seconds") == 0
    eventually(lambda: port.total("fence_age_seconds") < 1.0)


def test_several_exporters_show_each_stream_once(site: Site) -> None:
    """State only of the streams that an exporter has; sums over exporters are the truth."""
    for _ in range(4):
        site.add()
    with watching(site) as one, watching(site) as two:
        one.start()
        two.start()

        def shown() -> list[str]:
            both = [key for each in (one, two) for key in each.port.samples()]
            return sorted(dict(has)["stream"] for name, has in both
                          if name == "auditstore_stream_lag_events")  # fmt: skip

        eventually(lambda: list(site.owners().values()).count(one.daemon.daemon_id) == 2)
        eventually(lambda: shown() == ["1", "2", "3", "4"])
        for stream_id in site.stores:
            site.append(stream_id, 2)
        site.wait()
        for name in ("sealed_events_total", "delivered_events_total"):
            eventually(lambda each=name: one.port.total(each) + two.port.total(each) == 8)


def test_labels_are_bounded(site: Site, watched: Watched) -> None:
    """No store and no event chooses a label's value, and no label multiplies the buckets."""
    stream_id = site.add()
    site.stores[stream_id].trouble = DENIED
    watched.start()
    site.append(stream_id, 3)
    eventually(lambda: watched.port.total("failed_tries_total") == 1)
    allowed = {
        "stream": {"1"}, "flow": {"flow-1"}, "store": {"s3", "azure", "file"},
        "state": {"streaming", "retrying", "blocked", "halted"},
    }  # fmt: skip
    for name, has in watched.port.samples():
        for label, value in has:
            if label not in {"le", "version"}:
                assert value in allowed[label], name
        assert not {"le", "stream"} <= {label for label, _ in has}, name


def test_a_thousand_streams_are_asked_in_two_statements(site: Site) -> None:
    """As many statements as for one stream, and one read for all who ask within a second."""
    with site.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO auditstore.streams (flow_id, url, location, format, key_template,"
                " max_bytes, max_events, max_delay, enabled, chain_hash) SELECT 'flow-' || n,"
                " 's3://bucket-' || n, 'bucket-' || n, 'ndjson.gz', 'x', 1, 1, 1, true, ''"
                " FROM generate_series(1, 1000) n"
            )
        )
        leases_sql.announce(connection, daemon_id="me", host="here", pid=1, version="0")
        leases_sql.acquire(connection, daemon_id="me", ttl=600, limit=1000)
    watching_engine = site.new_engine()
    statements: list[str] = []

    @sa.event.listens_for(watching_engine, "before_cursor_execute")
    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    pulse = Pulse(daemon_id="me", tick_age=0, fence_position=0, fence_age=0, run="")
    reader = StandingReader(watching_engine, lambda: pulse, max_age=60.0, patience=30.0)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reader.latest(), range(32)))
    assert {len(each.streams) for each in found} == {1000}
    assert len(statements) == 4, statements


def test_a_database_that_does_not_answer_keeps_nobody(site: Site) -> None:
    """Whoever asks hears of it within the patience; when it answers again, all is shown."""
    stream_id = site.add()
    with site.engine.begin() as connection:
        leases_sql.announce(connection, daemon_id="me", host="here", pid=1, version="0")
        leases_sql.acquire(connection, daemon_id="me", ttl=600, limit=1)
    pulse = Pulse(daemon_id="me", tick_age=0, fence_position=0, fence_age=0, run="")
    reader = StandingReader(site.new_engine(), lambda: pulse, max_age=0.05, patience=0.3)
    assert reader.latest().reachable
    with site.engine.begin() as locking:
        locking.execute(sa.text("LOCK TABLE auditstore.streams"))
        time.sleep(0.1)
        began = time.monotonic()
        assert not reader.latest().reachable
        assert 0.2 < time.monotonic() - began < 5
    found = eventually(lambda: (now := reader.latest()).reachable and now)
    assert [each.stream_id for each in found.streams] == [stream_id]


def test_who_asks_for_no_metrics_loads_nothing_for_them() -> None:
    """The daemon and its worker import neither prometheus-client nor a server."""
    code = (
        "import sys, exporters.daemon, exporters.once;"
        " print({'prometheus_client', 'http.server', 'exporters.metrics'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
