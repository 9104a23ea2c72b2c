"""The real exporter, ``auditstore export run``, as a process beside the demo."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from auditstore.demo.processes import auditstore_command
from auditstore.errors import AuditStoreError

# Beyond the ten seconds in which it promises to leave.
_STOP_TIMEOUT_S: Final = 15.0


class Exporter:
    """A running exporter; its log goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            raise AuditStoreError(
                f"the exporter ended with {self._process.returncode}: {self._last_words()}",
                hint="This is a defect of auditstore; please report it.",
            )

    def stop(self) -> int:
        """SIGTERM, and wait until it has left; its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"


@contextmanager
def exporter(log: Path, environment: Mapping[str, str]) -> Iterator[Exporter]:
    """``auditstore export run`` with these settings; gone at the end, in order if all went well."""
    with log.open("wb") as out:
        running = Exporter(
            subprocess.Popen(  # noqa: S603 - our own command
                auditstore_command("export", "run", "--log-format", "json"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(os.environ) | dict(environment),
                # Ctrl-C is for the demo, which then stops it.
                start_new_session=True,
            ),
            log,
        )
    try:
        yield running
    except BaseException:
        running.stop()
        raise
    if running.stop() != 0:
        running.check()
