"""``auditstore export run`` in a process of its own, followed by its log."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from support.commands import clean_environment

_TIMEOUT_S = 60


class ExporterProcess:
    """A running exporter that logs JSON; ``lines`` are all that it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._entries: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """The next log entry of this event with these fields."""
        while True:
            entry = self._entries.get(timeout=_TIMEOUT_S)
            assert entry is not None, "\n".join(self.lines)
            if entry["event"] == event and fields.items() <= entry.items():
                return entry

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait for the end and read the log to its end; the exit code."""
        code = self.process.wait(_TIMEOUT_S)
        self._thread.join()
        return code

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line.rstrip("\n"))
            if line.startswith("{"):
                self._entries.put(orjson.loads(line))
        self._entries.put(None)


@contextmanager
def running_exporter(environment: Mapping[str, str], *arguments: str) -> Iterator[ExporterProcess]:
    """The exporter with these settings; killed at the end if it still runs."""
    command = ["export", "run", "--log-format", "json", *arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "auditstore", *command],
        env=clean_environment() | dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        exporter = ExporterProcess(process)
        try:
            yield exporter
        finally:
            process.kill()
            exporter.end()
