"""Sessions that are ended from outside, forgotten by their owner, or no business of ours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import psycopg
import pytest
import sqlalchemy as sa
from support.commands import CommandLine
from support.eventually import eventually
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import Database
from support.lead_events import id_of, lead_event
from support.stores import Place

from auditstore.database import create_engine
from auditstore.repository import EventRepository

pytestmark = pytest.mark.long

_END = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = %s AND random() < %s"
)


def test_sessions_are_terminated_again_and_again(database: Database, folder_place: Place) -> None:
    """The exporters' and the writers', some or all at once, in the midst of whatever they do."""
    # A prepared transaction whose end met a fault would stay open for the rest of the run.
    run = FaultRun(database.url, folder_place, exporters=2, limits=LARGE, without=["prepare"])
    with run.running(), database.cluster.connect(database.name) as administrator:
        for round_ in range(8):
            run.progress(events=20)
            for name in ("auditstore exporter", "writers"):
                share = 1.0 if round_ % 4 == 3 else run.chance.uniform(0.2, 0.8)
                ended = administrator.execute(_END, (name, share)).fetchone()
                assert ended is not None
                run.injected(f"session of {name} terminated", ended[0])
        run.recovered(within=60)
    figures = run.check()
    assert figures.faults["session of auditstore exporter terminated"] >= 8
    assert figures.faults["session of writers terminated"] >= 8


def test_a_writer_that_idles_in_its_transaction(database: Database, folder_place: Place) -> None:
    """Status names it, and all that waits for it comes at once when it is gone."""
    run = FaultRun(database.url, folder_place, exporters=2, limits=LARGE)
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": database.url})
    flow = run.streams[0].flow_id
    kept = lead_event(flow)
    forgetful = create_engine(database.url, application_name="forgetful engine")
    with run.running():
        run.progress(events=40)
        with forgetful.connect() as connection:
            EventRepository().append(connection, kept)
            pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
            run.injected("writer idle in its transaction")
            shown = eventually(
                lambda: (said := cli.run("status").stdout) and "forgetful engine" in said and said,
                within=30, what="status names the writer",
            )  # fmt: skip
            assert "Held back by" in shown
            for words in (str(pid), "postgres", "idle in transaction"):
                assert words in shown, words
            (told,) = [
                each
                for each in orjson.loads(cli.run("status", "--json").stdout)["open_writers"]
                if each["pid"] == pid
            ]
            assert (told["user_name"], told["application"]) == ("postgres", "forgetful engine")
            assert told["age"] > 1
            connection.commit()
        run.writers.committed[flow][id_of(kept)] = kept
        run.recovered(within=60)
    forgetful.dispose()
    run.check(f"told after {told['age']:.1f} s")


def delays(run: FaultRun, rounds: int) -> list[float]:
    """How long single events take from their commit to their delivery."""
    flow, position = run.streams[0].flow_id, 0
    found = []
    for _ in range(rounds):
        event = lead_event(flow)
        with run.engine.begin() as connection:
            EventRepository().append(connection, event)
            position = connection.scalar(
                sa.text("SELECT position FROM auditstore.events WHERE event_id = :id"),
                {"id": id_of(event)},
            )
        began = time.monotonic()
        run.writers.committed[flow][id_of(event)] = event
        with run.engine.connect() as connection:
            eventually(
                lambda: connection.execute(  # called at once
                    sa.text(
                        "SELECT delivered_position >= :position FROM auditstore.streams"
                        " WHERE stream_id = :stream"
                    ),
                    {"position": position, "stream": run.streams[0].stream_id},  # noqa: B023
                ).scalar_one(),
                within=60, what="one more event is delivered",
            )  # fmt: skip
        found.append(time.monotonic() - began)
    return found


@contextmanager
def unrelated_writer(database: Database) -> Iterator[None]:
    """A transaction that has written elsewhere, and stays open."""
    with database.cluster.connect(database.name) as connection, connection.transaction():
        connection.execute("CREATE TABLE elsewhere (a int)")
        connection.execute("INSERT INTO elsewhere VALUES (1)")
        yield
        raise psycopg.Rollback


def test_an_unrelated_writer_delays_nothing(database: Database, folder_place: Place) -> None:
    """Delays without a transaction that writes elsewhere, and beside one until all is there."""
    run = FaultRun(database.url, folder_place, exporters=2, limits=LARGE, without=["prepare"])
    without: list[float] = []
    beside: list[float] = []
    with run.running():
        run.progress(events=40)
        for _ in range(3):
            without += delays(run, 4)
            with unrelated_writer(database):
                run.injected("unrelated writer open")
                beside += delays(run, 4)
        with unrelated_writer(database):
            # With the stranger still there nothing is left behind.
            run.recovered(within=60)
    alone, both = statistics.median(without), statistics.median(beside)
    run.check(f"median delay {alone:.3f} s, beside an unrelated writer {both:.3f} s")
    assert both < alone * 2 + 1
