"""Exporters that run out of disk, and out of memory."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from support.eventually import eventually
from support.fault_run import FaultRun
from support.fixtures_postgres import Database
from support.lead_events import lead_event
from support.stores import Place

from auditstore import streams
from auditstore.destinations import Destination
from auditstore.streams import Limits, StreamState

pytestmark = pytest.mark.long

FOUR_FLOWS = ("flow-a", "flow-b", "flow-c", "flow-d")
_MIB = 1024 * 1024
# Without address space in reserve for each thread, which a limit on it would not bite into.
_ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}


def _state(run: FaultRun) -> StreamState:
    """The first stream's."""
    with run.engine.connect() as connection:
        return streams.get(connection, run.streams[0].stream_id).status


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        said = f"a small disk cannot be mounted here: {mounted.stderr.strip()}"
        if os.environ.get("CI") or os.geteuid() == 0:
            pytest.fail(said)
        pytest.skip(said)  # only root may mount; -ra shows it
    yield disk
    subprocess.run(["umount", disk], check=True)


def _fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert not shutil.disk_usage(disk).free
    return ballast


def test_a_full_disk(database: Database, small_disk: Path) -> None:
    """Its streams say so in plain words, leave nothing half written, and go on with the space."""
    folder = Destination("file", str(small_disk / "store"))
    place = Place("file", folder, None, missing=folder, missing_code="")
    run = FaultRun(database.url, place, pace=0.3)
    with run.running():
        run.progress(events=40)
        ballast = _fill(small_disk)
        run.injected("full disk")
        eventually(lambda: _state(run).state == "retrying", within=30, what="it is noticed")
        state = _state(run)
        assert state.cause is not None
        assert state.cause.endswith("No space left on device")
        assert state.hint == "The disk is full: make space. Nothing is lost meanwhile."
        # As long as it lasts; the writers never notice.
        more = run.writers.events + 100
        eventually(lambda: run.writers.events > more, within=30)
        ballast.unlink()
        run.recovered()
        assert _state(run).state == "streaming"
    run.check()
    assert not list(small_disk.rglob(".tmp-*"))


def test_files_that_may_not_be_that_large(database: Database, folder_place: Place) -> None:
    """A limit on the process's files blocks its streams, says so, and ends when it is lifted."""
    run = FaultRun(database.url, folder_place, pace=0.3)
    with run.running():
        run.progress(events=40)
        _, hard = resource.prlimit(run.exporters[0].pid, resource.RLIMIT_FSIZE)
        resource.prlimit(run.exporters[0].pid, resource.RLIMIT_FSIZE, (100, hard))
        run.injected("file size limit")
        eventually(lambda: _state(run).state == "blocked", within=30, what="it is noticed")
        state = _state(run)
        assert state.cause is not None
        assert state.cause.endswith("File too large")
        assert state.hint is not None
        assert "ulimit -f" in state.hint
        resource.prlimit(run.exporters[0].pid, resource.RLIMIT_FSIZE, (hard, hard))
        with run.engine.begin() as connection:
            for stream in run.streams:
                streams.resume(connection, stream.stream_id, actor="test")
        run.recovered()
    run.check()
    assert not list(Path(folder_place.destination.bucket).parent.rglob(".tmp-*"))


def _append_backlog(run: FaultRun, flows: Sequence[str], events: int) -> int:
    """So many events of 16 KB a flow that hardly compress, in one commit; the bytes in all."""
    total = 0
    for flow in flows:
        snapshots = [
            lead_event(flow, notes=run.chance.randbytes(8000).hex()) for _ in range(events)
        ]
        run.writers.append(flow, snapshots)
        total += sum(len(each) for each in snapshots)
    return total


def test_a_large_backlog_takes_bounded_memory(database: Database, s3_place: Place) -> None:
    """What an exporter needs goes by the size of its files, not by what waits."""
    limits = Limits(max_bytes=_MIB, max_delay=0.15)
    run = FaultRun(database.url, s3_place, pace=0.3, flows=FOUR_FLOWS, limits=limits)
    with run.running():
        run.progress(events=40)
        rest = run.exporters[0].peak_memory
        backlog = _append_backlog(run, FOUR_FLOWS, 2000)
        run.recovered(within=60)
        grown = run.exporters[0].peak_memory - rest
    run.check(
        f"backlog {backlog / _MIB:.0f} MiB; memory {rest / _MIB:.0f} MiB at rest,"
        f" {grown / _MIB:.0f} MiB more at most"
    )
    assert grown < backlog / 2


def test_out_of_memory(database: Database, s3_place: Place) -> None:
    """An exporter that gets no more memory says so, or dies; nothing is lost, and it goes on."""
    limits = Limits(max_bytes=64 * _MIB, max_delay=0.15)
    run = FaultRun(
        database.url, s3_place, pace=0.3, limits=limits, exporter={"environment": _ONE_ARENA}
    )
    with run.running():
        run.progress(events=40)
        exporter = run.exporters[0]
        exporter.limit_memory(spare=0)
        run.injected("out of memory")
        backlog = _append_backlog(run, FOUR_FLOWS[:2], 2000)
        eventually(
            lambda: not exporter.running or "emory" in exporter.logged(),
            within=60, what="the exporter misses memory",
        )  # fmt: skip
        died = not exporter.running
        if not died:
            eventually(lambda: _state(run).state == "retrying", within=30, what="it is noticed")
            assert "memory" in str(_state(run).cause)
        exporter.lift_memory_limit()
        run.recovered(within=60)
        peak = exporter.peak_memory
    run.check(
        f"backlog {backlog / _MIB:.0f} MiB in files of {limits.max_bytes // _MIB} MiB at most;"
        f" it {'died' if died else 'lived on'}; with memory again it took {peak / _MIB:.0f} MiB"
    )
