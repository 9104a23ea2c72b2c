"""What the command line does when something goes wrong, and how it introduces itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text
from support.commands import CommandLine, clean_environment
from support.sample_events import snapshot

from auditstore.cli.failures import reported
from auditstore.cli.root import COMMANDS
from auditstore.errors import StoreRefused
from auditstore.repository import EventRepository


def test_help_names_every_command(cli: CommandLine) -> None:
    """With one line for each."""
    shown = cli.run("--help").stdout
    for name, what in COMMANDS.items():
        assert name in shown
        assert what in shown
    assert cli.run("--version").stdout.startswith("auditstore ")


def test_help_is_quick_since_it_imports_no_command() -> None:
    """Neither a cloud's SDK nor rich is loaded before it is needed."""
    code = (
        "import sys, auditstore.cli\n"
        "try: auditstore.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'boto3', 'azure', 'rich', 'cryptography', 'apscheduler'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "AUDITSTORE_DATABASE_URL is not a database URL"),
        ("postgresql://u:s3cret@host:p0rt/db", "AUDITSTORE_DATABASE_URL is not a database URL"),
        ("mysql://u:s3cret@host/db", "AUDITSTORE_DATABASE_URL names 'mysql', not PostgreSQL"),
        ("postgresql://u:s3cret@127.0.0.1:9/db", "the database is away"),
    ],
)
def test_a_wrong_url_is_an_error_and_never_a_reason_for_another_database(
    tmp_path: Path, url: str, said: str
) -> None:
    """The embedded PostgreSQL is not touched, and a password not shown."""
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": url, "AUDITSTORE_HOME": str(tmp_path)})
    assert cli.error("status")[0].startswith(said)
    result = cli.run("--debug", "status", code=2)
    assert "Traceback" in result.stderr
    assert "s3cret" not in result.output
    assert "p0rt" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_without_the_schema_the_error_says_migrate(cli: CommandLine, engine: Engine) -> None:
    """And migrating makes it work; a second time there is nothing to do."""
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA auditstore CASCADE"))
    for command in (("status",), ("events", "list"), ("stream", "list")):
        assert cli.error(*command)[1] == "Run `auditstore migrate`."
    assert cli.json("migrate") == {"applied": ["outbox"]}
    assert cli.run("migrate").stdout == "The schema is up to date\n"
    assert "No exporter is running" in cli.run("status").stdout


def test_click_keeps_its_own_words_for_wrong_usage(cli: CommandLine) -> None:
    """With exit code 2."""
    assert "No such command 'bogus'" in cli.run("bogus", code=2).stderr
    assert "no time" in cli.run("events", "list", "--since", "banana", code=2).stderr


@click.command()
@click.option("--debug", is_flag=True)
@click.argument("what")
def failing(*, debug: bool, what: str) -> None:
    """Fail in some way."""
    errors: dict[str, BaseException] = {
        "ours": StoreRefused("it\nsays \x1b[2Jno", hint="Ask\nagain."),
        "defect": ZeroDivisionError("secret detail"),
        "interrupt": KeyboardInterrupt(),
        "extra": ModuleNotFoundError("No module named 'boto3'", name="boto3"),
    }
    with reported(debug=debug):
        raise errors[what]


@pytest.mark.parametrize(
    ("what", "code", "lines"),
    [
        ("ours", 2, ["Error: it says  [2Jno", "Try:   Ask again."]),
        (
            "defect",
            70,
            [
                "Error: unexpected ZeroDivisionError: this is a defect of auditstore",
                "Try:   Run it again as `auditstore --debug ...` to see where.",
            ],
        ),
        ("interrupt", 130, ["Interrupted"]),
        (
            "extra",
            2,
            ["Error: this needs the package boto3", "Try:   pip install 'auditstore[exporter]'"],
        ),
    ],
)
def test_every_failure_has_its_lines_and_its_code(what: str, code: int, lines: list[str]) -> None:
    """One line what, one what to do, whatever a server's words contain."""
    result = CliRunner().invoke(failing, [what])
    assert result.exit_code == code
    assert result.stderr.splitlines() == lines


def test_tracebacks_show_with_debug_only() -> None:
    """For a defect and for an error of ours."""
    for what in ("ours", "defect"):
        assert "Traceback" in CliRunner().invoke(failing, ["--debug", what]).stderr
        assert "Traceback" not in CliRunner().invoke(failing, [what]).stderr


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(
    cli: CommandLine, engine: Engine
) -> None:
    """As with `| head`: silence, and the shell's own code for it."""
    with engine.begin() as connection:
        events = [snapshot(number, filler="x" * 10_000) for number in range(100)]
        EventRepository().append(connection, events)
    process = subprocess.Popen(
        [sys.executable, "-m", "auditstore", "events", "list", "--limit", "0", "--json"],
        env=clean_environment() | dict(cli.environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), said) == (141, b"")


def test_it_runs_as_a_module(cli: CommandLine) -> None:
    """In a process of its own, with its own name in the help."""
    done = cli.process("stream", "list", "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert cli.process("--help").stdout.startswith("Usage: auditstore ")
