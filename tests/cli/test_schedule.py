"""Reconciliations on schedule as an operator meets them: settings, status, the exporter."""

from __future__ import annotations

import json
import signal
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from support.commands import CommandLine
from support.eventually import eventually
from support.export_command import running_exporter
from support.sample_events import snapshot

from auditstore import EventRepository
from auditstore.sql import schedules
from auditstore.sql.schedules import Ended, Planned


def test_expressions_are_settings(cli: CommandLine, tmp_path: Path) -> None:
    """They have defaults, are checked when they are set, and each change is recorded."""
    cli.run("stream", "add", "--flow", "f", "--to", (tmp_path / "a").as_uri(),
            "--reconcile-events", "OFF")  # fmt: skip
    shown = cli.json("stream", "show", "1")
    assert (shown["reconcile_files"], shown["reconcile_events"]) == ("0 * * * *", "off")
    said = cli.run("stream", "set", "1", "--reconcile-files", "*/5  * * * *").stdout
    assert "reconcile_files 0 * * * * -> */5 * * * *" in said
    assert "files: */5 * * * *, not planned yet" in cli.run("stream", "show", "1").stdout
    for nonsense in ("nonsense", "61 * * * *", "0 0 30 2 *", ""):
        what, hint = cli.error("stream", "set", "1", "--reconcile-files", nonsense)
        assert "--reconcile-files: " in what
        assert hint
    what, _ = cli.error("stream", "add", "--flow", "g", "--to", (tmp_path / "b").as_uri(),
                        "--reconcile-events", "often")  # fmt: skip
    assert "often" in what
    assert cli.json("stream", "show", "1")["reconcile_files"] == "*/5 * * * *"


def test_status_shows_the_last_result_and_the_next_run(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """A stream with differences is shown before those that are well, and with what to do."""
    for name in ("a", "b"):
        cli.run("stream", "add", "--flow", name, "--to", (tmp_path / name).as_uri())
    with engine.begin() as connection:
        now = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        for stream_id in (1, 2):
            schedules.plan(connection, [Planned(stream_id, "files", "0 * * * *", now)])
            schedules.claim(connection, stream_id, "files", owner="x", ttl=60)
    assert "runs for " in cli.run("stream", "show", "1").stdout
    later = now + timedelta(days=300)
    with engine.begin() as connection:
        bad = Ended("differences", 2.5, 7, {"missing-file": 3})
        good = Ended("reconciled", 2.5, 7)
        for stream_id, ended in ((1, good), (2, bad)):
            assert schedules.finish(
                connection, stream_id, "files", ended,
                owner="x", cron="0 * * * *", next_run_at=later,
            )  # fmt: skip
    shown = cli.run("status").stdout
    assert shown.index("differences") < shown.index("Reconciled: files")
    assert "(3 missing-file)" in shown
    assert "auditstore reconcile --stream 2 --level files" in shown
    told = {each["stream_id"]: each["reconciliations"] for each in cli.json("status")["streams"]}
    assert [each["result"] for each in told[1] + told[2]] == ["reconciled", "differences"]
    (one,) = cli.json("stream", "show", "2")["reconciliations"]
    assert one["differences"] == {"missing-file": 3}
    assert one["next_run_at"]
    assert "next in " in cli.run("stream", "show", "2").stdout


def test_the_exporter_reconciles_and_tells(
    cli: CommandLine, engine: sa.Engine, tmp_path: Path
) -> None:
    """A real exporter runs what is due, finds what was deleted, and starts the command."""
    cli.run("stream", "add", "--flow", "flow-1", "--to", (tmp_path / "out").as_uri(),
            "--max-delay", "0.1")  # fmt: skip
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(number) for number in range(3)])
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat > {tmp_path}/told.partial\n"
                    f"mv {tmp_path}/told.partial {tmp_path}/told\n")  # fmt: skip
    hook.chmod(0o755)
    environment = {**cli.environment, "AUDITSTORE_RECONCILE_COMMAND": str(hook)}
    with running_exporter(environment) as exporter:
        exporter.wait_for("delivered", stream=1)
        (file,) = (tmp_path / "out").rglob("*.gz")
        file.unlink()
        eventually(lambda: _make_due(engine))
        exporter.wait_for("differences", stream=1, comparison="files", counts={"missing-file": 1})
        exporter.wait_for("report kept", stream=1, comparison="files")
        eventually((tmp_path / "told").exists)
        told = json.loads((tmp_path / "told").read_text())
        assert told["findings"][0]["kind"] == "missing-file"
        assert exporter.stop(signal.SIGTERM) == 0
    (one, _) = cli.json("stream", "show", "1")["reconciliations"]
    assert (one["level"], one["result"], one["running_since"]) == ("files", "differences", None)
    (report,) = cli.json("report", "list", "--stream", "1")
    assert (report["result"], report["counts"]) == ("differences", {"missing-file": 1})
    assert cli.json("report", "list", "--flow", "flow-2") == []


def _make_due(engine: sa.Engine) -> int:
    with engine.begin() as connection:
        return connection.execute(
            sa.text("UPDATE auditstore.schedules SET next_run_at = clock_timestamp()"
                    " WHERE level = 'files'")
        ).rowcount  # fmt: skip
