"""``auditstore doctor``: what it finds, what it advises, and how it leaves."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, make_url, text
from support import little_exporter
from support.azurite import Azurite
from support.commands import CommandLine
from support.export_command import running_exporter
from support.fixtures_postgres import Database
from support.postgres import Cluster
from support.sample_events import snapshot
from support.stores import make_container
from support.strict_s3 import StrictS3, User

from auditstore.database import migrate
from auditstore.repository import EventRepository
from auditstore.sql import leases

NO_FILES, INCOMPLETE, DENIED = "no files appear", "events look incomplete", "access denied"


def append(engine: Engine, *numbers: int) -> None:
    """Append events of flow-1."""
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(number) for number in numbers])


def examine(cli: CommandLine, *arguments: str, code: int) -> dict[str, Any]:
    """What the doctor tells a program; it leaves with ``code``."""
    found = orjson.loads(cli.run("doctor", "--json", *arguments, code=code).stdout)
    assert found["verdict"] == {0: "well", 1: "trouble", 2: "could-not-look"}[code]
    assert isinstance(found, dict)
    return found


def by_check(found: dict[str, Any], stream_id: int | None = None) -> dict[str, dict[str, Any]]:
    """The findings by their names, of the database or of a stream."""
    findings = found["findings"]
    if stream_id is not None:
        (findings,) = [
            each["findings"] for each in found["streams"] if each["stream_id"] == stream_id
        ]
    return {each["check"]: each for each in findings}


def advised(found: dict[str, Any], symptom: str) -> dict[str, Any]:
    """The verdict on one symptom."""
    (advice,) = [each for each in found["symptoms"] if each["symptom"] == symptom]
    return dict(advice)


@pytest.fixture
def folder(cli: CommandLine, tmp_path: Path) -> Path:
    """A folder with stream 1 of flow-1 to it."""
    place = tmp_path / "store"
    cli.run("stream", "add", "--flow", "flow-1", "--to", place.as_uri(), "--max-delay", "0.2")
    return place


@pytest.fixture
def keeper(engine: Engine, folder: Path) -> None:  # noqa: ARG001  # its stream comes first
    """A living exporter that has the stream, as far as the database tells."""
    little_exporter.announce(engine)
    with engine.begin() as connection:
        leases.report_fence(connection, daemon_id="test", position=0, age=0.0)
        leases.acquire(connection, daemon_id="test", ttl=600, limit=1)


# --- the whole way ------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_all_is_well_with_an_exporter_at_work(cli: CommandLine, engine: Engine) -> None:
    """It leaves with 0, and each symptom has a next step all the same."""
    with running_exporter(cli.environment) as exporter:
        exporter.wait_for("exporting", streams=1)
        append(engine, 1)
        exporter.wait_for("delivered")
        found = examine(cli, "--stream", "1", code=0)
        exporter.stop()
    results = {check: each["result"] for check, each in by_check(found).items()}
    assert results == dict.fromkeys(
        ("database", "primary", "schema", "rights", "sequence", "clock", "fence", "exporter",
         "exporter's fence"), "ok",
    )  # fmt: skip
    of_stream = by_check(found, 1)
    assert {each["result"] for each in of_stream.values()} == {"ok", "note"}
    assert "file #1 was delivered" in of_stream["files"]["message"]
    assert "nothing waits" in of_stream["files"]["message"]
    assert of_stream["read back"]["message"] == "read it back, unchanged"
    assert {each["cause"] for each in found["symptoms"]} == {None}
    assert "stream test 1 --lead" in advised(found, NO_FILES)["next_step"]
    assert "reconcile --stream 1 --level events" in advised(found, INCOMPLETE)["next_step"]


@pytest.mark.usefixtures("folder")
def test_without_an_exporter_it_says_so_first(cli: CommandLine) -> None:
    """People see the findings, the rights, and the verdict at the end; it leaves with 1."""
    shown = cli.run("doctor", code=1).stdout
    verdict = shown.partition("\nVerdict\n")[2]
    assert "No files appear? No exporter is running\n  Next: Start one: auditstore export run" in (
        verdict
    )
    assert "Access denied? Nothing was found that would cause it." in verdict
    assert "The rights that stream 1 needs, and no more" in shown
    assert shown.index("Database and exporters") < shown.index("Stream 1, flow flow-1")


@pytest.mark.usefixtures("folder")
def test_a_stream_that_nobody_took_and_a_fence_that_stands(
    cli: CommandLine, engine: Engine
) -> None:
    """An exporter that lives and does nothing is found out."""
    little_exporter.announce(engine)
    with engine.begin() as connection:
        leases.report_fence(connection, daemon_id="test", position=0, age=300.0)
    found = examine(cli, code=1)
    assert by_check(found)["exporter"]["result"] == "warning"  # it says that its version is 0
    fence = by_check(found)["exporter's fence"]
    assert fence["result"] == "fails"
    assert "was last renewed 5 min" in fence["message"]
    assert by_check(found, 1)["worked on"]["message"] == "no running exporter has taken this stream"


# --- the database -------------------------------------------------------------------


def test_a_database_that_is_away_could_not_be_looked_at(cli: CommandLine, unused_port: int) -> None:
    """It leaves with 2, and the verdict names the server."""
    cli.environment = {"AUDITSTORE_DATABASE_URL": f"postgresql://a@127.0.0.1:{unused_port}/b"}
    found = examine(cli, code=2)
    assert by_check(found)["database"]["result"] == "fails"
    assert "the database is away" in advised(found, NO_FILES)["cause"]
    assert advised(found, DENIED)["cause"] is None
    assert "Not known." in cli.run("doctor", code=2).stdout


def test_a_stream_that_is_not_there(cli: CommandLine) -> None:
    """As everywhere else."""
    assert cli.error("doctor", "--stream", "7")[0] == "there is no stream 7"


def test_a_database_without_the_schema(cli: CommandLine, database: Database) -> None:
    """What to run is the next step."""
    url = database.cluster.url("postgres")
    cli.environment = {"AUDITSTORE_DATABASE_URL": url}
    found = examine(cli, code=1)
    assert by_check(found)["schema"]["result"] == "fails"
    assert "auditstore migrate" in advised(found, NO_FILES)["next_step"]


def test_a_standby_is_told_from_the_primary(cli: CommandLine, restartable_cluster: Cluster) -> None:
    """Everything else of it is right, so this is what people overlook."""
    migrate(restartable_cluster.url())
    standby = restartable_cluster.base_backup()
    try:
        cli.environment = {"AUDITSTORE_DATABASE_URL": standby.url()}
        found = examine(cli, code=1)
    finally:
        standby.destroy()
    assert by_check(found)["primary"]["result"] == "fails"
    assert by_check(found)["fence"]["result"] == "unknown"
    assert "standby" in advised(found, NO_FILES)["cause"]
    assert "primary" in advised(found, NO_FILES)["next_step"]


def test_a_sequence_that_hands_out_in_batches(cli: CommandLine, engine: Engine) -> None:
    """With the statement that mends it."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE auditstore.events ALTER COLUMN position SET CACHE 20"))
    sequence = by_check(examine(cli, code=1))["sequence"]
    assert "CACHE 20" in sequence["message"]
    with engine.begin() as connection:
        connection.execute(text(re.findall(r"ALTER TABLE .* CACHE 1\b", sequence["hint"])[0]))
    assert by_check(examine(cli, code=1))["sequence"]["result"] == "ok"


