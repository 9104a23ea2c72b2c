"""Reports that are kept: told again in every form, verified, and never changed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from sqlalchemy.exc import DBAPIError
from support.ledger_builder import Scene
from support.stores import Place
from support.terminal import on_terminal

from auditstore.cli import main

Run = Callable[..., Result]


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A stream with three files in a folder: the second gone, an event of the first altered."""
    built = Scene(engine, folder_place)
    stream = built.stream()
    built.append(10)
    first, second, _ = built.deliver(stream)
    lines = built.lines(first)
    fields = json.loads(lines[0])
    fields["vars"]["lead"]["email"] = "someone@example.com"
    built.rewrite(first, [json.dumps(fields).encode(), *lines[1:]])
    built.vandal.delete(second.sealed.object_key)
    built.vandal.write("stray.json", b"{}")
    return built


@pytest.fixture
def run(database_url: str) -> Run:
    """Runs ``auditstore`` on the scene's database."""

    def run(*arguments: str) -> Result:
        environment = {"AUDITSTORE_DATABASE_URL": database_url}
        return CliRunner().invoke(main, arguments, env=environment)

    return run


def kept(engine: sa.Engine) -> int:
    """How many reports are kept."""
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM auditstore.reconciliations")) or 0


def test_a_report_is_kept_and_told_again(scene: Scene, run: Run, tmp_path: Path) -> None:
    """Text, CSV and HTML are as they were at first; JSON carries the same findings."""
    forms = {}
    for form in ("text", "csv", "html"):
        forms[form] = tmp_path / f"first.{form}"
        options = ["--level", "events", "--format", form, "--output", str(forms[form])]
        assert run("reconcile", *options).exit_code == 1
    assert kept(scene.engine) == 3

    for number, form in enumerate(forms, start=1):
        again = tmp_path / f"again.{form}"
        result = run("report", "show", str(number), "--format", form, "--output", str(again))
        assert result.exit_code == 0, result.output
        first_lines, again_lines = forms[form].read_text(), again.read_text()
        if form == "text":
            assert first_lines.splitlines()[:-1] == again_lines.splitlines()[:-1]
            assert again_lines.splitlines()[-1].startswith("Report 1, SHA-256 ")
        else:
            assert first_lines == again_lines
    report = json.loads(run("report", "show", "2", "--format", "json").stdout)
    rows = csv.DictReader(io.StringIO(forms["csv"].read_text()))
    assert [each["kind"] for each in report["findings"]] == [each["kind"] for each in rows]


@pytest.mark.usefixtures("scene")
def test_list(run: Run) -> None:
    """The newest first, with result, scope and hash; nothing is said where there is none."""
    assert "No report is kept yet" in run("report", "list").stdout
    run("reconcile", "--no-keep")
    run("reconcile", "--stream", "1")
    run("reconcile", "--level", "events")

    newest, oldest = json.loads(run("report", "list", "--json").stdout)

    assert (newest["number"], oldest["number"]) == (2, 1)
    assert (newest["result"], newest["scope"]["level"]) == ("differences", "events")
    assert oldest["scope"]["stream"] == 1
    assert oldest["counts"] == {"changed-file": 1, "missing-file": 1, "unknown-file": 1}
    assert oldest["heads"][0]["sequence"] == 3
    text = run("report", "list").stdout
    assert newest["sha256"] in text
    assert len(json.loads(run("report", "list", "--json", "--limit", "1").stdout)) == 1


def test_the_hash_is_of_the_canonical_json(scene: Scene, run: Run, tmp_path: Path) -> None:
    """Whoever has Python alone can verify: of the full JSON, the kept one, and the database's."""
    full, again = tmp_path / "full.json", tmp_path / "kept.json"
    run("reconcile", "--level", "events", "--format", "json", "--output", str(full))
    run("report", "show", "1", "--format", "json", "--output", str(again))
    program = (
        "import hashlib, json, sys\n"
        "report = json.load(open(sys.argv[1]))\n"
        "told = report.pop('sha256')\n"
        "text = json.dumps(report, sort_keys=True, separators=(',', ':'))\n"
        "print(told == hashlib.sha256(text.encode()).hexdigest())\n"
    )
    for file in (full, again):
        done = subprocess.run(
            [sys.executable, "-c", program, file], capture_output=True, text=True, check=True
        )
        assert done.stdout == "True\n"
        assert "is whole" in run("report", "verify", str(file)).stdout
        altered = file.read_text().replace('"exit_code":1', '"exit_code":0')
        file.write_text(altered)
        assert run("report", "verify", str(file)).exit_code == 2
    with scene.engine.connect() as connection:
        same = connection.scalar(
            sa.text(
                "SELECT sha256 = sha256(convert_to(report::text, 'UTF8'))"
                " FROM auditstore.reconciliations"
            )
        )
    assert same is True


