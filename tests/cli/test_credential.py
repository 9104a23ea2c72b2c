"""``auditstore credential``, and that a secret never shows anywhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Engine, select, text
from support.commands import CommandLine, clean_environment

from auditstore.sql import tables
from auditstore.vault import new_key

KEY_ID = "AKIARECOGNISABLE1234"
SECRET = "r3cognisable/SECRET+value"
AS_JSON = orjson.dumps({"access_key_id": KEY_ID, "secret_access_key": SECRET}).decode()
AS_LINES = f"# mine\nAWS_ACCESS_KEY_ID={KEY_ID}\n\naws_secret_access_key = {SECRET}\n"


@pytest.mark.parametrize("stdin", [AS_JSON, AS_LINES, "[default]\n" + AS_LINES])
def test_a_secret_is_read_from_standard_input(cli: CommandLine, stdin: str) -> None:
    """As a JSON object, or as lines as the cloud's own tools keep them."""
    result = cli.run("credential", "add", "aws", "--kind", "s3", stdin=stdin)
    assert result.stdout == "Credential aws added (s3, key id ...1234)\n"


def test_a_secret_is_read_from_a_file(cli: CommandLine, tmp_path: Path) -> None:
    """An Azure connection string may stand alone, as the portal gives it."""
    file = tmp_path / "connection"
    file.write_text("DefaultEndpointsProtocol=https;AccountName=leadarchive;AccountKey=a2V5\n")
    result = cli.run("credential", "add", "b", "--kind", "azure", "--from-file", str(file))
    assert result.stdout == "Credential b added (azure, account leadarchive)\n"


def test_a_secret_is_read_from_the_environment(cli: CommandLine) -> None:
    """Where asked for only, and by the names that the cloud's own tools use."""
    environment = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    cli.run("credential", "add", "aws", "--kind", "s3", "--from-env", environment=environment)
    said, do = cli.error("credential", "add", "b", "--kind", "azure", "--from-env")
    assert said == "the environment holds no azure secret"
    assert "AZURE_STORAGE_CONNECTION_STRING" in do


