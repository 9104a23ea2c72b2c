"""Starting, steering and watching the tests' exporters, each a process of its own."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import psutil

from support.commands import clean_environment
from support.eventually import eventually

_TESTS = Path(__file__).parent.parent
_LOG_TAIL = 60


class Exporter:
    """One exporter; its log goes to ``log``, over all its lives.

    ``point`` and ``count`` say where it meets ``on_point``: death, or a stop as by SIGSTOP.
    ``clock`` are seconds by which its clock is off: at once, and at each :meth:`turn_clock`.
    A ``greedy`` one works on every stream, whoever holds its lease.
    ``shell`` is what a shell does before it becomes the exporter: ``ulimit -v 400000``.
    ``constants`` are values in place of the modules' own, by full name. With ``vault`` it takes
    the streams' credentials from the database, as users do, instead of ``secret``.
    """

    def __init__(
        self,
        url: str,
        secret: Mapping[str, str] | None,
        log: Path,
        *,
        point: str | None = None,
        count: int = 1,
        on_point: Literal["SIGKILL", "SIGSTOP"] = "SIGKILL",
        lease_ttl: float = 0.6,
        longest_idle: float = 15.0,
        grace: float = 8.0,
        clock: Sequence[float] = (),
        greedy: bool = False,
        shell: str = "true",
        environment: Mapping[str, str] | None = None,
        constants: Mapping[str, float] | None = None,
        vault: bool = False,
    ) -> None:
        self.log = log
        self.starts = 0
        self._shell = shell
        self._environment = {
            **clean_environment(), **(environment or {}), "AUDITSTORE_DATABASE_URL": url,
        }  # fmt: skip
        self._task: dict[str, Any] = {
            "secret": dict(secret) if secret else None, "point": point, "count": count,
            "signal": on_point, "lease_ttl": lease_ttl, "longest_idle": longest_idle,
            "grace": grace, "clock": list(clock), "greedy": greedy,
            "constants": dict(constants or {}), "vault": vault,
        }  # fmt: skip
        # May it be found dead at the end of a test?
        self._mortal = point is not None and on_point == "SIGKILL"
        self._process: subprocess.Popen[bytes] | None = None
        self._logging: threading.Thread | None = None
        self._spoke = threading.Event()

    # --- its life -------------------------------------------------------------------

    def start(self) -> Exporter:
        """Run it; the fault that it was made for is met by its first life only."""
        assert not self.running
        task = self._task if not self.starts else self._task | {"point": None}
        self.starts += 1
        self._spoke.clear()
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'{self._shell} && exec "$0" -m support.exporter_process',
             sys.executable],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=self._environment, cwd=_TESTS,
        )  # fmt: skip
        self._process = process
        self._logging = threading.Thread(target=self._keep_log, args=(process,), daemon=True)
        self._logging.start()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it may have had too little memory to come that far
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
        return self

    @property
    def running(self) -> bool:
        """Whether its process is there, stopped or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def fell(self) -> bool:
        """Whether it ended without having been told to."""
        return self._process is not None and not self.running and not self._mortal

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._mortal = True
        self._signal(signal.SIGKILL)
        self.ended()

    def began(self, *, within: float = 60.0) -> None:
        """Wait until it is past its imports: it has said something, or is dead."""
        assert self._spoke.wait(within), "the exporter says nothing"

    def stop(self, *, within: float = 15.0) -> int:
        """SIGTERM, once it has begun; the exit code, which comes within so many seconds."""
        self._mortal = True
        self.began()
        self._signal(signal.SIGTERM)
        return self.ended(within=within)

    def ended(self, *, within: float = 30.0) -> int:
        """Wait for its end, however it comes; the exit code, negative for a signal."""
        assert self._process is not None
        code = self._process.wait(within)
        self._let_go()
        return code

    def restart(self) -> Exporter:
        """Kill it if it runs, and start it again."""
        if self.running:
            self.kill()
        self._mortal = False
        return self.start()

    def pause(self) -> None:
        """SIGSTOP; it is stopped when this returns."""
        self._signal(signal.SIGSTOP)
        self.paused()

    def paused(self, *, within: float = 30.0) -> None:
        """Wait until it is stopped, as by its fuse."""
        eventually(lambda: self.is_paused or not self.running, within=within, what="it is stopped")
        assert self.running, "the exporter ended instead"

    @property
    def is_paused(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        with suppress(psutil.NoSuchProcess):
            return self.running and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        return False

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def limit_memory(self, spare: int) -> None:
        """Let it have so many bytes more than it has, as `ulimit -v` counts them; it may die."""
        self._mortal = True
        size = psutil.Process(self.pid).memory_info().vms
        resource.prlimit(self.pid, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))

    def lift_memory_limit(self) -> None:
        """Let it have what it wants again; start it if it is dead."""
        self._mortal = False
        if self.running:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(self.pid, resource.RLIMIT_AS, unlimited)
        else:
            self.start()

    def turn_clock(self) -> None:
        """Take the next step of ``clock``."""
        self._signal(signal.SIGUSR1)

    def close(self) -> None:
        """See that nothing of it is left."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        """Close what leads to a process that has ended, and read its log to the end."""
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._logging is not None:
            self._logging.join()

    # --- looking at it --------------------------------------------------------------

    @property
    def peak_memory(self) -> int:
        """The most bytes that were resident in its present life."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found, "the process is gone, or this is not Linux"
        return int(found[1]) * 1024

    def logged(self) -> str:
        """All of its log."""
        return self.log.read_text() if self.log.exists() else ""

    def says(self, words: str, *, times: int = 1, within: float = 30.0) -> None:
        """Wait until these words stand in its log so often."""
        eventually(
            lambda: self.logged().count(words) >= times, within=within,
            what=f"{words!r} {times} times in the log",
        )  # fmt: skip

    def tail(self) -> str:
        """The end of its log, for a failed test to show."""
        return "\n".join(self.logged().splitlines()[-_LOG_TAIL:])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _keep_log(self, process: subprocess.Popen[bytes]) -> None:
        # Through us, so that what limits the exporter's own files does not limit its log.
        assert process.stderr is not None
        with process.stderr as said, self.log.open("ab") as log:
            log.write(f"--- start {self.starts} at {time.strftime('%X')}\n".encode())
            for line in said:
                log.write(line)
                log.flush()
                self._spoke.set()
            self._spoke.set()  # that was all it had to say