def test_all_findings_have_one_hash(scene: Scene, run: Run) -> None:
    """What is kept of a few findings names all by the hash of their lines in the full JSON."""
    for number in range(120):
        scene.vandal.write(f"stray-{number}.json", b"{}")
    full = json.loads(run("reconcile", "--format", "json").stdout)
    again = json.loads(run("report", "show", "1", "--format", "json").stdout)

    assert (len(full["findings"]), full["findings_left_out"]) == (123, 0)
    assert (again["findings_total"], again["findings_left_out"]) == (123, 21)
    lines = b"".join(
        json.dumps(each, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        for each in full["findings"]
    )
    assert hashlib.sha256(lines).hexdigest() == again["findings_sha256"] == full["findings_sha256"]


def test_what_it_was_and_who(scene: Scene, run: Run) -> None:
    """The report says what was compared, with which versions, when, by whom; and the sum."""
    report = json.loads(run("reconcile", "--format", "json", "--since", "2020-01-01").stdout)

    assert report["actor"].count("@") == 1
    assert report["database_user"] == "postgres"
    assert set(report["versions"]) == {"auditstore", "schema", "server"}
    assert report["since"] == "2020-01-01T00:00:00Z"
    assert report["started_at"] < report["ended_at"]
    (stream,), (total,) = report["streams"], report["totals"]
    assert stream["head_hash"] == scene.get(1).chain_hash.hex()
    assert stream["intervals"] == [[0, 10]]
    for name in ("files_expected", "events_found", "events_matched", "differences", "counts"):
        assert stream[name] == total[name], name
    assert total["pattern"]["sorts"] == stream["pattern"]["sorts"]


def test_findings_are_complete(run: Run, scene: Scene) -> None:
    """A changed event has its ids, type, outcome, both hashes, the fields, and its command."""
    report = json.loads(run("reconcile", "--level", "events", "--format", "json").stdout)
    (found,) = [each for each in report["findings"] if each["kind"] == "changed-event"]
    first = scene.files(1)[0].sealed

    assert (found["type"], found["outcome"]) == ("recipient", "success")
    assert (found["flow_id"], found["lead_id"], found["position"]) == ("flow-1", "lead 0", 1)
    assert found["object_key"] == first.object_key
    assert len(found["expected"]) == len(found["found"]) == 64
    assert [each["path"] for each in found["fields"]["changes"]] == ["vars.lead.email"]
    shown = subprocess.run(["sh", "-c", found["command"]], capture_output=True, check=True)
    assert b"someone@example.com" in shown.stdout


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_values_only_where_they_are_asked_for(
    scene: Scene, run: Run, form: str, tmp_path: Path
) -> None:
    """They are shown with --show-values, and never kept."""
    target = tmp_path / "report"
    options = ["reconcile", "--level", "events", "--format", form, "--output", str(target)]
    run(*options)
    assert "someone@" not in target.read_text()
    assert "vars.lead.email" in target.read_text()
    run(*options, "--show-values")
    assert "someone@example.com" in target.read_text()
    assert kept(scene.engine) == 2
    assert "someone@" not in run("report", "show", "2", "--format", "json").stdout
    assert run("reconcile", "--show-values", "--format", "html").exit_code == 2


def test_dry_run(scene: Scene, run: Run) -> None:
    """It says what would be put back, and what could not be, and writes nothing."""
    second, third = scene.files(1)[1:]
    scene.vandal.delete(third.sealed.object_key)
    scene.tamper(
        "UPDATE auditstore.events SET payload = '{}', size_bytes = 2 WHERE position = :at",
        at=third.sealed.first_position,
    )
    report = json.loads(run("reconcile", "--repair", "--dry-run", "--format", "json").stdout)

    missing = {
        each["sequence"]: each for each in report["findings"] if each["kind"] == "missing-file"
    }
    assert (missing[2]["planned"], missing[2]["repaired"]) == (True, False)
    assert (missing[3]["planned"], missing[3]["fixable"]) == (False, False)
    assert "could not be put back" in missing[3]["detail"]
    assert [each["round"] for each in report["totals"]] == [1]
    assert (report["repair"], report["totals"][0]["planned"]) == ("dry-run", 1)
    assert "[would be put back]" in run("reconcile", "--repair", "--dry-run").stdout
    with scene.opened() as store:
        assert store.head(second.sealed.object_key) is None
    assert run("reconcile", "--dry-run").exit_code == 2


def test_before_and_after_a_repair(scene: Scene, run: Run, tmp_path: Path) -> None:
    """Every form shows both rounds; what nobody mends is listed with the command that shows it."""
    key = scene.files(1)[1].sealed.object_key
    taken = {}
    for form in ("text", "json", "csv", "html"):
        target = tmp_path / form
        run("reconcile", "--repair", "--format", form, "--output", str(target))
        taken[form] = target.read_text()
        scene.vandal.delete(key)

    assert "before   3 differences, 1 files matched" in taken["text"]
    assert "[repaired]" in taken["text"]
    before, after = json.loads(taken["json"])["totals"]
    assert (before["differences"], after["differences"]) == (3, 2)
    assert (before["files_matched"], after["files_matched"]) == (1, 2)
    rounds = [line["round"] for line in csv.DictReader(io.StringIO(taken["csv"]))]
    assert rounds == ["1", "1", "1", "2", "2"]
    assert "Still found after the repair" in taken["html"]
    for form, text in taken.items():
        assert "stray.json" in text
        assert "cat -- " in text, form


def test_a_kept_report_never_changes(scene: Scene, run: Run) -> None:
    """Not even by the owner; what was changed behind the guards is refused when it is read."""
    run("reconcile")
    for statement in (
        "UPDATE auditstore.reconciliations SET actor = 'me'",
        "DELETE FROM auditstore.reconciliations",
        "TRUNCATE auditstore.reconciliations",
    ):
        with scene.engine.begin() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(sa.text(statement))
    altered = (
        "UPDATE auditstore.reconciliations SET report ="
        " replace(report::text, 'files_matched', 'files_beheld')::json"
    )
    with pytest.raises(DBAPIError, match="sha256_check"):
        scene.tamper(altered)
    scene.tamper(
        "ALTER TABLE auditstore.reconciliations DROP CONSTRAINT reconciliations_sha256_check"
    )
    scene.tamper(altered)

    result = run("report", "show", "1")

    assert result.exit_code == 2
    assert "was kept with" in result.stderr
    assert run("report", "show", "9").exit_code == 2


def test_who_may_not_keep_is_told_before_anything_is_compared(
    scene: Scene, database_url: str
) -> None:
    """And compares without keeping where that is asked for."""
    with scene.engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE ROLE only_reads LOGIN;"
                " GRANT USAGE ON SCHEMA auditstore TO only_reads;"
                " GRANT SELECT ON ALL TABLES IN SCHEMA auditstore TO only_reads"
            )
        )
    url = sa.make_url(database_url).set(username="only_reads").render_as_string(False)
    try:
        results = [
            CliRunner().invoke(main, ["reconcile", *each], env={"AUDITSTORE_DATABASE_URL": url})
            for each in ([], ["--no-keep"])
        ]
    finally:
        with scene.engine.begin() as connection:
            connection.execute(sa.text("DROP OWNED BY only_reads; DROP ROLE only_reads"))

    assert (results[0].exit_code, results[0].stdout) == (2, "")
    assert "--no-keep" in results[0].stderr
    assert results[1].exit_code == 1
    assert kept(scene.engine) == 0


