"""The demo's servers and commands: processes of its own that do not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from auditstore.errors import AuditStoreError

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 5.0
# What a process needs of this machine. Everything else could lead it to somebody's account,
# bucket, database or proxy.
_KEPT: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONWARNINGS",
    "TERM", "COLUMNS", "NO_COLOR", "COLORTERM", "XDG_CACHE_HOME",
)  # fmt: skip
_AWS: Final = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def isolate() -> None:
    """Take out of this process's environment what could lead it anywhere but to the demo."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(kept | _AWS)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait until this is done: what it starts must be known before it can be stopped."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def auditstore_command(*arguments: str) -> list[str]:
    """The command ``auditstore`` of this very installation."""
    # -P: a folder named auditstore that we happen to stand in is not it.
    return [sys.executable, "-P", "-m", "auditstore", *arguments]


@contextmanager
def server(
    command: Sequence[str | Path], *, says: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a server that leaves when its standard input closes: with us, however we end.

    Yields what its first line that holds ``says`` has after it.
    """
    process = subprocess.Popen(  # noqa: S603 - the demo's own commands
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ) | dict(environment or {}),
        # Ctrl-C is for us, who then stop the servers in order.
        start_new_session=True,
        text=True,
    )
    output = _Output(process)
    try:
        yield output.wait_for(says, name=Path(str(command[0])).name)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.close()


class _Output:
    """Reads what a server says to its end, since a full pipe would stop it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._says = ""
        self._lines: list[str] = []
        self._found: str | None = None
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def wait_for(self, says: str, *, name: str) -> str:
        self._says = says
        self._thread.start()
        self._settled.wait(_START_TIMEOUT_S)
        if self._found is None:
            last = " / ".join(line.strip() for line in self._lines[-5:])
            raise AuditStoreError(
                f"{name} did not start: {last or 'it said nothing'}",
                hint="Run it by hand to see why.",
            )
        return self._found

    def close(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if self._found is None:
                self._lines.append(line)
                if self._says in line:
                    self._found = line.partition(self._says)[2].strip()
                    self._settled.set()
        self._settled.set()
