"""The documentation's code runs, its links lead somewhere, and its commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import sqlalchemy as sa
from support.commands import CommandLine
from support.sample_events import snapshot

from auditstore import EventRepository
from auditstore.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
_BLOCK = re.compile(r"^<!-- tested -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\$ )?(auditstore [a-z][^#`|\n]*)", re.MULTILINE)
_FENCED = re.compile(r"^ *```(?:sh|console)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def run(page: str, database_url: str) -> str:
    """Run a page's tested Python; what it printed."""
    (code,) = _BLOCK.findall((ROOT / page).read_text())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "AUDITSTORE_DATABASE_URL": database_url},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_appends_events(database_url: str) -> None:
    """The README's Python prints what the README says."""
    printed = run("README.md", database_url)
    assert printed in (ROOT / "README.md").read_text()


def test_a_third_party_can_verify_the_ledger(
    engine: sa.Engine, database_url: str, tmp_path: Path
) -> None:
    """The reference's program, which uses nothing of ours, comes to the ledger's own hashes."""
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": database_url})
    url = (tmp_path / "out").as_uri()
    cli.run("stream", "add", "--flow", "flow-1", "--to", url, "--max-events", "2")
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(number) for number in range(5)])
    cli.run("export", "once")
    assert "3 rows verified" in run("docs/reference/ledger.md", database_url)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist_with_their_options(page: Path) -> None:
    """Every command in a block names a command of the program and options that it has."""
    for block in _FENCED.findall(page.read_text()):
        for line in _COMMAND.findall(block.replace("\\\n", " ")):
            check(line.split()[1:])


def check(words: list[str]) -> None:
    """Follow the words from the root command down."""
    command: click.Command = main
    context = click.Context(main)
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            found = command.get_command(context, word)
            assert found is not None, words
            command = found
        elif word.startswith("--"):
            options = {text for parameter in command.params for text in parameter.opts}
            assert word.partition("=")[0] in options | {"--help", "--version"}, words
