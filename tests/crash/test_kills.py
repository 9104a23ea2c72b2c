"""SIGKILL at every step between seal and record: nothing lost, nothing twice.

Eight hostile writers append all the while. In the end the bucket itself is read: every
committed event lies there exactly once, byte for byte, in files without a gap.
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress

import pytest
from support.eventually import eventually
from support.exporter_process import KILL_POINTS
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import Database
from support.stores import Place

_PATIENCE_S = 30


@pytest.fixture
def run(database: Database, place: Place) -> FaultRun:
    """A run without exporters yet; those that start anew each time outrun the writers."""
    return FaultRun(database.url, place, exporters=0, tolerant=False, limits=LARGE, pace=0.6)


def test_a_kill_at_every_step_loses_nothing_and_doubles_nothing(run: FaultRun) -> None:
    """One exporter after the other dies at the next step, each at a random pass of it."""
    points = list(KILL_POINTS)
    run.chance.shuffle(points)
    with run.running():
        for point in points:
            count = run.chance.randint(1, 3)
            exporter = run.add_exporter(point=point, count=count)
            try:
                code = exporter.ended(within=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                pytest.fail(f"the exporter never came to {point!r} for the {count}. time")
            assert code == -signal.SIGKILL, f"at {point!r} the exporter ended with {code}"
            run.injected("SIGKILL")
    run.check()


@pytest.mark.parametrize(
    "place",
    ["folder", "s3", pytest.param("azure", marks=pytest.mark.long)],
    indirect=True,
)
def test_two_exporters_on_the_same_streams_are_killed_in_turn(run: FaultRun) -> None:
    """Leases pass from the dead to the living, and work that both do is done once."""
    # The protocol is the same on each; Azure's emulator is the slowest of the three.
    rounds = 3 if run.place.kind == "azure" else 4
    with run.running():
        for _ in range(rounds):
            pair = [
                run.add_exporter(
                    point=run.chance.choice(KILL_POINTS), count=run.chance.randint(1, 4)
                )
                for _ in range(2)
            ]
            eventually(
                lambda: not all(exporter.running for exporter in pair),  # noqa: B023  # called at once
                within=_PATIENCE_S, what="one of the two is dead",
            )  # fmt: skip
            for exporter in pair:
                # The other one may come to its point too; else it is left to stop in order.
                with suppress(subprocess.TimeoutExpired):
                    exporter.ended(within=1)
                code = exporter.stop() if exporter.running else exporter.ended()
                assert code in {0, -signal.SIGKILL}
                run.injected("SIGKILL", n=code == -signal.SIGKILL)
    assert run.figures.faults["SIGKILL"] >= rounds
    run.check()
