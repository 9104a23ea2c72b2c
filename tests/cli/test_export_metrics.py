"""``auditstore export run --metrics-listen``: the process as Prometheus and containers see it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
import yaml
from support.commands import CommandLine
from support.eventually import eventually
from support.export_command import ExporterProcess, running_exporter
from support.fake_http_store import Answer, running_fake_store
from support.postgres import Cluster
from support.sample_events import snapshot
from support.watched import Port

from auditstore import EventRepository
from auditstore.database import migrate

ROOT = Path(__file__).parent.parent.parent
LISTEN = ("--metrics-listen", "127.0.0.1:0")
S3_SECRET = '{"access_key_id": "AKIAEXPORTEXPORTTEST", "secret_access_key": "very-secret-key"}'


def port_of(exporter: ExporterProcess) -> Port:
    """Where it says that it listens."""
    return Port(exporter.wait_for("listening")["address"])


def append(engine: sa.Engine, numbers: Sequence[int]) -> None:
    """Commit small events of flow-1."""
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(number) for number in numbers])


def test_the_port_is_there_when_it_is_asked_for(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """With the option or the setting; counted, ready, and gone with the process."""
    url = (tmp_path / "a").as_uri()
    cli.run("stream", "add", "--flow", "flow-1", "--to", url, "--max-delay", "0.1")
    environment = {**cli.environment, "AUDITSTORE_METRICS_LISTEN": "127.0.0.1:0"}
    with running_exporter(environment) as exporter:
        port = port_of(exporter)
        exporter.wait_for("exporting", streams=1)
        append(engine, range(3))
        exporter.wait_for("delivered", stream=1, events=3)
        eventually(lambda: port.total("delivered_events_total", flow="flow-1") == 3)
        assert port.reasons() == []
        assert port.total("leased_streams") == 1
        assert exporter.stop() == 0


def test_a_file_that_a_killed_exporter_left_is_counted_once(
    cli: CommandLine, engine: sa.Engine
) -> None:
    """Killed after the store took it and before it was recorded: who records it counts it."""
    cli.run("credential", "add", "warehouse", "--kind", "s3", stdin=S3_SECRET)
    with running_fake_store("s3") as store:
        cli.run(
            "stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket/x",
            "--endpoint-url", store.url, "--region", "us-east-1", "--credential", "warehouse",
            "--max-delay", "0.1",
        )  # fmt: skip
        with running_exporter(cli.environment, *LISTEN) as killed:
            port = port_of(killed)
            # The first file goes through, with what the exporter asks of a server at first.
            append(engine, range(3))
            killed.wait_for("delivered", stream=1, sequence=1)
            store.script.extend([Answer(then="hang", store=True)] * 8)
            append(engine, range(3, 8))
            eventually(lambda: len([key for key in store.objects if key.endswith(".gz")]) == 2)
            eventually(lambda: port.total("delivered_files_total") == 1)
            assert port.total("sealed_files_total") == 2
            killed.stop(signal.SIGKILL)
        store.script.clear()
        with engine.begin() as connection:
            # The dead one's lease would run for fifteen seconds more.
            connection.execute(sa.text("UPDATE auditstore.streams SET lease_until = NULL"))
        with running_exporter(cli.environment, *LISTEN) as second:
            port = port_of(second)
            second.wait_for("delivered", stream=1, sequence=2)
            eventually(lambda: port.total("delivered_files_total") == 1)
            assert port.total("sealed_files_total") == 0
            assert port.total("delivered_events_total") == 5
            second.stop()


def test_a_taken_port_ends_it_with_what_to_do(cli: CommandLine) -> None:
    """Exit code 2 and two lines, before anything is exported."""
    with running_exporter(cli.environment, *LISTEN) as exporter:
        taken = port_of(exporter).address
        done = cli.process("export", "run", "--metrics-listen", taken)
        assert done.returncode == 2
        error, hint = done.stderr.splitlines()[-2:]
        assert error == f"Error: cannot listen on {taken}: Address already in use"
        assert "--metrics-listen" in hint
    assert "no address to listen on" in cli.error("export", "run", "--metrics-listen", "9464")[0]


def test_while_it_waits_for_its_database_it_is_alive_and_not_ready(
    restartable_cluster: Cluster,
) -> None:
    """The port is there first, so that waiting can be seen; then it becomes ready."""
    migrate(restartable_cluster.url())
    restartable_cluster.stop()
    environment = {"AUDITSTORE_DATABASE_URL": restartable_cluster.url()}
    with running_exporter(environment, *LISTEN) as exporter:
        port = port_of(exporter)
        exporter.wait_for("database away")
        assert port.reasons() == ["starting", "database"]
        assert port.alive()
        restartable_cluster.start()
        exporter.wait_for("exporting")
        eventually(lambda: port.reasons() == [])
        exporter.stop()


def test_the_containers_health_checks_tell_well_from_ill(cli: CommandLine) -> None:
    """The programs of Dockerfile and compose file, run against an exporter and against none."""
    with running_exporter(cli.environment, *LISTEN) as exporter:
        address = port_of(exporter).address
        exporter.wait_for("exporting")
        for check in _health_checks():
            assert _run(check, address) == 0, check
        exporter.stop()
    for check in _health_checks():
        assert _run(check, address) != 0, check


def _health_checks() -> list[list[str]]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    kind, *service = compose["services"]["exporter"]["healthcheck"]["test"]
    assert kind == "CMD"
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert found is not None
    return [service, json.loads(found[1])]


def _run(check: list[str], address: str) -> int:
    python, *arguments = (word.replace("127.0.0.1:9464", address) for word in check)
    assert python == "python"
    assert any(address in word for word in arguments)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return done.returncode
