"""The command: exit codes, forms of the report, which streams, and repair."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from support.inventories import inventory, row
from support.ledger_builder import Scene
from support.stores import Place

from auditstore import streams
from auditstore.cli import main

Run = Callable[..., Result]


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A stream with three files in a folder."""
    built = Scene(engine, folder_place)
    stream = built.stream()
    built.append(10)
    built.deliver(stream)
    return built


@pytest.fixture
def run(database_url: str) -> Run:
    """Runs ``auditstore reconcile`` on the scene's database."""

    def run(*arguments: str) -> Result:
        environment = {"AUDITSTORE_DATABASE_URL": database_url}
        return CliRunner().invoke(main, ["reconcile", *arguments], env=environment)

    return run


def _delete_second(scene: Scene) -> str:
    key = scene.files(1)[1].sealed.object_key
    scene.vandal.delete(key)
    return key


@pytest.mark.usefixtures("scene")
@pytest.mark.parametrize("level", ["files", "events"])
def test_reconciled(run: Run, level: str) -> None:
    """All is well: code 0, and nothing on stderr where it is no terminal."""
    result = run("--level", level)
    assert result.exit_code == 0, result.output
    assert "RECONCILED" in result.stdout
    assert "3 expected, 3 found, 3 matched" in result.stdout
    assert result.stderr == ""


def test_differences(scene: Scene, run: Run) -> None:
    """A difference is code 1, and the report names it."""
    key = _delete_second(scene)
    result = run()
    assert result.exit_code == 1
    assert "missing file (1)" in result.stdout
    assert key in result.stdout


def test_only_information_is_reconciled(scene: Scene, run: Run) -> None:
    """What is not due yet leaves the code 0."""
    scene.append(2)
    result = run()
    assert result.exit_code == 0
    assert "not yet due (1, no difference)" in result.stdout


def test_could_not_compare_one_of_two(scene: Scene, run: Run, tmp_path: Path) -> None:
    """One stream that cannot be compared is code 2, and the others are compared all the same."""
    scene.stream(url=f"file://{tmp_path}/absent/store")
    _delete_second(scene)
    result = run("--format", "json")
    assert result.exit_code == 2
    assert "stream 2 could not be compared" in result.stderr
    report = json.loads(result.stdout)
    assert [each["result"] for each in report["streams"]] == ["differences", "not compared"]
    assert report["streams"][1]["error"]["code"] == "NoSuchFolder"
    assert (report["result"], report["exit_code"]) == ("not compared", 2)