@pytest.fixture
def exporter_user(cli: CommandLine, database: Database) -> Iterator[str]:
    """A user with the exporter's role alone, whom the command line runs as."""
    user = f"member_{uuid.uuid4().hex}"
    database.cluster.execute(f"CREATE ROLE {user} LOGIN IN ROLE auditstore_exporter")
    url = make_url(database.url).set(username=user).render_as_string(hide_password=False)
    cli.environment = {**cli.environment, "AUDITSTORE_DATABASE_URL": url}
    yield user
    database.cluster.execute(f"DROP ROLE {user}")


@pytest.mark.parametrize(
    "revoked",
    ["UPDATE (state, attempts) ON auditstore.streams", "SELECT ON auditstore.streams",
     "DELETE ON auditstore.daemons", "USAGE ON SCHEMA auditstore",
     "EXECUTE ON FUNCTION auditstore.last_position()"],
)  # fmt: skip
@pytest.mark.usefixtures("exporter_user")
def test_lost_grants_are_named_with_the_statements_that_give_them_back(
    cli: CommandLine, engine: Engine, revoked: str
) -> None:
    """Run as they are printed, they do."""
    with engine.begin() as connection:
        connection.execute(text(f"REVOKE {revoked} FROM auditstore_exporter"))
    found = examine(cli, code=1)
    rights = by_check(found)["rights"]
    assert rights["result"] == "fails"
    assert advised(found, DENIED)["cause"] == rights["message"]
    # What is not known for want of the right is no trouble of its own; that no exporter runs is.
    failed = {each["check"] for each in found["findings"] if each["result"] == "fails"}
    assert failed <= {"rights", "exporter"}
    assert "permission denied" not in str(advised(found, NO_FILES))
    with engine.begin() as connection:
        for statement in re.findall(r"GRANT [^;]*;", rights["hint"]):
            connection.execute(text(statement))
    assert by_check(examine(cli, code=1))["rights"]["result"] == "ok"


