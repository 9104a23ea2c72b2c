"""``auditstore export``: the daemon's process, and delivering once."""

from __future__ import annotations

import gzip
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.commands import CommandLine
from support.export_command import running_exporter
from support.fake_http_store import Answer, running_fake_store
from support.postgres import Cluster
from support.sample_events import snapshot

from auditstore import EventRepository
from auditstore.database import migrate

S3_SECRET = '{"access_key_id": "AKIAEXPORTEXPORTTEST", "secret_access_key": "very-secret-key"}'


def append(engine: sa.Engine, numbers: Sequence[int], **more: str) -> list[bytes]:
    """Append small events; return their snapshots."""
    snapshots = [snapshot(number, **more) for number in numbers]
    with engine.begin() as connection:
        EventRepository().append(connection, snapshots)
    return snapshots


def delivered(folder: Path) -> list[bytes]:
    """The lines of all files in a folder, in the order of their names."""
    files = sorted(folder.rglob("*.gz"))
    return [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def add_folder(cli: CommandLine, folder: Path, *settings: str, flow: str = "flow-1") -> int:
    """A stream of the flow to a folder; its id."""
    url = folder.as_uri()
    added = cli.json("stream", "add", "--flow", flow, "--to", url, *settings)
    return int(added["stream_id"])


# --- once -------------------------------------------------------------------------


def test_once_delivers_what_is_there(cli: CommandLine, engine: sa.Engine, tmp_path: Path) -> None:
    """Events are delivered without waiting for the delay, and counted for each stream."""
    add_folder(cli, tmp_path / "a", "--max-delay", "3600")
    sent = append(engine, range(5))
    report = cli.json("export", "once")
    assert [(each["files"], each["events"]) for each in report["streams"]] == [(1, 5)]
    assert report["streams"][0]["state"] == "delivered"
    assert not report["held_back"]
    assert delivered(tmp_path / "a") == sent


def test_once_keeps_no_stream_locked_when_it_is_cut_off(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """The server would end its transaction after 15 seconds without a word, as the daemon's."""
    add_folder(cli, tmp_path / "a")
    append(engine, range(3))
    with engine.begin() as connection:
        connection.execute(sa.text(
            "CREATE FUNCTION note_limit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO limits VALUES (current_setting('idle_in_transaction_session_timeout'));"
            " RETURN NEW; END $$"))  # fmt: skip
        connection.execute(sa.text("CREATE TABLE limits (value text)"))
        connection.execute(sa.text(
            "CREATE TRIGGER note_limit BEFORE INSERT OR UPDATE ON auditstore.files"
            " FOR EACH ROW EXECUTE FUNCTION note_limit()"))  # fmt: skip
    cli.run("export", "once")
    with engine.connect() as connection:
        sealed_and_recorded = connection.execute(sa.text("SELECT value FROM limits")).scalars()
        assert list(sealed_and_recorded) == ["15s", "15s"]


def test_once_has_nothing_to_do_the_second_time(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """A second run delivers nothing again and says so."""
    add_folder(cli, tmp_path / "a")
    append(engine, range(5))
    cli.run("export", "once")
    assert "nothing new" in cli.run("export", "once").stdout
    assert len(delivered(tmp_path / "a")) == 5


def test_once_leaves_with_1_when_a_stream_fails(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """The other streams are delivered all the same; the table tells cause and remedy."""
    add_folder(cli, tmp_path / "missing" / "a")
    add_folder(cli, tmp_path / "b")
    append(engine, range(5))
    printed = cli.run("export", "once", code=1).stdout
    assert "is not there and cannot be made" in printed
    assert f"Make {tmp_path / 'missing'}" in printed
    assert len(delivered(tmp_path / "b")) == 5


def test_once_takes_only_the_streams_that_are_named(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """With --stream the others stay as they are."""
    add_folder(cli, tmp_path / "a")
    second = add_folder(cli, tmp_path / "b")
    append(engine, range(5))
    cli.run("export", "once", "--stream", str(second))
    assert delivered(tmp_path / "a") == []
    assert len(delivered(tmp_path / "b")) == 5


def test_once_refuses_a_stream_that_does_not_run(cli: CommandLine, tmp_path: Path) -> None:
    """A disabled stream or an unknown one, named, is an error and not an empty success."""
    disabled = add_folder(cli, tmp_path / "a", "--disabled")
    assert cli.error("export", "once", "--stream", str(disabled))[0].endswith("is disabled")
    assert "no stream 99" in cli.error("export", "once", "--stream", "99")[0]


# --- run --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_delivers_and_leaves_in_order(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path, number: signal.Signals
) -> None:
    """It delivers what comes, and on a signal ends with 0, having given its leases back."""
    add_folder(cli, tmp_path / "a", "--max-delay", "0.1")
    with running_exporter(cli.environment) as exporter:
        exporter.wait_for("exporting", streams=1)
        sent = append(engine, range(3))
        exporter.wait_for("delivered", stream=1, events=3)
        assert exporter.stop(number) == 0
    exporter.wait_for("stopped", unfinished=0)
    assert delivered(tmp_path / "a") == sent
    with engine.connect() as connection:
        owners = connection.scalars(sa.text("SELECT lease_owner FROM auditstore.streams")).all()
    assert owners == [None]


def test_the_log_tells_no_lead_data_and_no_secret(
    cli: CommandLine, engine: sa.Engine, moto_server: str
) -> None:
    """What is logged of a delivery and of a refusal has neither the lead nor the key in it."""
    cli.run("credential", "add", "warehouse", "--kind", "s3", stdin=S3_SECRET)
    cli.run(
        "stream", "add", "--flow", "flow-1", "--to", "s3://no-such-bucket-here/x",
        "--endpoint-url", moto_server, "--region", "us-east-1", "--credential", "warehouse",
        "--max-delay", "0.1",
    )  # fmt: skip
    append(engine, range(3), reason="Jane Doe")
    with running_exporter(cli.environment) as exporter:
        entry = exporter.wait_for("blocked", stream=1)
        exporter.stop()
    assert entry["code"] == "NoSuchBucket"
    assert entry["timestamp"].endswith("Z")
    said = "\n".join(exporter.lines)
    for kept in (
        "Jane Doe",
        "very-secret-key",
        "AKIAEXPORT",
        cli.environment["AUDITSTORE_SECRET_KEYS"],
    ):
        assert kept not in said


def test_an_upload_that_hangs_does_not_keep_the_daemon(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """It leaves within ten seconds with 0; the next one delivers the same file, once."""
    del tmp_path
    cli.run("credential", "add", "warehouse", "--kind", "s3", stdin=S3_SECRET)
    with running_fake_store("s3") as store:
        cli.run(
            "stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket/x",
            "--endpoint-url", store.url, "--region", "us-east-1", "--credential", "warehouse",
            "--max-delay", "0.1",
        )  # fmt: skip
        store.script.extend([Answer(then="hang")] * 8)
        sent = append(engine, range(3))
        with running_exporter(cli.environment) as exporter:
            assert store.arrived.wait(60)
            began = time.monotonic()
            assert exporter.stop() == 0
            assert time.monotonic() - began < 10
        exporter.wait_for("left with uploads in hand")
        store.script.clear()
        cli.run("export", "once")
        bodies = [each.body for key, each in store.objects.items() if key.endswith(".gz")]
        assert [gzip.decompress(body).splitlines() for body in bodies] == [sent]


def test_the_daemon_waits_for_its_database(
    cli: CommandLine, restartable_cluster: Cluster, tmp_path: Path
) -> None:
    """Started while the server is away, it says so, tries again, and goes to work."""
    migrate(restartable_cluster.url())
    environment = {"AUDITSTORE_DATABASE_URL": restartable_cluster.url()}
    cli = CommandLine(environment)
    add_folder(cli, tmp_path / "a")
    restartable_cluster.stop()
    with running_exporter(environment) as exporter:
        first = exporter.wait_for("database away")
        second = exporter.wait_for("database away")
        assert second["again_in"] > first["again_in"]
        restartable_cluster.start()
        exporter.wait_for("exporting", streams=1)
        assert exporter.stop() == 0


def test_a_daemon_that_waits_can_be_stopped(unused_port: int) -> None:
    """A signal ends the waiting at once, with 0."""
    url = f"postgresql://nobody@127.0.0.1:{unused_port}/nowhere"
    with running_exporter({"AUDITSTORE_DATABASE_URL": url}) as exporter:
        exporter.wait_for("database away")
        assert exporter.stop() == 0


def test_a_database_that_refuses_is_an_error(cluster: Cluster) -> None:
    """What waiting cannot mend ends the daemon with 2, what happened and what to do."""
    for url, words in (
        (cluster.url("no_such_database"), "the database refused the login"),
        (cluster.url("template1"), "the database's schema is missing"),
    ):
        done = CommandLine({"AUDITSTORE_DATABASE_URL": url}).process("export", "run")
        assert done.returncode == 2
        error, hint = done.stderr.splitlines()[-2:]
        assert words in error
        assert hint.startswith("Try:   ")
