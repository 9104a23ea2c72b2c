"""A whole export of hostile leads with secrets everywhere: none is in the log or at the port."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
import sqlalchemy as sa
from support.commands import CommandLine
from support.eventually import eventually
from support.export_command import ExporterProcess, running_exporter
from support.fake_http_store import Answer, running_fake_store
from support.fixtures_postgres import Database
from support.lead_events import new_id
from support.stores import make_bucket
from support.watched import Port

from auditstore import EventRepository
from auditstore.vault import new_key

DATABASE_PASSWORD = "database-passw0rd/+@"
S3 = {"access_key_id": "AKIACANARYCANARYCAN1", "secret_access_key": "s3+canary/secret+key"}
S3_TOKEN = "session+canary/token=="
AZURE_KEY = "YXp1cmUtY2FuYXJ5LWFjY291bnQta2V5LW9mLXRoaXMtdGVzdA=="
# Unlike anything that a log says by itself, in every place where a lead's data can be.
LEAD = {
    "email": "jane.canary@example.com", "name": "Jane\nCanary\x1b[31m", "phone": "555-0199-canary",
    "level": '{"level":"error","event":"canary"}', "ssn": "123-45-6789-canary",
}  # fmt: skip
HEADER = "Bearer canary-recipient-token"
LEAK_MARKS = ("canary", "Canary", "CANARY")


def hostile_event(flow: str, number: int) -> bytes:
    """An event whose every free field is a lead's data or a recipient's secret."""
    return orjson.dumps(
        {
            "id": new_id(), "type": "recipient", "outcome": "failure",
            "reason": f"{LEAD['email']}\r\n2026-01-01 [critical] canary", "host": "canary-host",
            "step_id": "step-canary", "credential": {"token": HEADER},
            "vars": {"flow": {"id": flow, "name": "Canary's flow"},
                     "lead": {**LEAD, "id": f"lead-{number}"}, "submission": {"ip": "canary-ip"}},
            "transactions": [{"request": {"headers": {"Authorization": HEADER}, "body": LEAD}}],
        }
    )  # fmt: skip


@pytest.fixture
def hostile(database: Database) -> CommandLine:
    """A database whose URL has a password in it, and keys for secrets."""
    password = quote(DATABASE_PASSWORD, safe="")
    url = database.cluster.url(database.name, tcp=True)
    url = url.replace("postgres@", f"postgres:{password}@")
    return CommandLine({"AUDITSTORE_DATABASE_URL": url, "AUDITSTORE_SECRET_KEYS": new_key()})


def secrets_of(cli: CommandLine) -> list[str]:
    """Everything that nobody may read, as it is and as it is written in URLs and JSON."""
    plain = [
        DATABASE_PASSWORD, *S3.values(), S3_TOKEN, AZURE_KEY, HEADER, *LEAD.values(),
        cli.environment["AUDITSTORE_SECRET_KEYS"],
    ]  # fmt: skip
    written = {quote(each, safe="") for each in plain} | {repr(each)[1:-1] for each in plain}
    return sorted({*plain, *written, *(orjson.dumps(each).decode()[1:-1] for each in plain)})


def add_streams(cli: CommandLine, good: str, tattling_s3: str, tattling_azure: str,
                folder: Path) -> None:  # fmt: skip
    """One to a good bucket, one to a folder, two to servers that say what they were told."""
    token = {**S3, "session_token": S3_TOKEN}
    for name, kind, secret in (
        ("s3", "s3", orjson.dumps(S3).decode()),
        ("token", "s3", orjson.dumps(token).decode()),
        ("azure", "azure", orjson.dumps({"connection_string": (
            "DefaultEndpointsProtocol=http;AccountName=someaccount;"
            f"AccountKey={AZURE_KEY};BlobEndpoint={tattling_azure}/someaccount;"
        )}).decode()),
    ):  # fmt: skip
        cli.run("credential", "add", name, "--kind", kind, stdin=secret)
    s3 = ("--region", "us-east-1", "--max-delay", "0.1")
    cli.run("stream", "add", "--flow", "flow-1", "--to", f"s3://{make_bucket(good)}/x",
            "--endpoint-url", good, "--credential", "s3", *s3)  # fmt: skip
    cli.run("stream", "add", "--flow", "flow-2", "--to", "s3://some-bucket/x",
            "--endpoint-url", tattling_s3, "--credential", "token", *s3)  # fmt: skip
    cli.run("stream", "add", "--flow", "flow-3", "--to", "azure://some-container/x",
            "--credential", "azure", "--max-delay", "0.1")  # fmt: skip
    cli.run("stream", "add", "--flow", "flow-4", "--to", folder.as_uri(), "--format", "json",
            "--max-delay", "0.1")  # fmt: skip


def tattle(code: str, *known: str) -> Answer:
    """A refusal that repeats the secrets that came with requests, and forges log entries."""
    told = " ".join(known)
    return Answer(403, code, f"denied for {told}\r\n2026-01-01T00:00:00Z [critical] forged")


@pytest.fixture
def scene(hostile: CommandLine, moto_server: str, tmp_path: Path) -> Iterator[CommandLine]:
    """The streams, with hostile events appended to each of their flows."""
    with running_fake_store("s3") as one, running_fake_store("azure") as two:
        add_streams(hostile, moto_server, one.url, two.url, tmp_path / "out")
        one.script.extend([tattle("AccessDenied", *S3.values(), S3_TOKEN)] * 100)
        two.script.extend([tattle("AuthenticationFailed", AZURE_KEY)] * 100)
        engine = sa.create_engine(hostile.environment["AUDITSTORE_DATABASE_URL"])
        with engine.begin() as connection:
            EventRepository().append(
                connection, [hostile_event(f"flow-{1 + n % 4}", n) for n in range(40)]
            )
        # Somebody else's object under the key of one of the events: the stream halts.
        with engine.connect() as connection:
            event_id = connection.execute(
                sa.text("SELECT event_id FROM auditstore.events WHERE lead_id = 'lead-3'")
            ).scalar_one()
        taken = tmp_path / "out" / "lead-3" / f"{event_id}.json"
        taken.parent.mkdir(parents=True)
        taken.write_bytes(orjson.dumps(LEAD))
        engine.dispose()
        yield hostile


def test_a_json_log_and_the_port_tell_no_secret(scene: CommandLine, database: Database) -> None:
    """Delivered, refused, failed, halted, cut off from its database: only what may be said."""
    with running_exporter(scene.environment, "--metrics-listen", "127.0.0.1:0") as exporter:
        port = Port(exporter.wait_for("listening")["address"])
        _wait_for(exporter, {("delivered", 1), ("blocked", 2), ("blocked", 3), ("halted", 4)})
        pages = [port.get(path)[1] for path in ("/metrics", "/readyz", "/readyz?json", "/healthz")]
        database.cluster.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'auditstore exporter%'"
        )
        eventually(lambda: any('"event":"waiting"' in line for line in exporter.lines))
        eventually(lambda: any('"event":"going on"' in line for line in exporter.lines))
        exporter.stop()
    said = "\n".join(exporter.lines)
    _check(scene, said)
    # The S3 server's own words did come through, without what it tattled.
    assert "denied for ***" in said
    for page in pages:
        _check(scene, page)
    for line in exporter.lines:
        entry = orjson.loads(line)
        assert entry["event"] not in {"forged", "canary"}
        if entry["event"] in {"delivered", "blocked", "halted"}:
            assert {"stream", "sequence", "key"} <= set(entry), line


def _wait_for(exporter: ExporterProcess, wanted: set[tuple[str, int]]) -> None:
    def seen() -> bool:
        entries = [orjson.loads(line) for line in exporter.lines]
        return wanted <= {(entry["event"], entry.get("stream")) for entry in entries}

    eventually(seen, within=60, what="delivered, blocked and halted")


def test_a_console_log_tells_no_secret(scene: CommandLine) -> None:
    """The same for people; no answer of a store can begin a line of its own."""
    with running_exporter(scene.environment, "--log-format", "console") as exporter:
        eventually(
            lambda: all(
                sum(f"] {word} " in line for line in exporter.lines) == count
                for word, count in (("delivered", 1), ("blocked", 2), ("halted", 1))
            ),
            within=60, what="delivered, blocked twice and halted",
        )  # fmt: skip
        exporter.stop()
    said = "\n".join(exporter.lines)
    _check(scene, said)
    assert "denied for ***" in said
    for line in exporter.lines:
        assert re.match(r"20\d\d-\d\d-\d\dT[0-9:.]+Z \[(info|warning|error|critical) *\] ", line)
        assert "\x1b" not in line


def _check(cli: CommandLine, said: str) -> None:
    assert said
    for secret in secrets_of(cli):
        assert secret not in said, secret
    for mark in LEAK_MARKS:
        assert mark not in said, said[max(0, said.index(mark) - 200) : said.index(mark) + 100]
