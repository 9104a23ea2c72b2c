"""The most memory that a program and its children ever had, as Linux counts it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def peak_of(command: Sequence[str], environment: Mapping[str, str], *, every: float = 0.05) -> int:
    """Run a command to its end, which must be a good one; its peak in bytes.

    It is the sum over all its processes of what is resident, sampled; pages that they share count
    once for each.
    """
    peak = 0
    with subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            peak = max(peak, sum(resident(pid) for pid in _tree(process.pid)))
            time.sleep(every)
        if process.returncode != 0:
            said = process.stderr.read() if process.stderr else ""
            raise SystemExit(f"{command} left with {process.returncode}: {said}")
    return peak


def _tree(pid: int) -> list[int]:
    found = [pid]
    for number in found:
        try:
            for task in Path(f"/proc/{number}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it ended meanwhile
    return found


def resident(pid: int) -> int:
    """Bytes that one process has in memory; 0 if it is not there."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
