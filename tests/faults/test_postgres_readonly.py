"""Servers that take no writes for a while: read-only by setting, or a standby."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import make_url
from support.eventually import eventually
from support.export_command import running_exporter
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import Database
from support.postgres import Cluster
from support.stores import Place

from auditstore.database import migrate

pytestmark = pytest.mark.long


def logs(run: FaultRun) -> list[str]:
    """What each exporter has said."""
    return [each.logged() for each in run.exporters]


def says(run: FaultRun, *words: str) -> Callable[[], bool]:
    """Whether each exporter's log has all these words."""
    return lambda: all(word in said for said in logs(run) for word in words)


def came_back(run: FaultRun, cluster: Cluster, user: str) -> None:
    """Wait until each exporter has connected anew, and found what it finds."""
    began = cluster.execute("SELECT clock_timestamp()")[0][0]
    seen: set[int] = set()

    def connected() -> bool:
        seen.update(pid for (pid,) in cluster.execute(_SESSIONS, user, began))
        return len(seen) >= 2 * len(run.exporters)

    eventually(connected, within=30, what="the exporters try again")
    assert all(each.running for each in run.exporters)


_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'auditstore exporter'"
    " AND usename = %s AND backend_start > %s"
)


@pytest.fixture
def exporter_role(database: Database) -> Iterator[str]:
    """A user of the exporter's own."""
    name = f"exporter_{uuid.uuid4().hex}"
    database.cluster.execute(f"CREATE ROLE {name} LOGIN IN ROLE auditstore_exporter")
    yield name
    database.cluster.execute(f"DROP ROLE {name}")


def test_the_exporter_s_user_is_made_read_only(
    database: Database, folder_place: Place, exporter_role: str
) -> None:
    """New sessions may not write; it says so, waits, and goes on in new ones once it may again."""
    url = make_url(database.url).set(username=exporter_role)
    run = FaultRun(
        database.url, folder_place, exporters=2, limits=LARGE,
        exporter_url=url.render_as_string(hide_password=False),
    )  # fmt: skip
    alter = f"ALTER ROLE {exporter_role}"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    with run.running():
        run.progress(events=40)
        database.cluster.execute(f"{alter} SET default_transaction_read_only = on")
        database.cluster.execute(end, exporter_role)
        run.injected("exporter's user read-only")
        came_back(run, database.cluster, exporter_role)
        database.cluster.execute(f"{alter} RESET default_transaction_read_only")
        run.recovered(within=60)
        # At least the one that had been at work; the other may just have begun to start.
        assert any("waiting" in said and "going on" in said for said in logs(run))
    run.check()


def test_a_server_is_made_read_only_and_a_standby(
    restartable_cluster: Cluster, folder_place: Place
) -> None:
    """By a setting that running sessions see; then the primary becomes a standby for a while."""
    cluster = restartable_cluster
    migrate(cluster.url())
    run = FaultRun(cluster.url(), folder_place, exporters=2, limits=LARGE, without=["prepare"])
    with run.running():
        run.progress(events=40)
        cluster.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        cluster.execute("SELECT pg_reload_conf()")
        run.injected("server read-only")
        eventually(says(run, "takes no writes"), within=30, what="they say so")
        assert all(each.running for each in run.exporters)
        with cluster.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
        run.recovered(within=60)

        run.progress(events=40)
        cluster.stop()
        (cluster.data_dir / "standby.signal").touch()
        cluster.start()
        run.injected("primary became a standby")
        came_back(run, cluster, "postgres")
        eventually(says(run, "this server is a standby"), within=30, what="they say so")
        assert all(each.running for each in run.exporters)
        cluster.promote()
        run.recovered(within=60)
    run.check()


def test_started_against_a_standby(restartable_cluster: Cluster) -> None:
    """It leaves with what to do; against a server that is only read-only it waits."""
    cluster = restartable_cluster
    migrate(cluster.url())
    environment = {"AUDITSTORE_DATABASE_URL": cluster.url()}
    cluster.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    cluster.execute("SELECT pg_reload_conf()")
    with running_exporter(environment) as exporter:
        told = exporter.wait_for("database away")
        assert "takes no writes" in told["cause"]
        assert "lift default_transaction_read_only" in told["hint"]
        with cluster.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
        exporter.wait_for("exporting")
        assert exporter.stop() == 0
    standby = cluster.base_backup()
    with running_exporter({"AUDITSTORE_DATABASE_URL": standby.url()}) as exporter:
        assert exporter.end() == 2
    standby.destroy()
    said = "\n".join(exporter.lines)
    assert "this server is a standby: it does not show who is writing" in said
    assert "Point AUDITSTORE_DATABASE_URL at the primary" in said
