"""Is it alive, is it at work: asked over HTTP while real things go wrong."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from support.eventually import eventually
from support.memory_store import DENIED
from support.postgres import Cluster
from support.site import Site
from support.watched import ANYWHERE, Watched, watching

from auditstore import EventRepository, streams
from auditstore.database import create_engine, migrate
from auditstore.errors import ConfigurationError
from auditstore.settings import ListenAddress, Settings
from exporters.monitor import Monitor


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


def overdue_event(site: Site, stream_id: int) -> None:
    """An event of an hour ago, as one that waited so long: the server's clock cannot be moved."""
    with site.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO auditstore.events (event_id, flow_id, payload, size_bytes, sha256,"
                " recorded_at) VALUES (:id, :flow, '{}', 2,"
                " sha256('{}'), clock_timestamp() - interval '1 hour')"
            ),
            {"id": f"{stream_id:024x}", "flow": f"flow-{stream_id}"},
        )


# --- what turns /readyz ------------------------------------------------------------------


def test_an_exporter_at_work_is_ready(site: Site, watched: Watched) -> None:
    """Not before its daemon works, nor once it was told to leave; alive all the while."""
    port = watched.port
    assert port.reasons() == ["starting"]
    assert port.alive()
    site.add()
    watched.start()
    assert port.reasons() == []
    assert port.get("/readyz")[1] == "ready\n"
    assert port.total("ready") == 1
    watched.monitor.stopping()
    assert port.reasons() == ["stopping"]
    assert port.alive()


def test_a_database_that_goes_away_and_comes_back(restartable_cluster: Cluster) -> None:
    """503 with the reason while it is away, alive all the while, ready again by itself."""
    restartable_cluster.execute("CREATE DATABASE audit")
    migrate(restartable_cluster.url("audit"))
    site = Site(restartable_cluster.url("audit"))
    stream_id = site.add()
    with watching(site) as watched:
        port = watched.port
        watched.start()
        site.append(stream_id, 3)
        site.wait()
        assert port.reasons() == []
        restartable_cluster.stop("immediate")
        eventually(lambda: port.reasons() == ["database"])
        status, body, _ = port.get("/readyz")
        assert (status, body) == (
            503, "not ready: the database does not answer; the exporter's log says why\n",
        )  # fmt: skip
        assert port.alive()
        assert port.total("database_up") == 0
        assert port.total("delivered_events_total") == 3
        restartable_cluster.start()
        eventually(lambda: port.reasons() == [], within=30)
        assert port.total("database_up") == 1
    site.close()


def test_a_scheduler_that_stands_still(site: Site) -> None:
    """503 with how long since the last tick; ready again when it ticks."""
    with watching(site, standstill=1.5) as watched:
        daemon = watched.start()
        assert watched.port.reasons() == []
        daemon._scheduler.pause()
        eventually(lambda: watched.port.reasons() == ["standstill"])
        assert "its last tick began" in watched.port.get("/readyz")[1]
        assert watched.port.alive()
        daemon._scheduler.resume()
        eventually(lambda: watched.port.reasons() == [])


def test_a_stream_that_is_overdue(site: Site, watched: Watched) -> None:
    """503 while its oldest event waits longer than its delay and ten seconds; it is named."""
    stream_id, _ = site.add(max_delay=2.0), site.add()
    site.stores[stream_id].trouble = DENIED
    watched.start()
    site.append(stream_id)
    port = watched.port
    eventually(lambda: port.total("stream_state", state="blocked") == 1)
    # It waits, and not too long yet.
    assert port.reasons() == []
    site.stores[stream_id].trouble = None
    site.change(streams.resume, stream_id)
    site.wait()
    site.stores[stream_id].trouble = DENIED
    overdue_event(site, stream_id)
    eventually(lambda: port.reasons() == ["overdue"])
    eventually(lambda: "stream 1 is overdue and blocked" in port.get("/readyz")[1])
    _, body, _ = port.get("/readyz")
    assert "12 s are its bound" in body
    assert DENIED.message not in body
    site.stores[stream_id].trouble = None
    site.change(streams.resume, stream_id)
    eventually(lambda: port.reasons() == [])


