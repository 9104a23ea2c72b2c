"""Exporters that run out of disk, and out of memory."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.eventually import eventually
from support.fault_run import FaultRun
from support.fixtures_postgres import Database
from support.stores import Place

from auditstore import streams
from auditstore.destinations import Destination
from auditstore.streams import Limits, StreamState

_MIB = 1024 * 1024


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
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def _fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
    return ballast


def test_a_full_disk(database: Database, small_disk: Path) -> None:
    """Its streams say so in plain words, leave nothing half written, and go on with the space."""
    folder = Destination("file", str(small_disk / "store"))
    place = Place("file", folder, None, missing=folder, missing_code="")
    run = FaultRun(database.url, place)
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
    run = FaultRun(database.url, folder_place)
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