def test_on_a_terminal_a_secret_is_asked_for_without_echo(cli: CommandLine) -> None:
    """What is typed does not appear."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "auditstore", "credential", "add", "aws", "--kind", "s3"],
        env=clean_environment() | dict(cli.environment), start_new_session=True,
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    for prompt, answer in ((b"Access key id: ", KEY_ID), (b"Secret access key: ", SECRET)):
        while not seen.endswith(prompt):
            seen += os.read(controller, 1000)
        # Echo is off before the prompt shows.
        os.write(controller, f"{answer}\n".encode())
    while b"key id ...1234" not in seen:
        seen += os.read(controller, 1000)
    assert process.wait(timeout=30) == 0
    os.close(controller)
    assert KEY_ID.encode() not in seen
    assert SECRET.encode() not in seen


def test_listing_rotating_and_removing(cli: CommandLine) -> None:
    """The whole life of a credential."""
    assert "No credentials" in cli.run("credential", "list").stdout
    cli.run("credential", "add", "aws", "--kind", "s3", stdin=AS_JSON)
    cli.run("stream", "add", "--flow", "f", "--to", "s3://some-bucket", "--credential", "aws")
    (listed,) = cli.json("credential", "list")
    assert (listed["name"], listed["hint"], listed["streams"]) == ("aws", "key id ...1234", [1])
    rotated = cli.run(
        "credential", "rotate", "aws", "--no-check", stdin=AS_JSON.replace("1234", "5678")
    )
    assert "key id ...5678" in rotated.stdout
    assert "Used by stream 1" in rotated.stdout
    said, do = cli.error("credential", "remove", "aws")
    assert said == "the credential aws is used by stream 1"
    assert "auditstore stream set 1 --credential" in do
    cli.run("stream", "set", "1", "--credential", "")
    cli.run("credential", "remove", "aws")
    assert cli.json("credential", "list") == []


def test_keys_are_made_and_rotated(cli: CommandLine) -> None:
    """A new key alone on standard output, put first, takes over every secret."""
    cli.run("credential", "add", "aws", "--kind", "s3", stdin=AS_JSON)
    fresh = cli.run("credential", "new-key").stdout.strip()
    both = {"AUDITSTORE_SECRET_KEYS": f"{fresh},{cli.environment['AUDITSTORE_SECRET_KEYS']}"}
    assert "1 credential under" in cli.run("credential", "reencrypt", environment=both).stdout
    alone = {"AUDITSTORE_SECRET_KEYS": fresh}
    assert "1 credential under" in cli.run("credential", "reencrypt", environment=alone).stdout
    said, _ = cli.error("credential", "reencrypt")
    assert said == "no key in AUDITSTORE_SECRET_KEYS opens the credential aws"


def test_without_a_key_the_error_says_how_to_make_one(cli: CommandLine) -> None:
    """It names the command and the variable."""
    cli.environment = {"AUDITSTORE_DATABASE_URL": cli.environment["AUDITSTORE_DATABASE_URL"]}
    said, do = cli.error("credential", "add", "aws", "--kind", "s3", stdin=AS_JSON)
    assert said == "there is no key to keep credentials with"
    assert "auditstore credential new-key" in do


def test_a_credential_is_for_its_kind_of_store(cli: CommandLine) -> None:
    """A stream to Azure refuses a credential for S3."""
    cli.run("credential", "add", "aws", "--kind", "s3", stdin=AS_JSON)
    said, _ = cli.error(
        "stream", "add", "--flow", "f", "--to", "azure://some-container", "--credential", "aws"
    )
    assert said == "the credential aws is for s3, the stream goes to azure"


@pytest.mark.parametrize(
    "stdin",
    [SECRET, f"{{'access_key_id': '{SECRET}'}}", f'{{"access_key_id": ["{SECRET}"]}}',
     f'{{"{SECRET}": "x"}}', f"{SECRET}=x", f"access_key_id={SECRET}", "", f"\x00{SECRET}"],
)  # fmt: skip
def test_a_bad_secret_is_refused_without_being_quoted(cli: CommandLine, stdin: str) -> None:
    """Whatever was mistyped, not even with tracebacks."""
    result = cli.run("--debug", "credential", "add", "aws", "--kind", "s3", stdin=stdin, code=2)
    assert "Traceback" in result.stderr
    assert SECRET not in result.output


def test_a_secret_shows_nowhere(cli: CommandLine, engine: Engine) -> None:
    """In no output, error, traceback or row, whatever is done with it and goes wrong."""
    cli.run("credential", "add", "aws", "--kind", "s3", stdin=AS_JSON)
    cli.run("credential", "rotate", "aws", stdin=AS_LINES)
    cli.run("--debug", "credential", "add", "aws", "--kind", "s3", stdin=AS_JSON, code=2)
    cli.run("stream", "add", "--flow", "f", "--to", "s3://some-bucket/p", "--credential", "aws",
            "--endpoint-url", "http://127.0.0.1:9", "--region", "us-east-1")  # fmt: skip
    for arguments in (
        ("credential", "list"), ("credential", "list", "--json"), ("stream", "show", "1"),
        ("stream", "show", "1", "--json"), ("status",), ("status", "--json"),
    ):  # fmt: skip
        cli.run(*arguments)
    cli.run("--debug", "stream", "test", "1", code=2)
    wrong = {"AUDITSTORE_SECRET_KEYS": new_key()}
    cli.run("--debug", "stream", "test", "1", code=2, environment=wrong)
    with engine.begin() as connection:
        # A failing statement, with the ciphertext among its values.
        connection.execute(text("ALTER TABLE auditstore.credentials ADD CHECK (name <> 'no')"))
    cli.run("--debug", "credential", "add", "no", "--kind", "s3", stdin=AS_JSON, code=2)
    with engine.connect() as connection:
        rows = [
            str(dict(row._mapping))
            for table in (tables.credentials, tables.changes, tables.streams)
            for row in connection.execute(select(table))
        ]
    everything = "\n".join([*cli.printed, *rows])
    assert "Traceback" in everything
    assert SECRET not in everything
    assert KEY_ID not in everything
    assert cli.environment["AUDITSTORE_SECRET_KEYS"] not in everything