@pytest.mark.usefixtures("folder")
def test_the_running_exporters_user_is_looked_at_too(cli: CommandLine, database: Database) -> None:
    """The one who runs the doctor may have every right."""
    user = f"poor_{uuid.uuid4().hex}"
    database.cluster.execute(f"CREATE ROLE {user} LOGIN")
    with database.cluster.connect(database.name, user=user) as session:
        session.execute("SET application_name = 'auditstore exporter'")
        rights = by_check(examine(cli, code=1))["rights"]
    assert f"the user {user} lacks USAGE on auditstore" in rights["message"]
    assert f'GRANT auditstore_exporter TO "{user}";' in rights["hint"]
    database.cluster.execute(f"DROP ROLE {user}")


# --- the stream ---------------------------------------------------------------------


@pytest.mark.usefixtures("keeper")
def test_events_from_before_the_stream_explain_what_looks_incomplete(
    cli: CommandLine, engine: Engine, tmp_path: Path
) -> None:
    """They are not covered, which is no failure."""
    append(engine, 1, 2)
    place = (tmp_path / "later").as_uri()
    cli.run("stream", "add", "--flow", "flow-1", "--to", place, "--disabled")
    cli.run("stream", "enable", "2")
    with engine.begin() as connection:
        leases.acquire(connection, daemon_id="test", ttl=600, limit=1)
    append(engine, 3)
    found = examine(cli, "--stream", "2", code=0)
    assert "positions 1 to 2 were appended" in by_check(found, 2)["coverage"]["message"]
    assert "positions 1 to 2" in advised(found, INCOMPLETE)["cause"]
    assert advised(found, INCOMPLETE)["stream_ids"] == [2]
    covered = by_check(examine(cli, "--stream", "1", code=0), 1)["coverage"]
    assert covered["message"] == "it covers every event of its flow"


@pytest.mark.usefixtures("keeper")
def test_a_flow_that_never_appended_is_a_likely_cause(cli: CommandLine) -> None:
    """The flow's id may be mistyped, or the engine not append at all."""
    found = examine(cli, code=0)
    assert by_check(found, 1)["flow"]["result"] == "warning"
    assert "no event of the flow flow-1 was ever appended" in advised(found, NO_FILES)["cause"]


@pytest.mark.usefixtures("keeper")
def test_a_disabled_stream(cli: CommandLine) -> None:
    """Its store is tried only where it is asked for by name."""
    cli.run("stream", "disable", "1")
    found = examine(cli, code=0)
    assert "write" not in by_check(found, 1)
    assert "auditstore stream enable 1" in advised(found, NO_FILES)["next_step"]
    assert by_check(examine(cli, "--stream", "1", code=0), 1)["write"]["result"] == "ok"