def test_a_writer_that_holds_streams_back_is_told(site: Site) -> None:
    """An overdue stream behind an open transaction says so: its store is not to blame."""
    with watching(site, standstill=1.0) as watched:
        stream_id = site.add()
        watched.start()
        with site.engine.begin() as holding:
            EventRepository().append(holding, [b'{"id":"%024x","type":"source","outcome":"success",'
                                               b'"reason":"","vars":{"flow":{"id":"x"},'
                                               b'"lead":{"id":"y"}}}' % 1])  # fmt: skip
            overdue_event(site, stream_id + 1)
            overdue_event(site, stream_id)
            eventually(lambda: watched.port.reasons() == ["held-back", "overdue"])
        eventually(lambda: watched.port.reasons() == [])


def test_many_overdue_streams_are_summed_up(site: Site, watched: Watched) -> None:
    """The worst ten are named, the others counted."""
    for _ in range(13):
        stream_id = site.add()
        site.stores[stream_id].trouble = DENIED
        overdue_event(site, stream_id)
    watched.start()
    eventually(lambda: len(watched.port.reasons()) == 11)
    assert "and 3 more streams are overdue" in watched.port.get("/readyz")[1]


# --- the port ----------------------------------------------------------------------------


def test_only_three_paths_and_two_methods_are_answered(watched: Watched) -> None:
    """Others are refused; no answer tells which Python is behind it."""
    port = watched.port
    assert port.get("/")[0] == 404
    assert port.get("/metrics/../secrets")[0] == 404
    assert port.get("/metrics", method="POST")[0] == 501
    status, body, headers = port.get("/metrics", method="HEAD")
    assert (status, body) == (200, "")
    assert headers["Server"].strip() == "auditstore"
    assert port.get("/readyz?json")[2]["Content-Type"] == "application/json"
    openmetrics = port.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics[1].endswith("# EOF\n")
    assert openmetrics[2]["Content-Type"].startswith("application/openmetrics-text")


def test_clients_that_hang_are_bounded(watched: Watched) -> None:
    """Forty that send nothing hold a few threads; when they leave, others are answered."""
    host, _, port = watched.port.address.rpartition(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(40)]
    try:
        # Those beyond the room are sent away at once, with nothing.
        eventually(lambda: len(select.select(idle, [], [], 0)[0]) >= 40 - 16)
    finally:
        for each in idle:
            each.close()

    def answered() -> bool:
        try:
            return watched.port.alive()
        except OSError:
            return False

    eventually(answered)


def test_a_taken_port_is_an_error_at_once(database_url: str, watched: Watched) -> None:
    """It names the address, and what to do."""
    address = ListenAddress.parse(watched.port.address)
    with pytest.raises(ConfigurationError) as raised:
        Monitor(address, create_engine(database_url))
    assert raised.value.message == f"cannot listen on {address}: Address already in use"
    assert "--metrics-listen" in raised.value.hint


def test_a_name_that_is_nowhere_is_an_error(database_url: str) -> None:
    """A host that cannot be found, or is not this machine's, is told as such."""
    for host in ("no-such-host.invalid", "192.0.2.1"):
        with pytest.raises(ConfigurationError, match=f"cannot listen on {host}:1"):
            Monitor(ListenAddress(host, 1), create_engine(database_url))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464), ("[::1]:9464", "::1", 9464), (":0", "", 0),
        ("metrics.example.com:65535", "metrics.example.com", 65535),
    ],
)  # fmt: skip
def test_addresses(text: str, host: str, port: int) -> None:
    """As Prometheus's own programs take them; printed as they were written."""
    address = ListenAddress.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text
    assert Settings.from_environment({"AUDITSTORE_METRICS_LISTEN": text}).metrics_listen == address


@pytest.mark.parametrize(
    "text", ["9464", "127.0.0.1", "::1:9464", "a b:1", "x:65536", "x:", "http://x:1", "x:\uff11"]
)
def test_what_is_no_address(text: str) -> None:
    """An error that shows how to write one, and names the variable that it came from."""
    with pytest.raises(ConfigurationError, match="no address to listen on"):
        ListenAddress.parse(text)
    with pytest.raises(ConfigurationError, match=r"^AUDITSTORE_METRICS_LISTEN: "):
        Settings.from_environment({"AUDITSTORE_METRICS_LISTEN": text})


def test_every_interface_and_ipv6(database_url: str) -> None:
    """No host is all of them; an address in brackets is IPv6."""
    for text in (":0", "[::1]:0"):
        monitor = Monitor(ListenAddress.parse(text), create_engine(database_url))
        monitor.close()
        assert monitor.address.port != 0
    assert ANYWHERE.port == 0
