"""Exporters that are told to leave, that share streams, and whose clocks are wrong.

SIGKILL at every step is in ``tests/crash``.
"""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from support.exporters import Exporter
from support.fault_run import FaultRun
from support.fixtures_postgres import Database
from support.stores import Place

pytestmark = pytest.mark.long

FOUR_FLOWS = ("flow-a", "flow-b", "flow-c", "flow-d")
_HOUR_S = 3600
# Unhurried writers: each test has its share of a machine with two cores.
_PACE_S = 0.3


def test_sigterm_under_load(database: Database, s3_place: Place) -> None:
    """A daemon leaves with 0 within ten seconds, and the other one has its streams at once."""
    run = FaultRun(database.url, s3_place, pace=_PACE_S, exporters=2)
    took = []

    def leave(exporter: Exporter) -> None:
        began = time.monotonic()
        assert exporter.stop(within=10) == 0
        took.append(time.monotonic() - began)
        run.injected("SIGTERM")

    with run.running():
        run.progress(events=40)
        for leaver in run.chance.sample(run.exporters, 2):
            leave(leaver)
            run.recovered()
            leaver.restart().began()
        for leaver in run.exporters:  # now nobody is left for a while
            leave(leaver)
    run.check(f"slowest leave {max(took):.2f} s")


def test_two_to_four_daemons_share_the_streams(database: Database, s3_place: Place) -> None:
    """Daemons that come get their share; of those that are killed it passes to the others."""
    run = FaultRun(database.url, s3_place, pace=_PACE_S, exporters=2, flows=FOUR_FLOWS)
    with run.running():
        run.progress(events=40)
        late = [run.add_exporter(), run.add_exporter()]
        for exporter in run.exporters:
            exporter.says("delivered", times=3)
        for exporter in run.exporters[:2]:
            exporter.kill()
            run.injected("SIGKILL")
        run.recovered()
        for exporter in late:
            exporter.says("delivered", times=exporter.logged().count("delivered") + 1)
    run.check()


def test_daemons_that_ignore_every_lease(database: Database, s3_place: Place) -> None:
    """All work on all streams at once: much is done twice, and nothing is there twice."""
    run = FaultRun(database.url, s3_place, pace=_PACE_S, exporters=3, exporter={"greedy": True})
    with run.running():
        for exporter in run.exporters:
            exporter.says("put ", times=10)
        run.recovered(within=60)
    logs = [exporter.logged() for exporter in run.exporters]
    puts, twice = (sum(log.count(word) for log in logs) for word in ("put ", "created=False"))
    assert twice > 5
    figures = run.check(f"{puts} uploads, {twice} of them for nothing")
    assert puts - twice == figures.objects


def test_clocks_that_are_off_by_an_hour(database: Database, s3_place: Place) -> None:
    """One host is an hour ahead and one behind, then they swing: nothing goes by their clocks.

    What is proved is the protocol and the scheduling. Amazon refuses requests that are signed
    by a clock so wrong, which blocks the stream (``tests/stores/test_s3_errors.py``); the S3
    server of the tests does not look at it.
    """
    run = FaultRun(database.url, s3_place, pace=_PACE_S, exporters=0)
    ahead = run.add_exporter(clock=[_HOUR_S, -2 * _HOUR_S])
    behind = run.add_exporter(clock=[-_HOUR_S, 2 * _HOUR_S])
    began = _server_time(run)
    with run.running():
        for exporter in (ahead, behind):
            exporter.says("delivered", times=3)
        for exporter in (ahead, behind):
            exporter.turn_clock()
            run.injected("clock turned")
        # What either had begun before is over then; from here on it needs its scheduler.
        run.recovered()
        for exporter in (ahead, behind):
            exporter.says("delivered", times=exporter.logged().count("delivered") + 3)
        # One alone takes over from the dead, whatever time it takes it to be.
        ahead.kill()
        run.injected("SIGKILL")
        run.recovered()
    run.check()
    with run.engine.connect() as connection:
        first, last = connection.execute(
            sa.text("SELECT min(sealed_at), max(delivered_at) FROM auditstore.files")
        ).one()
    assert began <= first < last <= _server_time(run)


def _server_time(run: FaultRun) -> object:
    with run.engine.connect() as connection:
        return connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
