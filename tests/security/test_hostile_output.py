"""What hostile text becomes where somebody looks: on terminals, in logs, in spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
import structlog
from click.testing import CliRunner
from support.commands import CommandLine
from support.eventually import eventually
from support.export_command import running_exporter
from support.terminal import on_terminal, unprintable

from auditstore import EventRepository, streams
from auditstore.cli import main
from auditstore.cli.display import harmless, harmless_json
from auditstore.cli.logs import configure_logs
from auditstore.layout import encode_part
from auditstore.reconciliation import Finding, Kind
from auditstore.reconciliation.document import About, Document
from auditstore.reconciliation.report_csv import COLUMNS, inert
from auditstore.reconciliation.reports import open_report
from auditstore.streams import NewStream

# Clears the screen, sets the title, forges an entry, hides and reverses text, in C0 and in C1.
OBEYED = (
    "x\x1b[2J\x1b]0;owned\x07\r\n2026-01-01T00:00:00Z [info] delivered\x7f\x9b2J\u202e\u2028\u0085"
)
EVENT_ID = "690000000000000000000001"


@pytest.fixture
def cli(engine: sa.Engine, database_url: str, tmp_path: Path) -> CommandLine:
    """A hostile flow delivered to a folder, with hostile names put beside its file."""
    folder = tmp_path / "out"
    with engine.begin() as connection:
        streams.add(connection, NewStream(OBEYED, folder.as_uri()), actor=OBEYED)
        fields = {
            "id": EVENT_ID, "vars": {"flow": {"id": OBEYED}, "lead": {"id": OBEYED}},
            "type": OBEYED, "outcome": OBEYED, "reason": OBEYED, "step_id": OBEYED, OBEYED: OBEYED,
        }  # fmt: skip
        EventRepository().append(connection, json.dumps(fields, ensure_ascii=False))
    made = CommandLine({"AUDITSTORE_DATABASE_URL": database_url})
    made.run("export", "once")
    (folder / OBEYED).write_bytes(b"")
    (folder / "=cmd|'calc'!A0").write_bytes(b"")
    Path(os.fsdecode(bytes(folder) + b"/\xff\xfe\x1b[2J.json")).write_bytes(b"")
    (file,) = folder.rglob("*.ndjson.gz")
    file.write_bytes(b"no gzip \x1b[2J")
    return made


def trouble(engine: sa.Engine) -> None:
    """Put hostile words into what the exporter says of a stream."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE auditstore.streams SET state = 'blocked', state_code = :said,"
                " state_cause = :said, state_hint = :said, lease_owner = :said,"
                " lease_until = now() + interval '1 hour', region = :said,"
                " options = jsonb_build_object(CAST(:said AS text), CAST(:said AS text))"
            ),
            {"said": OBEYED},
        )


COMMANDS = [
    ("events", "list"), ("events", "list", "--json"), ("events", "show", EVENT_ID),
    ("events", "show", EVENT_ID, "--json"), ("stream", "list"), ("stream", "list", "--json"),
    ("stream", "show", "1"), ("stream", "show", "1", "--json"), ("status",), ("status", "--json"),
    ("stream", "test", "1"), ("export", "once"), ("stream", "disable", "1"),
    ("reconcile", "--level", "events"), ("reconcile", "--level", "events", "--format", "csv"),
    ("reconcile", "--level", "events", "--format", "json"),
    ("reconcile", "--level", "events", "--format", "html"), ("report", "list"),
    ("report", "show", "1"), ("report", "show", "1", "--format", "json"),
    ("events", "show", OBEYED),
    ("stream", "add", "--flow", OBEYED, "--to", "s3://bucket/x", "--option", OBEYED + "=x"),
    ("stream", "add", "--flow", "f", "--to", "file:///" + OBEYED),
]  # fmt: skip


def test_no_command_lets_a_terminal_obey_what_it_shows(cli: CommandLine, engine: sa.Engine) -> None:
    """Each command that shows an event, a stream, a key or a store's words, on a real terminal."""
    trouble(engine)
    for command, said in zip(COMMANDS, on_terminal(cli.environment, COMMANDS), strict=True):
        assert said.strip(), command
        assert unprintable(said) == "", (command, said)


def test_nor_does_what_is_piped(cli: CommandLine, engine: sa.Engine) -> None:
    """Piped, the lines are for people too; JSON for programs keeps its strings as they are."""
    trouble(engine)
    for command in COMMANDS:
        if "--json" in command or "--format" in command:
            continue
        result = CliRunner().invoke(main, command, env=dict(cli.environment))
        assert result.output, command
        assert unprintable(result.output) == "", command
    assert cli.json("stream", "list")[0]["flow_id"] == OBEYED
    snapshot = cli.run("events", "list", "--json").stdout_bytes
    assert json.loads(snapshot)["reason"] == OBEYED


