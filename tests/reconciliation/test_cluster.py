"""Files read on a real Dask cluster, by workers that are processes of their own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
import sqlalchemy as sa
from distributed import LocalCluster
from support.commands import CommandLine
from support.dying_stores import CannotReach, KillsItsProcess, recipe_of
from support.ledger_builder import Scene
from support.stores import Place

from auditstore.errors import ClusterUnavailable, WorkersLost
from auditstore.reconciliation import Kind, Readers, Workers
from auditstore.reconciliation.cluster import cluster

#: On this machine, on any port, without a page that shows it.
QUIETLY: dict[str, Any] = {
    "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": None,
    "scheduler_kwargs": {"dashboard": False}, "silence_logs": logging.CRITICAL,
}  # fmt: skip


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[LocalCluster]:
    """Two workers, each a process that is begun again when it dies. No page shows them."""
    with (
        # So long a result is asked of a worker that died with it, before it is read anew.
        dask.config.set({"distributed.comm.timeouts.connect": "5s"}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **QUIETLY) as made,
    ):
        yield made


@pytest.fixture
def workers(local_cluster: LocalCluster) -> Iterator[Workers]:
    """The cluster as it is named on the command line."""
    made = cluster(local_cluster.scheduler_address, patience=60)
    yield made
    made.close()


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A scene in a folder, which lies on the workers' machine too."""
    return Scene(engine, folder_place)


@pytest.mark.parametrize("form", ["ndjson.gz", "json"])
def test_a_cluster_finds_the_same(scene: Scene, workers: Workers, form: str) -> None:
    """The workers' threads are counted, and what they read gives what one alone finds."""
    assert workers.count == 2
    stream = scene.stream(format=form, max_events=3)
    scene.append(30)
    files = scene.deliver(stream)
    readers = Readers(workers, lambda: recipe_of(scene.place))
    healthy, summary = scene.compare(stream, readers=readers)
    assert healthy == []
    assert (summary.files_matched, summary.events_matched) == (10, 30)
    scene.tamper(
        "DELETE FROM auditstore.events WHERE position = :at", at=files[4].sealed.last_position
    )
    found, _ = scene.compare(stream, readers=readers)
    assert found == scene.compare(stream)[0]
    assert found


def test_what_was_read_before_is_read_anew(scene: Scene, workers: Workers) -> None:
    """A cluster that remembers what it read is not asked for that again."""
    stream = scene.stream(max_events=3)
    scene.append(9)
    files = scene.deliver(stream)
    readers = Readers(workers, lambda: recipe_of(scene.place))
    assert scene.compare(stream, readers=readers)[0] == []
    scene.vandal.delete(files[1].sealed.object_key)
    (found,), _ = scene.compare(stream, readers=readers)
    assert found.kind is Kind.MISSING_FILE


def test_a_killed_worker_costs_no_answer(scene: Scene, workers: Workers, tmp_path: Path) -> None:
    """A worker killed in the midst of a file: it is read elsewhere, and the result is complete."""
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    stream = scene.stream(max_events=2)
    scene.append(2 * 40)
    files = scene.deliver(stream)
    scene.vandal.delete(files[30].sealed.object_key)
    recipe = KillsItsProcess(recipe_of(scene.place), str(deaths))

    (found,), summary = scene.compare(stream, readers=Readers(workers, lambda: recipe))

    assert recipe.deaths == 1
    assert (found.kind, found.sequence) == (Kind.MISSING_FILE, 31)
    assert (summary.files_expected, summary.files_matched) == (40, 39)
    assert summary.events_matched == 78


def test_workers_that_do_not_reach_the_store_are_an_error(scene: Scene, workers: Workers) -> None:
    """A store that the workers cannot reach is said to be so."""
    stream = scene.stream(max_events=1)
    scene.append(10)
    scene.deliver(stream)
    with pytest.raises(WorkersLost, match="no route from here"):
        scene.compare(stream, readers=Readers(workers, CannotReach))


def test_the_command_line_reads_on_a_cluster(
    scene: Scene, local_cluster: LocalCluster, database_url: str
) -> None:
    """``--cluster`` compares on the scheduler's workers."""
    stream = scene.stream(max_events=3)
    scene.append(9)
    scene.deliver(stream)
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": database_url})
    address = local_cluster.scheduler_address
    shown = cli.run("reconcile", "--level", "events", "--cluster", address)
    assert "9" in shown.stdout


# --- what is not there ----------------------------------------------------------------------


def test_no_scheduler(unused_port: int) -> None:
    """A scheduler that does not answer is an error after the time that was given."""
    with pytest.raises(ClusterUnavailable, match="cannot be reached within 1 seconds") as caught:
        cluster(f"tcp://127.0.0.1:{unused_port}", within=1)
    assert "dask scheduler" in caught.value.hint


def test_no_address() -> None:
    """What is no address is said to be none."""
    with pytest.raises(ClusterUnavailable, match="cannot be reached"):
        cluster("nonsense", within=1)


def test_no_workers() -> None:
    """A scheduler without workers is an error, and never waited for without end."""
    with (
        LocalCluster(n_workers=0, processes=True, **QUIETLY) as empty,
        pytest.raises(ClusterUnavailable, match="no workers"),
    ):
        cluster(empty.scheduler_address, within=1)


def test_the_extra_is_named(
    scene: Scene, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Dask is not installed, that and what to install is said."""
    scene.stream()
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "auditstore.reconciliation.cluster")
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": database_url})
    message, hint = cli.error("reconcile", "--cluster", "tcp://127.0.0.1:1")
    assert message == "this needs the package distributed"
    assert hint == "pip install 'auditstore[cluster]'"


def test_one_way_only() -> None:
    """Processes here and a cluster elsewhere are not both wanted."""
    cli = CommandLine({})
    result = cli.run("reconcile", "--processes", "--cluster", "tcp://127.0.0.1:1", code=2)
    assert "choose one" in result.output
