"""``auditstore user`` and ``auditstore key``: who may come in; secrets are seen once or never."""

from __future__ import annotations

import orjson
import sqlalchemy as sa
from support.commands import CommandLine

PASSWORD = "correct horse battery"


def everything(engine: sa.Engine) -> str:
    """All that the accounts' tables and the record of changes hold, as text."""
    with engine.connect() as connection:
        return "\n".join(
            str(connection.execute(sa.text(f"SELECT t::text FROM auditstore.{table} t")).all())
            for table in ("users", "api_keys", "changes")
        )


def test_a_user_is_added_with_a_password_from_standard_input(cli: CommandLine) -> None:
    """Listed with role and flows; disabled and enabled again; the password shows nowhere."""
    said = cli.run("user", "add", "ada", "--role", "operator", "--flow", "f1", stdin=PASSWORD)
    assert said.stdout == "User ada added (operator)\n"
    (user,) = orjson.loads(cli.run("user", "list", "--json").stdout)
    assert (user["name"], user["role"], user["flows"], user["enabled"]) == (
        "ada", "operator", ["f1"], True,
    )  # fmt: skip
    assert cli.run("user", "disable", "ada").stdout == "User ada is disabled\n"
    shown = cli.run("user", "list").stdout
    assert "disabled" in shown
    assert "hash" not in shown
    cli.run("user", "enable", "ada")
    said = cli.run("user", "password", "ada", stdin="another long password\n")
    assert said.stdout == "User ada has a new password\n"


def test_a_password_is_never_taken_from_the_arguments(cli: CommandLine) -> None:
    """They are seen by every user of the machine; a short one or two lines are refused."""
    said = cli.run("user", "add", "ada", PASSWORD, "--role", "viewer", code=2).stderr
    assert "unexpected extra argument" in said
    said, _ = cli.error("user", "add", "ada", "--role", "viewer", stdin="short")
    assert said == "the password has 5 characters"
    said, _ = cli.error("user", "add", "ada", "--role", "viewer", stdin=f"{PASSWORD}\n{PASSWORD}")
    assert said == "the password has more than one line"
    assert cli.run("user", "list", "--json").stdout.strip() == "[]"


def test_a_key_is_shown_once(cli: CommandLine, engine: sa.Engine) -> None:
    """Alone on standard output, so that it can be piped to where it is kept."""
    added = cli.run("key", "add", "loader", "--role", "viewer", "--flow", "f1", "--days", "30")
    key = added.stdout.strip()
    assert key.startswith("auditstore_")
    assert key not in added.stderr
    assert "Key 1 for loader (viewer)" in added.stderr
    listed = cli.run("key", "list", "--json").stdout
    (found,) = orjson.loads(listed)
    assert (found["key_id"], found["flows"], found["revoked_at"]) == (1, ["f1"], None)
    assert cli.run("key", "revoke", "1").stdout == "Key 1 (loader) is revoked\n"
    assert orjson.loads(cli.run("key", "list", "--json").stdout)[0]["revoked_at"]
    kept = everything(engine)
    assert key not in kept + listed + cli.run("key", "list").stdout
    assert "loader" in kept
    said, do = cli.error("key", "revoke", "9")
    assert said == "there is no API key number 9"
    assert "auditstore key list" in do