def test_of_many_streams_those_that_fail_are_shown(cli: CommandLine, tmp_path: Path) -> None:
    """A remedy is told once, a screen is not flooded, and no policy printed that helps nobody."""
    (tmp_path / "there").mkdir()
    for number in range(30):
        to = tmp_path / ("there" if number % 3 else "absent") / f"{number}" / "store"
        if number % 3:
            to.parent.mkdir()
        cli.run("stream", "add", "--flow", f"flow-{number}", "--to", to.as_uri())
    shown = cli.run("doctor", code=1).stdout
    assert shown.index("Stream 1,") < shown.index("Stream 28,") < shown.index("Stream 2,")
    assert "10 more streams not well" in shown
    assert shown.count("See whether the flow engine appends at all") == 1
    assert "needs, and no more" not in shown
    assert len(shown.splitlines()) < 200


# --- the store ----------------------------------------------------------------------


@pytest.fixture
def bucket(strict_s3: StrictS3) -> str:
    """A bucket on the server that checks keys and policies."""
    return strict_s3.bucket()


def allowed(bucket: str, *actions: str) -> dict[str, Any]:
    """A policy that allows this in the bucket."""
    arn = f"arn:aws:s3:::{bucket}"
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": [arn, f"{arn}/*"]}
    return {"Version": "2012-10-17", "Statement": [statement]}


def add(cli: CommandLine, server: StrictS3, bucket: str, user: User) -> None:
    """A credential of the user's, and stream 1 of flow-1 with it."""
    cli.run("credential", "add", "mine", "--kind", "s3", stdin=user.as_lines)
    cli.run("stream", "add", "--flow", "flow-1", "--to", f"s3://{bucket}/some/prefix",
            "--credential", "mine", "--endpoint-url", server.url, "--region", "us-east-1",
            "--max-delay", "0.2")  # fmt: skip


def test_the_printed_policy_is_enough_and_no_more(
    cli: CommandLine, engine: Engine, strict_s3: StrictS3, bucket: str
) -> None:
    """With it an exporter delivers and reconciling works; beside the prefix nothing does."""
    user = strict_s3.user(allowed(bucket, "s3:GetBucketLocation"))
    add(cli, strict_s3, bucket, user)
    denied = examine(cli, code=1)
    assert by_check(denied, 1)["write"]["result"] == "fails"
    assert by_check(denied, 1)["bucket"]["result"] == "unknown"
    assert "AccessDenied" in advised(denied, DENIED)["cause"]
    rights = denied["streams"][0]["least_privilege"]
    assert rights["kind"] == "iam-policy"
    printed = cli.run("doctor", code=1).stdout
    assert orjson.dumps(rights["document"], option=orjson.OPT_INDENT_2).decode() in printed

    strict_s3.allow(user, rights["document"])
    append(engine, 1, 2)
    cli.run("export", "once")
    cli.run("reconcile", "--level", "events")
    tested = cli.json("stream", "test", "1")
    assert {step["result"] for step in tested["steps"]} == {"works"}
    found = by_check(examine(cli, "--stream", "1", code=1), 1)
    assert {found[check]["result"] for check in ("credential", "bucket", "write", "read back",
                                                 "list", "store's clock")} == {"ok"}  # fmt: skip
    assert found["versioning"]["message"] == "not known: needs permission s3:GetBucketVersioning"
    cli.run("stream", "disable", "1")
    other = f"s3://{bucket}/some/other"
    cli.run("stream", "add", "--flow", "flow-2", "--to", other, "--credential", "mine",
            "--endpoint-url", strict_s3.url, "--region", "us-east-1")  # fmt: skip
    refused = cli.run("stream", "test", "2", code=2).stderr
    assert "AccessDenied" in refused
    assert "`auditstore doctor` prints the exact policy" in refused


def test_a_wrong_key_and_a_missing_bucket_are_told_apart(
    cli: CommandLine, strict_s3: StrictS3, bucket: str
) -> None:
    """Each is one finding; what cannot be known after it is said to be so."""
    user = strict_s3.user(allowed(bucket, "s3:*"))
    wrong = User(user.name, {**user.secret, "secret_access_key": "mistyped"})
    add(cli, strict_s3, bucket, wrong)
    found = examine(cli, code=1)
    stream = by_check(found, 1)
    assert "SignatureDoesNotMatch" in stream["credential"]["message"]
    assert {stream[check]["result"] for check in ("bucket", "write")} == {"unknown"}
    assert "versioning" not in stream
    assert advised(found, DENIED)["stream_ids"] == [1]
    cli.run("credential", "rotate", "mine", "--no-check", stdin=user.as_lines)
    assert by_check(examine(cli, code=1), 1)["credential"]["result"] == "ok"

    absent = f"{bucket}-absent"
    cli.run("stream", "add", "--flow", "f", "--to", f"s3://{absent}", "--credential", "mine",
            "--endpoint-url", strict_s3.url, "--region", "us-east-1")  # fmt: skip
    strict_s3.allow(user, {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})  # fmt: skip
    missing = by_check(examine(cli, "--stream", "2", code=1), 2)
    assert "NoSuchBucket" in missing["bucket"]["message"]
    assert missing["credential"]["result"] == "unknown"


def test_versions_are_seen_without_the_right_to_ask(
    cli: CommandLine, strict_s3: StrictS3, bucket: str
) -> None:
    """The store tells them when it takes an object."""
    strict_s3.client("s3").put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    user = strict_s3.user(allowed(bucket, "s3:PutObject"))
    add(cli, strict_s3, bucket, user)
    stream = by_check(examine(cli, code=1), 1)
    assert stream["versioning"]["message"] == "on"
    assert stream["read back"]["result"] == stream["list"]["result"] == "warning"
    assert "until an exporter dies" in stream["read back"]["hint"]


def test_an_azure_container(cli: CommandLine, azurite_server: Azurite) -> None:
    """The whole of it, with the role that it needs; what only the subscription tells is named."""
    container = make_container(azurite_server)
    cli.run("credential", "add", "az", "--kind", "azure", stdin=azurite_server.connection_string)
    cli.run("stream", "add", "--flow", "f", "--to", f"azure://{container}/p", "--credential", "az")
    found = examine(cli, code=1)  # no exporter runs
    stream = by_check(found, 1)
    assert {stream[check]["result"] for check in ("server", "credential", "bucket", "write",
            "read back", "list", "store's clock")} == {"ok"}  # fmt: skip
    assert stream["immutability"]["message"] == "off"
    assert "needs permission Microsoft.Storage/" in stream["versioning"]["message"]
    assert found["streams"][0]["least_privilege"]["kind"] == "azure-role"
    shown = cli.run("doctor", "--stream", "1", code=1).stdout
    assert f"blobServices/default/containers/{container}'" in shown


def test_a_server_that_is_away(cli: CommandLine, unused_port: int) -> None:
    """That is no matter of rights."""
    secret = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    cli.environment = {**cli.environment, **secret}
    cli.run("stream", "add", "--flow", "f", "--to", "s3://some-bucket", "--region", "us-east-1",
            "--endpoint-url", f"http://127.0.0.1:{unused_port}")  # fmt: skip
    found = examine(cli, code=1)
    assert "cannot be reached" in by_check(found, 1)["server"]["message"]
    assert advised(found, DENIED)["cause"] is None
    assert advised(found, NO_FILES)["others"] == 2


def test_a_secret_that_no_key_opens(cli: CommandLine, strict_s3: StrictS3, bucket: str) -> None:
    """The host that runs the doctor, or the exporter, lacks the key."""
    add(cli, strict_s3, bucket, strict_s3.user(allowed(bucket, "s3:*")))
    cli.environment = {**cli.environment, "AUDITSTORE_SECRET_KEYS": ""}
    credential = by_check(examine(cli, code=1), 1)["credential"]
    assert credential["result"] == "fails"
    assert "key" in credential["message"]
