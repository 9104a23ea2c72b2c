"""Servers of the tests: a clean environment, their own group, gone with the test run.

Each server watches its standard input and leaves when it closes, so that none outlives
the test process even if that is killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_CERTIFICATES = ("CERT", "SSL", "CA_BUNDLE", "_CA_")
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 10


def clean_environment() -> dict[str, str]:
    """Only what a server or an installer needs: no cloud credentials, no profiles."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    certificates = {
        name: value
        for name, value in os.environ.items()
        if any(word in name.upper() for word in _CERTIFICATES)
    }
    return {**certificates, **kept}


@contextmanager
def server(command: Sequence[str | Path], *, says: str) -> Iterator[str]:
    """Run ``command``; yields what its first line that holds ``says`` has after it."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=clean_environment(),
        # Ctrl-C is for the test run, which then stops its servers in order.
        start_new_session=True,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: list[str] = []
    found: list[str] = []
    settled = threading.Event()

    def watch(output: Iterator[str]) -> None:
        for line in output:  # to the end: a full pipe would stop the server
            if not found:
                lines.append(line)
                if says in line:
                    found.append(line.partition(says)[2].strip())
                    settled.set()
        settled.set()

    watcher = threading.Thread(target=watch, args=(process.stdout,), daemon=True)
    watcher.start()
    try:
        settled.wait(_START_TIMEOUT_S)
        if not found:
            raise RuntimeError(f"{command[0]} did not start:\n{''.join(lines[-50:])}")
        yield found[0]
    finally:
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        watcher.join()
        process.stdout.close()


@contextmanager
def python_server(code: str, *, says: str) -> Iterator[str]:
    """As :func:`server`, for a program of this Python."""
    with server([sys.executable, "-c", code], says=says) as answer:
        yield answer
