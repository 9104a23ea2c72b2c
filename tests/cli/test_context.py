"""Which database the command line works with."""

from __future__ import annotations

from pathlib import Path

from support.commands import CommandLine


def test_without_a_url_the_embedded_database_is_used_and_named(tmp_path: Path) -> None:
    """It is migrated by itself, keeps what was done, and its folder is told on stderr."""
    cli = CommandLine({"AUDITSTORE_HOME": str(tmp_path)})
    added = cli.run("stream", "add", "--flow", "f", "--to", (tmp_path / "store").as_uri())
    assert added.stderr == f"Database: embedded PostgreSQL in {tmp_path / 'postgresql'}\n"
    assert added.stdout.startswith("Stream 1 added")
    listed = cli.run("stream", "list", "--json")
    assert '"stream_id": 1' in listed.stdout


def test_an_empty_url_counts_as_none(tmp_path: Path) -> None:
    """As a variable that a compose file passes on unset."""
    cli = CommandLine({"AUDITSTORE_HOME": str(tmp_path), "AUDITSTORE_DATABASE_URL": ""})
    assert "embedded PostgreSQL" in cli.run("status").stderr
