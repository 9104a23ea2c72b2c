"""Exporters that are stopped until others have done their work, and then go on with it.

SIGSTOP is what a paused machine, a long swap or a debugger does: no lease is given back, no
connection is closed. The zombie wakes in the midst of a file that others delivered meanwhile.
"""

from __future__ import annotations

import pytest
from support.exporters import Exporter
from support.fault_run import FaultRun
from support.fixtures_postgres import Database
from support.stores import Place

pytestmark = pytest.mark.long

# Where it is stopped, and what its log shows that it finds when it goes on.
_PUT_TWICE = "created=False"
_RECORDED_TWICE = "created=True"
_TRANSACTION_ENDED = "database trouble"
POINTS = {
    "before seal commit": _TRANSACTION_ENDED,
    "after seal commit": _PUT_TWICE,
    "half uploaded": _PUT_TWICE,
    "after upload": _RECORDED_TWICE,
    "before record commit": _TRANSACTION_ENDED,
}
# How long the server lets a stopped exporter keep its locks; 15 s in life.
_IMPATIENT = {"longest_idle": 2.0}


def _wake_after_another_did_its_work(run: FaultRun, other: Exporter, point: str) -> Exporter:
    zombie = run.add_exporter(point=point, count=run.chance.randint(1, 3), on_point="SIGSTOP")
    zombie.began()
    # Stopped wherever it is just now, until its streams have passed to the zombie-to-be.
    other.pause()
    zombie.paused()
    run.injected("SIGSTOP somewhere")
    run.injected(f"SIGSTOP {point}")
    other.resume()
    # The zombie's streams too: its lease ran out, and the other one took over what it had in hand.
    run.recovered()
    before = zombie.logged()
    zombie.resume()
    zombie.says(POINTS[point], times=before.count(POINTS[point]) + 1)
    # It works on as if nothing had been.
    assert other.stop() == 0
    zombie.says("delivered", times=before.count("delivered") + 3)
    return zombie


def test_a_zombie_finishes_what_another_has_done_already(
    database: Database, s3_place: Place
) -> None:
    """Whichever step it wakes in, its old file is neither doubled nor recorded again."""
    run = FaultRun(database.url, s3_place, pace=0.3, exporter=_IMPATIENT)
    points = list(POINTS)
    run.chance.shuffle(points)
    with run.running():
        other = run.exporters[0]
        for point in points:
            other = _wake_after_another_did_its_work(run, other, point)
    run.check()


@pytest.mark.parametrize("kind", ["folder", "azure"])
def test_half_an_upload_is_finished_late(
    request: pytest.FixtureRequest, database: Database, kind: str
) -> None:
    """In a folder and in Azure too, the half that comes late finds its name taken."""
    place = request.getfixturevalue(f"{kind}_place")
    run = FaultRun(database.url, place, pace=0.3, exporter=_IMPATIENT)
    with run.running():
        _wake_after_another_did_its_work(run, run.exporters[0], "half uploaded")
    run.check()
