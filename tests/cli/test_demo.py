"""``auditstore demo``: what a newcomer sees first, from an empty environment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-m", "auditstore", "demo"]
_TIMEOUT_S = 120


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What ``env -i HOME=... PATH=...`` leaves, and settings that must be ignored."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    return kept | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "AUDITSTORE_DATABASE_URL": "postgresql://127.0.0.1:1/not-to-be-touched",
        "AWS_PROFILE": "no-such-profile",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }


def left_behind(folder: Path) -> list[str]:
    """The processes whose arguments or environment name the demo's own temporary folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join([*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            continue
        if str(folder) in words:
            found.append(" ".join(process.cmdline()))
    return found


def test_it_shows_a_reconciled_store_and_leaves_nothing(environment: dict[str, str]) -> None:
    """Exit code 0, every stream reconciled with events in it, no process and no file left."""
    done = subprocess.run(
        COMMAND, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "Reconciled: every event lies in each of its places exactly once" in done.stdout
    table = done.stdout.partition("7  Reconciliation")[2]
    rows = re.findall(r"^ +(\d) +\d+ +(\d+) +(\d+) +(\d+) +0  reconciled$", table, re.MULTILINE)
    assert len(rows) >= 3
    for _, in_outbox, in_store, equal in rows:
        assert int(in_outbox) > 400
        assert in_outbox == in_store == equal
    folder = Path(environment["TMPDIR"])
    assert left_behind(folder) == []
    assert list(folder.iterdir()) == []
    assert "\x1b" not in done.stdout


def test_an_interrupt_leaves_nothing(environment: dict[str, str]) -> None:
    """Ctrl-C while leads come in ends it with 130, and with no process and no file left."""
    process = subprocess.Popen(
        COMMAND, env=environment | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if "The exporter runs" in line:
                process.send_signal(signal.SIGINT)
                break
        _, said = process.communicate(timeout=_TIMEOUT_S)
    assert process.returncode == 130, said
    folder = Path(environment["TMPDIR"])
    assert left_behind(folder) == []
    assert list(folder.iterdir()) == []


def test_it_keeps_only_to_an_empty_folder(environment: dict[str, str], tmp_path: Path) -> None:
    """A folder with something in it is refused before anything is started."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    done = subprocess.run(
        [*COMMAND, "--keep", tmp_path / "full"],
        env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_what_it_kept_can_be_looked_at(environment: dict[str, str], tmp_path: Path) -> None:
    """With --keep the command that it names shows the events afterwards."""
    folder = tmp_path / "kept"
    done = subprocess.run(
        [*COMMAND, "--keep", folder],
        env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"AUDITSTORE_HOME=(\S+) auditstore (.*)", done.stdout)
    assert found is not None
    del environment["AUDITSTORE_DATABASE_URL"]
    listed = subprocess.run(
        [sys.executable, "-m", "auditstore", *found[2].split()],
        env=environment | {"AUDITSTORE_HOME": found[1]},
        capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert "home-insurance" in listed.stdout
    assert list((folder / "archive").rglob("*.ndjson.gz"))
