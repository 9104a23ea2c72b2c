"""The tests' own PostgreSQL servers do what the other tests trust them to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from support.fixtures_postgres import NEWEST, VERSIONS, Database, drop_database
from support.postgres import Cluster

OWNER_OF_CLUSTER = """
import sys
from pathlib import Path
from support.postgres import Cluster

cluster = Cluster.create(Path(sys.argv[1]))
print((cluster.data_dir / "postmaster.pid").read_text().split()[0], cluster.home, flush=True)
sys.stdin.read()
"""


def test_each_version_runs_with_the_settings_of_the_tests(cluster_any: Cluster) -> None:
    """Prepared transactions, many connections, streaming: on, on every version found."""
    for name, expected in [
        ("max_prepared_transactions", "20"),
        ("max_connections", "200"),
        ("wal_level", "replica"),
        ("server_version_num", f"{cluster_any.version}"),
    ]:
        ((shown,),) = cluster_any.execute("SELECT current_setting(%s)", name)
        assert shown.startswith(expected)


def test_there_are_two_versions() -> None:
    """The suite never runs on the newest version alone."""
    assert len(VERSIONS) >= 2


def test_each_test_has_a_database_of_its_own(database: Database, engine: sa.Engine) -> None:
    """The schema is there, migrated; the name is not that of the template."""
    with engine.connect() as connection:
        name = connection.execute(sa.text("SELECT current_database()")).scalar_one()
        tables = connection.execute(
            sa.text("SELECT count(*) FROM pg_tables WHERE schemaname !~ '^(pg_|information_)'")
        ).scalar_one()
    assert name == database.name
    assert tables > 0


def test_the_database_of_each_version(database_any: Database, cluster_any: Cluster) -> None:
    """database_any lies on the server that cluster_any names."""
    assert database_any.cluster is cluster_any


def test_a_database_is_dropped_with_what_was_left_in_it(cluster: Cluster) -> None:
    """Open sessions and prepared transactions do not keep a database from being dropped."""
    cluster.execute("CREATE DATABASE littered")
    cluster.execute("CREATE TABLE here ()", database="littered")
    with cluster.connect("littered") as left:
        left.execute("BEGIN")
        left.execute("INSERT INTO here DEFAULT VALUES")
        left.execute("PREPARE TRANSACTION 'it''s left'")
        drop_database(cluster, "littered")
    assert cluster.execute("SELECT 1 FROM pg_database WHERE datname = 'littered'") == []


def test_a_crash_keeps_what_was_committed(restartable_cluster: Cluster) -> None:
    """After an immediate stop the same URL answers again, from the recovered data."""
    restartable_cluster.execute("CREATE TABLE kept AS SELECT 7 AS number")
    restartable_cluster.restart("immediate")
    assert restartable_cluster.execute("SELECT number FROM kept") == [(7,)]


def test_a_cold_copy_is_the_server_as_it_was(restartable_cluster: Cluster) -> None:
    """A copy runs beside its original, with the same identity and the older data."""
    identity = "SELECT system_identifier FROM pg_control_system()"
    restartable_cluster.execute("CREATE TABLE number AS SELECT 1 AS number")
    with pytest.raises(RuntimeError, match="stop the server"):
        restartable_cluster.copy_to()
    restartable_cluster.stop()
    copy = restartable_cluster.copy_to()
    try:
        restartable_cluster.start()
        restartable_cluster.execute("UPDATE number SET number = 2")
        copy.start()
        assert copy.execute("SELECT number FROM number") == [(1,)]
        assert copy.execute(identity) == restartable_cluster.execute(identity)
    finally:
        copy.destroy()


def test_a_standby_follows_and_can_be_promoted(restartable_cluster: Cluster) -> None:
    """A base backup streams from its primary, read-only, and writes once promoted."""
    standby = restartable_cluster.base_backup()
    try:
        assert standby.execute("SELECT pg_is_in_recovery()") == [(True,)]
        standby.promote()
        standby.execute("CREATE TABLE written ()")
    finally:
        standby.destroy()


def test_it_listens_on_the_socket_and_on_loopback(cluster: Cluster) -> None:
    """Both forms of URL lead to the same server."""
    for tcp in (False, True):
        engine = sa.create_engine(cluster.url(tcp=tcp))
        with engine.connect() as connection:
            port = connection.execute(sa.text("SHOW port")).scalar_one()
        engine.dispose()
        assert port == str(cluster.port)


def test_the_server_dies_with_a_killed_test_run() -> None:
    """SIGKILL of the process that made a server takes the server and its folder along."""
    run = subprocess.Popen(
        [sys.executable, "-c", OWNER_OF_CLUSTER, VERSIONS[NEWEST]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"HOME": "/", "PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout is not None
    pid, home = run.stdout.readline().split()
    server = psutil.Process(int(pid))
    watchdogs = [each for each in psutil.process_iter() if _is_watchdog(each, home)]
    assert len(watchdogs) == 1
    run.send_signal(signal.SIGKILL)
    run.communicate()
    psutil.wait_procs([*watchdogs, server], timeout=60)
    assert not Path(home).exists()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def _is_watchdog(process: psutil.Process, home: str) -> bool:
    try:
        return "watchdog" in (line := process.cmdline()) and home in line
    except psutil.Error:
        return False
