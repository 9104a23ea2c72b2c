"""The PostgreSQL that pip brings, run in a folder for as long as somebody uses it.

Several processes may use one folder at once: the first starts the server, the others join
it, the last to leave stops it. Who uses it is told by locks that the kernel drops with
their process, so a process that is killed neither keeps the server alive for ever nor
hinders the next: that one joins the server left behind, and stops it when it leaves.

In the folder: ``data/`` (PostgreSQL's own, closed to other users, the socket in it),
``server.log``, and two empty lock files. The server listens on no network address.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from auditstore.errors import ConfigurationError, DatabaseRefused
from auditstore.postgres_programs import (
    PROGRAM_TIMEOUT,
    PostgresPrograms,
    make_reachable,
    make_runnable,
    packaged_programs,
    server_owner,
)

#: Only a part of the socket's name: the server listens on no port.
PORT = 5432

#: ``sun_path`` holds 104 bytes on macOS and 108 on Linux, the final NUL included.
SOCKET_PATH_BYTES = 103


def start_embedded(folder: Path, *, keep_running: bool = False) -> EmbeddedServer:
    """Start the server in ``folder``, or join the one that runs there, ready for connections.

    The folder is made if it is not there. With ``keep_running`` the server stays when this
    user leaves, until another user, without it, is the last to leave.
    """
    return EmbeddedServer(folder, keep_running=keep_running)


class EmbeddedServer:
    """A user of the embedded server, from creation until :meth:`stop` or the process's end."""

    def __init__(self, folder: Path, *, keep_running: bool = False) -> None:
        self.folder = folder.expanduser().resolve()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self._keep_running = keep_running
        self._process = os.getpid()
        self._refuse_unusable_name()
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._programs = self._find_programs()
            with self._alone():
                self._use = self._open_lock("in-use")
                try:
                    fcntl.flock(self._use, fcntl.LOCK_SH)
                    self._ensure_data()
                    self._socket_folder = self._ensure_running()
                except BaseException:
                    os.close(self._use)
                    raise
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self.folder} cannot hold the embedded PostgreSQL: {error}",
                hint="Choose a folder that this user may write to.",
            ) from error
        self._stopped = False
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        """Where the server is, in SQLAlchemy's form, as its superuser ``postgres``."""
        host = quote(str(self._socket_folder), safe="")
        return f"postgresql+psycopg://postgres@/postgres?host={host}&port={PORT}"

    def stop(self) -> None:
        """Leave; the last to leave stops the server, and whoever is connected to it then.

        A second call does nothing, and neither does a call in a forked child.
        """
        if self._stopped or os.getpid() != self._process:
            return
        self._stopped = True
        atexit.unregister(self.stop)
        with self._alone():
            # Closed, not unlocked: a forked child that uses the server keeps its share.
            os.close(self._use)
            if self._keep_running or self._others_use_it():
                return
            if self._answer() != "nothing":
                stopping = ("stop", "-D", self.data, "-m", "fast", "-w", "-t", _seconds())
                self._programs.run("pg_ctl", *stopping)
            if self._socket_folder != self.data:
                shutil.rmtree(self._socket_folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- who uses it --------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else starts or stops the server meanwhile."""
        lock = self._open_lock("starting-or-stopping")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _open_lock(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDONLY | os.O_CREAT, 0o644)

    def _others_use_it(self) -> bool:
        use = self._open_lock("in-use")
        try:
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(use)
        return False

    # --- the data folder ----------------------------------------------------------

    def _refuse_unusable_name(self) -> None:
        if re.search(r'["$`\\\n]', str(self.folder)):
            raise ConfigurationError(
                f"the folder {self.folder} cannot hold the embedded PostgreSQL: "
                'its name has one of " $ ` \\ in it, which pg_ctl would hand to a shell',
                hint="Choose a folder without these characters in its name.",
            )

    def _find_programs(self) -> PostgresPrograms:
        """The version that made the data, or the newest for a new folder."""
        packaged = packaged_programs()
        make_reachable(self.data)
        version = self.data / "PG_VERSION"
        major = int(version.read_text()) if version.exists() else max(packaged)
        if major not in packaged:
            known = ", ".join(str(each) for each in sorted(packaged))
            raise ConfigurationError(
                f"{self.data} was made by PostgreSQL {major}; installed: {known}",
                hint="Install the auditstore[embedded] that made it, or use another folder.",
            )
        make_runnable(packaged[major])
        return PostgresPrograms(packaged[major], major, server_owner(self.data))

    def _ensure_data(self) -> None:
        if self.data.exists():
            # Made by a process that was before us at the lock, perhaps.
            self._programs = replace(self._programs, owner=server_owner(self.data))
            return
        for unfinished in self.folder.glob("initialising-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        # Renamed when whole, so that a killed initdb leaves nothing that looks like data.
        new = Path(tempfile.mkdtemp(prefix="initialising-", dir=self.folder))
        self._programs.give(new)
        # The same order and case rules on every machine, whatever its own settings.
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        account = ("--username=postgres", "--auth=trust", "--encoding=UTF8")
        zone = ("--set=timezone=UTC", "--set=log_timezone=UTC")
        self._programs.run("initdb", "-D", new, *account, *locale, *zone)
        new.rename(self.data)

    # --- the server ---------------------------------------------------------------

    def _ensure_running(self) -> Path:
        """Start the server unless it runs; returns the folder that its socket is in."""
        deadline = time.monotonic() + PROGRAM_TIMEOUT
        while (answer := self._answer()) != "ready":
            if answer == "nothing":
                self._start()
            elif time.monotonic() > deadline:
                raise DatabaseRefused(
                    f"the embedded PostgreSQL in {self.folder} does not accept connections",
                    hint=f"Its log tells why: {self.log}",
                )
            else:
                # Starting, recovering or stopping, left so by a process that was killed.
                time.sleep(0.05)
        found = self._listening_at()
        if found is None:
            raise DatabaseRefused(
                f"the embedded PostgreSQL in {self.folder} stopped as soon as it had started",
                hint=f"Its log tells why: {self.log}",
            )
        return found

    def _start(self) -> None:
        self.log.touch(mode=0o600)
        self._programs.give(self.log)
        socket_folder = self._choose_socket_folder()
        directories = '"' + str(socket_folder) + '"'  # a list, so commas need the quotes
        settings = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": directories,
            "unix_socket_permissions": "0700",
        }
        options = shlex.join(f"--{name}={value}" for name, value in settings.items())
        starting = ("start", "-D", self.data, "-l", self.log, "-w", "-t", _seconds())
        try:
            self._programs.run("pg_ctl", *starting, "-o", options)
        except DatabaseRefused as error:
            # A start that a killed process began may have come first.
            if self._answer() != "nothing":
                return
            raise DatabaseRefused(
                f"the embedded PostgreSQL in {self.folder} did not start: {self._last_words()}",
                hint=f"Its log tells more: {self.log}",
            ) from error

    def _choose_socket_folder(self) -> Path:
        """The data folder, or one in the temporary folder where that name is unusable.

        Too long for a socket, or with the comma or colon that would split it in a URL.
        """
        if _usable_for_socket(self.data):
            return self.data
        for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - mkdtemp in it
            if _usable_for_socket(parent / "auditstore-12345678"):
                short = Path(tempfile.mkdtemp(prefix="auditstore-", dir=parent))
                make_reachable(short)
                self._programs.give(short)
                return short
        raise ConfigurationError(
            "no folder is near enough the root of the file system for a socket",
            hint="Set TMPDIR to a folder with a short name.",
        )

    def _answer(self) -> str:
        """What the server says now: ``ready``, ``busy`` (starting, stopping) or ``nothing``."""
        if (folder := self._listening_at()) is None:
            return "nothing"
        asked = self._programs.attempt("pg_isready", "-h", folder, "-p", str(PORT), "-t", "10")
        return {0: "ready", 1: "busy"}.get(asked.returncode, "nothing")

    def _listening_at(self) -> Path | None:
        """The folder of the socket, from the file that a running server keeps."""
        with suppress(FileNotFoundError, IndexError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return Path(lines[4]) if lines[4] else None
        return None

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return " / ".join(lines[-5:]) or "it logged nothing"


def _usable_for_socket(folder: Path) -> bool:
    name = os.fsencode(folder / f".s.PGSQL.{PORT}")
    return len(name) <= SOCKET_PATH_BYTES and not set(b",:") & set(name)


def _seconds() -> str:
    return str(int(PROGRAM_TIMEOUT))