def test_no_database() -> None:
    """Without the database nothing is compared: code 2."""
    result = CliRunner().invoke(
        main, ["reconcile"], env={"AUDITSTORE_DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    )
    assert result.exit_code == 2


@pytest.mark.usefixtures("scene")
def test_which_streams(run: Run) -> None:
    """``--flow`` and ``--stream`` choose; what is not there is code 2, not reconciled."""
    assert "Stream 1" in run("--flow", "flow-1").stdout
    assert "Stream 1" in run("--stream", "1").stdout
    for arguments in (["--flow", "none"], ["--stream", "7"], ["--stream", "1", "--flow", "none"]):
        assert run(*arguments).exit_code == 2, arguments


def test_interval(scene: Scene, run: Run) -> None:
    """``--since`` and ``--until`` leave out files; an empty interval is an error."""
    _delete_second(scene)
    assert run("--until", "2020-01-01").exit_code == 0
    assert run("--since", "2020-01-01").exit_code == 1
    assert run("--since", "2020-01-02", "--until", "2020-01-01").exit_code == 2


def test_json(scene: Scene, run: Run) -> None:
    """One JSON object with every finding and a summary a stream."""
    key = _delete_second(scene)
    report = json.loads(run("--format", "json", "--level", "events").stdout)
    (finding,) = report["findings"]
    assert (finding["kind"], finding["object_key"]) == ("missing-file", key)
    assert finding["difference"]
    assert finding["round"] == 1
    (stream,) = report["streams"]
    assert stream["counts"]["missing-file"] == 1
    assert stream["events_expected"] == 10
    assert (report["version"], report["level"], report["exit_code"]) == (1, "events", 1)
    assert json.loads(run("--format", "json", "--since", "2999-01-01").stdout)["findings"] == []


def test_csv(scene: Scene, run: Run) -> None:
    """One line a finding under a head line, whatever a key may hold."""
    scene.vandal.write('odd,"\n\udcff', b"")
    (line,) = csv.DictReader(io.StringIO(run("--format", "csv").stdout))
    assert line["kind"] == "unknown-file"
    assert line["object_key"] == 'odd,"\n\\xff'
    assert (line["difference"], line["fixable"]) == ("true", "false")


def test_text_is_harmless(scene: Scene, run: Run) -> None:
    """Control sequences in a key do not reach the terminal."""
    scene.vandal.write("odd\x1b[2J\udcff", b"")
    result = run()
    assert "\x1b" not in result.stdout
    assert "\\x1b[2J" in result.stdout


def test_text_shows_the_first(scene: Scene, run: Run) -> None:
    """Fifty findings of a kind are shown, the others counted."""
    for number in range(60):
        scene.vandal.write(f"stray-{number:02}", b"")
    out = run().stdout
    assert "unknown file (60)" in out
    assert "stray-49" in out
    assert "stray-50" not in out
    assert "and 10 more" in out


@pytest.mark.usefixtures("scene")
def test_output(run: Run, tmp_path: Path) -> None:
    """The file holds the whole report; standard output stays empty."""
    target = tmp_path / "report.json"
    result = run("--format", "json", "--output", str(target))
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(target.read_text())["result"] == "reconciled"
    assert [each.name for each in tmp_path.glob("report*")] == ["report.json"]
    assert run("--output", str(tmp_path / "none" / "report")).exit_code == 2


def test_repair(scene: Scene, run: Run) -> None:
    """A repair is shown before and after, and leaves with 0 if all is well then."""
    key = _delete_second(scene)
    body_size = scene.files(1)[1].delivery.object_bytes
    result = run("--repair")
    assert result.exit_code == 0, result.output
    assert "[repaired]" in result.stdout
    assert "RECONCILED, after the repair" in result.stdout
    assert len(scene.vandal.read(key)) == body_size


def test_repair_of_less_than_all(scene: Scene, run: Run) -> None:
    """What a repair cannot mend stays a difference, untouched."""
    _delete_second(scene)
    changed = scene.files(1)[0].sealed.object_key
    scene.vandal.write(changed, b"other")
    report = json.loads(run("--repair", "--format", "json").stdout)
    assert report["exit_code"] == 1
    assert [(each["round"], each["kind"], each["repaired"]) for each in report["findings"]] == [
        (1, "changed-file", False),
        (1, "missing-file", True),
        (2, "changed-file", False),
    ]
    assert scene.vandal.read(changed) == b"other"


def test_disabled_streams_are_compared(scene: Scene, run: Run) -> None:
    """A stream that was disabled still answers for what it covered."""
    with scene.engine.begin() as connection:
        streams.disable(connection, 1, actor="test")
    _delete_second(scene)
    assert run().exit_code == 1


def test_incremental(scene: Scene, run: Run) -> None:
    """The second run compares what is new and says so; a finding comes again; anew is all."""
    assert "3 expected, 3 found, 3 matched" in run("--incremental").stdout
    scene.append(4)
    scene.deliver(1)
    second = run("--incremental", "--format", "json")
    (stream,) = json.loads(second.stdout)["streams"]
    assert stream["verified_before"] == 3
    # The new file, and the sample: of three, all.
    assert stream["files_expected"] == 4
    key = _delete_second(scene)
    for _ in range(2):
        again = run("--incremental")
        assert again.exit_code == 1
        assert key in again.stdout
        assert "files 1 to 4 were compared by earlier runs" in again.stdout
    assert "RECONCILED, after the repair" in run("--incremental", "--repair").stdout
    anew = run("--incremental", "--anew")
    assert anew.exit_code == 0
    assert "4 expected, 4 found, 4 matched" in anew.stdout
    assert "earlier runs" not in anew.stdout


@pytest.mark.usefixtures("scene")
def test_options_that_do_not_go_together(run: Run) -> None:
    """A time filter would leave something out that is then taken for verified."""
    assert run("--incremental", "--since", "2026-01-01").exit_code == 2
    assert run("--anew").exit_code == 2


def test_by_an_inventory(
    engine: sa.Engine, database_url: str, s3_place: Place, tmp_path: Path
) -> None:
    """Beside the bucket or copied to a folder; the report names it. Folders need none."""
    scene = Scene(engine, s3_place)
    scene.stream()
    scene.append(10)
    scene.deliver(1)
    bucket = s3_place.destination.bucket
    with scene.opened() as store:
        rows = [row(bucket, info) for info in store.list("")]
    manifest, made = inventory(bucket, rows)
    for name, body in made.items():
        scene.vandal.write(name, body)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)
    secret = s3_place.secret or {}
    environment = {
        "AUDITSTORE_DATABASE_URL": database_url,
        "AWS_ACCESS_KEY_ID": secret["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": secret["secret_access_key"],
        "AWS_REGION": "us-east-1",
    }

    def reconcile(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["reconcile", *arguments], env=environment)

    for name in (f"s3://{bucket}/{manifest}", str(tmp_path / manifest)):
        result = reconcile("--inventory", name)
        assert result.exit_code == 0, result.output
        assert f"listed   by {name}, made at 2026-11-24 01:00 UTC" in result.stdout
        page = reconcile("--inventory", name, "--format", "html").stdout
        assert "made at 2026-11-24 01:00 UTC" in page
    wrong = reconcile("--inventory", str(tmp_path / "nothing.json"))
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "nothing.json is not there" in wrong.stderr
    assert "goes with a whole comparison" in reconcile("--inventory", "x", "--incremental").stderr


@pytest.mark.usefixtures("scene")
def test_a_folder_needs_no_inventory(run: Run) -> None:
    """It is listed faster than that."""
    result = run("--inventory", "list.csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the stream goes to a folder" in result.stderr