def test_other_views_are_reported_too(scene: Scene, run: Run, tmp_path: Path) -> None:
    """Three views in one run: each comparison keeps its own findings, in every form and later."""
    export = tmp_path / "export.ndjson"
    export.write_bytes(b"\n".join(scene.lines(scene.files(1)[2])) + b"\n")
    page = tmp_path / "views.html"
    result = run(
        "reconcile", "--source", str(export), "--against", "outbox", "--against", "cloud",
        "--format", "html", "--output", str(page),
    )  # fmt: skip
    assert result.exit_code in {0, 1}, result.output

    report = json.loads(run("report", "show", "1", "--format", "json").stdout)

    assert report["views"]["against"] == ["cloud", "outbox"]
    assert [each["comparison"] for each in report["streams"]] == list(
        range(1, len(report["streams"]) + 1)
    )
    for stream in report["streams"]:
        own = [each for each in report["findings"] if each["comparison"] == stream["comparison"]]
        assert len(own) == sum(stream["counts"].values())
    for name in {each["views"] for each in report["streams"] if each["views"]}:
        assert name.partition(" (")[0].split("/")[-1] in page.read_text()
    assert "is whole" in run("report", "verify", str(page)).stdout
    assert "export" in run("report", "list").stdout


def test_a_terminal_has_colours(scene: Scene, database_url: str) -> None:
    """The verdict is red there, unless NO_COLOR asks for none; a key stays harmless."""
    scene.vandal.write("odd\x1b[31m", b"")
    for no_color, red in (("", True), ("1", False)):
        environment = {
            "AUDITSTORE_DATABASE_URL": database_url, "TERM": "xterm", "NO_COLOR": no_color,
        }  # fmt: skip
        (printed,) = on_terminal(environment, [["reconcile", "--no-keep"]])
        assert ("\x1b[1;31mStream 1" in printed) is red
        assert "odd\\x1b[31m" in printed
        assert "odd\x1b" not in printed
