"""PostgreSQL servers of the tests' own: any version, any setting, crashed at will."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg

from auditstore.errors import DatabaseRefused
from auditstore.postgres_programs import (
    PostgresPrograms,
    make_reachable,
    make_runnable,
    packaged_programs,
    server_owner,
)

#: What the tests' servers run with unless told otherwise.
SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "wal_level": "replica",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# Stops the server and removes its folder once our end of the pipe is closed, be it by
# destroy() or because this process died, however it died.
WATCHDOG = """
trap '' INT HUP TERM
read -r _
"$1/pg_ctl" stop -D "$2/data" -m immediate
rm -rf "$2"
"""


def installed_versions() -> dict[int, Path]:
    """Folders of programs by major version: the embedded one and those of the system.

    Where the system has none, an older one that the embedded package carries too, so that
    there are always two.
    """
    packaged = packaged_programs()
    newest = max(packaged)
    versions = {newest: packaged[newest]}
    candidates = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        if all((folder / each).is_file() for each in ("initdb", "pg_ctl", "postgres")):
            versions.setdefault(_major(folder), folder)
    if len(versions) == 1:
        versions |= {major: folder for major, folder in packaged.items() if major != newest}
    return versions


class Cluster:
    """One server with its data, on a socket and on 127.0.0.1, gone with this process.

    ``url`` and ``execute`` connect as the superuser ``postgres``.
    """

    def __init__(self, bin_dir: Path, home: Path | None, settings: Mapping[str, str]) -> None:
        self.bin_dir = bin_dir
        self.version = _major(bin_dir)
        self.home = home or Path(tempfile.mkdtemp(prefix="auditstore-pg-", dir=_short_temp()))
        self.data_dir = self.home / "data"
        self.log = self.home / "server.log"
        self.settings = {**SETTINGS, **settings}
        self.port = _free_port()
        make_runnable(bin_dir)
        owner = server_owner(self.data_dir)
        self._programs = PostgresPrograms(bin_dir, self.version, owner)
        self.home.mkdir(parents=True, exist_ok=True)
        self._programs.give(self.home)
        self.home.chmod(0o755)
        make_reachable(self.data_dir)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "watchdog", bin_dir, self.home],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=[] if owner else None,
        )

    @classmethod
    def create(
        cls, bin_dir: Path, *, settings: Mapping[str, str] | None = None, home: Path | None = None
    ) -> Cluster:
        """A new, empty, running server; ``settings`` go over :data:`SETTINGS`."""
        cluster = cls(bin_dir, home, settings or {})
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        cluster._programs.run("initdb", "-D", cluster.data_dir, "--no-sync", *options)
        with (cluster.data_dir / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude 'tests.conf'\n")
        cluster.start()
        return cluster

    # --- running it ---------------------------------------------------------------

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        for attempts_left in (4, 3, 2, 1, 0):
            self._configure()
            starting = ("start", "-D", self.data_dir, "-l", self.log, "-w", "-t", "120")
            try:
                self._programs.run("pg_ctl", *starting)
            except DatabaseRefused as error:
                said = self.log.read_text() if self.log.exists() else ""
                if "Address already in use" not in said or not attempts_left:
                    raise DatabaseRefused(f"{error.message}\n{said}", hint=error.hint) from error
                self.port = _free_port()
            else:
                return

    def stop(self, mode: Literal["fast", "immediate", "smart"] = "fast") -> None:
        """Stop the server; ``immediate`` is a crash, recovered from at the next start."""
        self._programs.run("pg_ctl", "stop", "-D", self.data_dir, "-m", mode, "-w", "-t", "120")

    def restart(self, mode: Literal["fast", "immediate", "smart"] = "fast") -> None:
        """Stop and start; the port stays the same."""
        self.stop(mode)
        self.start()

    def promote(self) -> None:
        """Make a standby a primary, on a new timeline."""
        self._programs.run("pg_ctl", "promote", "-D", self.data_dir, "-w", "-t", "120")

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._programs.attempt("pg_ctl", "status", "-D", self.data_dir).returncode == 0

    def destroy(self) -> None:
        """Stop the server for good, without ceremony, and remove its folder."""
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait(60)
        # In a folder that is not the server user's own, its empty folder is left over.
        shutil.rmtree(self.home, ignore_errors=True)

    # --- copies of it -------------------------------------------------------------

    def copy_to(self, home: Path | None = None) -> Cluster:
        """A cold copy of this stopped server, as a backup restored elsewhere; not started."""
        if self.running:
            raise RuntimeError("stop the server before it is copied")
        copy = Cluster(self.bin_dir, home, self.settings)
        subprocess.run(["cp", "-a", self.data_dir, copy.data_dir], check=True)
        return copy

    def base_backup(self, home: Path | None = None) -> Cluster:
        """A standby that streams from this running server, started and read-only."""
        standby = Cluster(self.bin_dir, home, self.settings)
        source = ("-h", self.home, "-p", str(self.port), "-U", "postgres")
        options = ("-R", "-X", "stream", "-c", "fast", "--no-sync", "-D", standby.data_dir)
        self._programs.run("pg_basebackup", *source, *options)
        standby.start()
        return standby

    # --- talking to it ------------------------------------------------------------

    def url(self, database: str = "postgres", *, user: str = "postgres", tcp: bool = False) -> str:
        """The address of a database in SQLAlchemy's form, over the socket or over TCP."""
        if tcp:
            return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"
        host = quote(str(self.home), safe="")
        return f"postgresql+psycopg://{user}@/{database}?host={host}&port={self.port}"

    def connect(self, database: str = "postgres", *, user: str = "postgres") -> psycopg.Connection:
        """A plain connection in autocommit, for what a test does beside the package."""
        return psycopg.connect(
            host=str(self.home), port=self.port, dbname=database, user=user, autocommit=True
        )

    def execute(
        self, statement: str, *parameters: object, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement of our own making and return its rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def _configure(self) -> None:
        settings = {
            **self.settings,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.home),
        }
        lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        (self.data_dir / "tests.conf").write_text(lines)


def _major(folder: Path) -> int:
    said = subprocess.run(
        [folder / "postgres", "--version"], check=True, capture_output=True, text=True
    )
    # "postgres (PostgreSQL) 18.4", with the distribution's own words after it.
    return int(said.stdout.split()[2].partition(".")[0])


def _short_temp() -> Path:
    """The temporary folder, unless its name leaves no room for a socket's."""
    folder = Path(tempfile.gettempdir())
    return folder if len(str(folder)) < 60 else Path("/tmp")  # noqa: S108 - mkdtemp in it


def _free_port() -> int:
    """A port that nobody listens on, below those that systems hand to outgoing connections.

    So a restarted server finds its port free.
    """
    while True:
        port = 20000 + secrets.randbelow(10000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