def test_the_daemons_log_forges_no_entry(
    engine: sa.Engine, database_url: str, tmp_path: Path
) -> None:
    """A hostile flow's key in a real daemon's log, delivered and refused: an entry a line."""
    for name in ("out", "blocked"):
        with engine.begin() as connection:
            new = NewStream(OBEYED, (tmp_path / name).as_uri())
            streams.add(connection, new, actor="test")
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / f"flow_id={encode_part(OBEYED)}").write_bytes(b"in the way")
    with engine.begin() as connection:
        fields = {"id": EVENT_ID, "vars": {"flow": {"id": OBEYED}}}
        EventRepository().append(connection, json.dumps(fields))
    with running_exporter({"AUDITSTORE_DATABASE_URL": database_url}) as exporter:
        # In either order: an entry that is passed over is kept all the same.
        exporter.wait_for("delivered")
        eventually(lambda: any('"blocked"' in line for line in exporter.lines))
        assert exporter.stop() == 0
    said = [json.loads(line) for line in exporter.lines]
    assert {"blocked", "delivered"} <= {entry["event"] for entry in said}
    assert unprintable("\n".join(exporter.lines)) == ""


@pytest.fixture
def _restored_logs() -> Iterator[None]:
    """Other tests log as before."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, _ = handlers, root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_restored_logs")
@pytest.mark.parametrize("form", ["json", "console"])
def test_hostile_words_stay_in_their_entry(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a value, a name, an event, an object, an exception, and with bytes that are no UTF-8."""
    configure_logs(form)  # type: ignore[arg-type]  # the parameter's values are the type's
    log = structlog.get_logger("exporter")
    odd = OBEYED + "\udcff"
    log.warning("retrying", cause=odd, key=[odd], more=ValueError(odd))
    log.warning(odd)
    logging.getLogger("urllib3").warning("from a library: %s", odd)
    try:
        raise RuntimeError(odd)  # noqa: TRY301  # for its traceback
    except RuntimeError:
        log.exception("unexpected failure", stream=1)
    said = capsys.readouterr().err
    assert unprintable(said) == ""
    if form == "json":
        entries = [json.loads(line) for line in said.splitlines()]
        assert entries[0]["cause"] == odd
        assert len(entries) == 4
    else:
        # Only entries begin at the margin; a traceback is set in.
        starts = [line for line in said.splitlines() if line and not line.startswith(" ")]
        assert len(starts) == 4
        assert not any("delivered" in line.split("[", 1)[0] for line in starts)


def test_escapes_mean_the_same_in_json() -> None:
    """What is shown instead of a character is that character to a parser."""
    text = "".join(chr(n) for n in [*range(0x300), 0x202E, 0x2028, 0xFEFF, 0xE0001, 0x10FFFF])
    plain = orjson.dumps({text: [text]}).decode()
    shown = harmless_json(plain)
    assert shown.isprintable()
    assert json.loads(shown) == {text: [text]}
    assert harmless_json("{\n}") == "{\n}"
    assert harmless(text).isprintable()


# --- spreadsheets -----------------------------------------------------------------------

ABOUT = About(datetime(2026, 1, 1, tzinfo=UTC), "a", "b", {}, {})
FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "'=1", "\uff1d1",
    "=HYPERLINK(\"http://x\",\"a\")", "-2+3+cmd|' /C calc'!A0",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_a_formula(text: str) -> None:
    """In any column that holds text; taking the apostrophe off gives the text back."""
    out = io.StringIO()
    report = open_report("csv", out, Document(ABOUT))
    report.finding(
        Finding(
            Kind.UNKNOWN_FILE, 1, text, text, sequence=1, position=-1, event_id=text, lead_id=text,
            object_key=text, expected=text, found=text,
        ),
        1,
    )  # fmt: skip
    (head, row) = csv.reader(io.StringIO(out.getvalue(), newline=""))
    assert tuple(head) == COLUMNS
    cells = dict(zip(head, row, strict=True))
    for name in ("flow_id", "detail", "event_id", "lead_id", "object_key", "expected", "found"):
        assert cells[name] == "'" + text
        assert cells[name].removeprefix("'") == text
    assert (cells["round"], cells["difference"], cells["stream_id"]) == ("1", "true", "1")


def test_ordinary_cells_are_as_they_are() -> None:
    """Keys, ids and sentences begin with none of these."""
    for text in ("", "some/prefix/flow_id=x", "690000000000000000000001", "a=b", "1-1", "é"):
        assert inert(text) == text


def test_a_hostile_name_in_a_bucket_is_inert_in_the_report(cli: CommandLine) -> None:
    """From a file's name in the folder to a cell, by the command itself."""
    said = cli.run("reconcile", "--level", "events", "--format", "csv", code=1).stdout
    rows = list(csv.DictReader(io.StringIO(said, newline="")))
    keys = {row["object_key"] for row in rows if row["kind"] == "unknown-file"}
    assert "'=cmd|'calc'!A0" in keys
    assert not any(
        value.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for value in row.values()
    )
