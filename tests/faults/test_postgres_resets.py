"""Connections that are reset in the middle of a COPY or a commit, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import sqlalchemy as sa
from support.eventually import eventually
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import Database
from support.lead_events import id_of, lead_event
from support.stores import Place
from support.tcp_proxy import Cut, TcpProxy, tcp_proxy

from auditstore.database import create_engine
from auditstore.errors import DatabaseUnavailable
from auditstore.repository import EventRepository
from auditstore.sql import events as events_sql
from auditstore.sql.failures import translated

FLOW = "flow-1"
COPY_IN = b"COPY auditstore.events"
COPY_OUT = b"COPY (SELECT"
#: What is cut, on its way to whom, and after how many bytes at the most.
Where = tuple[bytes, Literal["server", "client"], int]


@pytest.fixture
def proxy(database: Database) -> Iterator[TcpProxy]:
    """In front of the test's server."""
    with tcp_proxy(database.cluster.port) as made:
        yield made


@pytest.mark.parametrize("after", [0, 1, 200, 5_000, 20_000])
@pytest.mark.parametrize("to", ["server", "client"])
def test_a_reset_in_the_appending_copy_leaves_nothing(
    database: Database, proxy: TcpProxy, engine: sa.Engine, after: int, to: str
) -> None:
    """The caller sees our error from its own transaction block, and may do it again at once."""
    cut = Cut(COPY_IN, "server", lambda: after)
    if to == "client":  # the server's answer to COPY, some bytes of which come through
        cut = Cut(COPY_IN, "client", lambda: after // 1_000)
    snapshots = [lead_event(FLOW, padding=2_000) for _ in range(30)]
    through = create_engine(proxy.url(database.url))
    repository = EventRepository()
    with proxy.cutting(cut):
        with pytest.raises(DatabaseUnavailable) as caught, through.begin() as connection:
            repository.append(connection, snapshots)
        assert caught.value.hint
    assert cut.done == 1
    with engine.connect() as connection:
        assert not repository.find(connection, flow_id=FLOW)
    with through.begin() as connection:
        assert repository.append(connection, snapshots).appended == 30
    with engine.connect() as connection:
        assert len(repository.find(connection, flow_id=FLOW)) == 30
    through.dispose()


@pytest.mark.parametrize("after", [0, 300, 40_000])
def test_a_reset_in_the_exporting_copy_is_the_database_s_trouble(
    database: Database, proxy: TcpProxy, engine: sa.Engine, after: int
) -> None:
    """What was read is thrown away as a whole; the engine reads again over a new connection."""
    snapshots = [lead_event(FLOW, padding=2_000) for _ in range(30)]
    with engine.begin() as connection:
        EventRepository().append(connection, snapshots)
    through = create_engine(proxy.url(database.url))

    def read() -> list[bytes]:
        with translated(), through.connect() as connection:
            return list(events_sql.payloads(connection, FLOW, 1, 30))

    cut = Cut(COPY_OUT, "client", lambda: after)
    with proxy.cutting(cut), pytest.raises(DatabaseUnavailable):
        read()
    assert cut.done == 1
    assert [id_of(each) for each in read()] == [id_of(each) for each in snapshots]
    through.dispose()


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("COPY in", (COPY_IN, "server", 30_000)),
        ("COPY out", (COPY_OUT, "client", 30_000)),
        # Its answer is lost.
        ("commit", (b"COMMIT", "client", 0)),
    ],
    ids=["copy-in", "copy-out", "commit"],
)
@pytest.mark.long
def test_resets_under_load(
    database: Database, proxy: TcpProxy, folder_place: Place, name: str, where: Where
) -> None:
    """Writers and exporters alike lose connections in the middle of what they do most."""
    # A prepared transaction whose end met a fault would stay open for the rest of the run.
    run = FaultRun(
        proxy.url(database.url), folder_place, exporters=2, limits=LARGE, without=["prepare"]
    )
    run.engine = create_engine(database.url, application_name="looking on", poolclass=sa.NullPool)
    marker, to, most = where
    cut = Cut(marker, to, lambda: run.chance.randint(0, most), every=12)
    with run.running():
        run.progress(events=40)
        with proxy.cutting(cut):
            run.progress(events=100, within=60)
            eventually(lambda: cut.done >= 5, within=60, what="five connections are cut")
        run.injected(f"reset in a {name}", cut.done)
        run.recovered(within=60)
    run.check()
