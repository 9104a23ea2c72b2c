"""What each role may do: every privilege in the catalog, and whole jobs under each role alone.

The matrix is the complete list. A new table, function or grant that is not written down here
fails the first test.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from support.commands import CommandLine
from support.export_command import running_exporter
from support.fixtures_postgres import Database
from support.sample_events import snapshot

from auditstore import EventRepository, streams
from auditstore.database import create_engine
from auditstore.errors import DatabaseRefused
from auditstore.sql.failures import translated
from auditstore.streams import NewStream
from auditstore.vault import new_key

WRITER, EXPORTER, READER = "auditstore_writer", "auditstore_exporter", "auditstore_reader"
ROLES = (WRITER, EXPORTER, READER)
# The server fills these two itself.
APPENDED = [
    "event_id", "flow_id", "lead_id", "type", "outcome", "reason", "step_id", "started_at",
    "ended_at", "payload", "size_bytes", "sha256",
]  # fmt: skip
SEALED = [
    "stream_id", "sequence", "first_position", "last_position", "event_count", "content_bytes",
    "first_recorded_at", "last_recorded_at", "format", "encoder", "object_key", "sealed_at",
]  # fmt: skip
DELIVERED = [
    "delivered_at", "content_sha256", "object_bytes", "object_sha256", "etag", "version_id",
    "previous_hash", "row_hash",
]  # fmt: skip
MARKS = [
    "sealed_sequence", "sealed_position", "delivered_sequence", "delivered_position", "chain_hash",
    "history", "state", "state_code", "state_cause", "state_hint", "state_since", "attempts",
    "next_try_at", "lease_owner", "lease_until",
]  # fmt: skip
KEPT = [
    "started_at", "ended_at", "actor", "scope", "result", "counts", "heads", "report", "sha256",
]  # fmt: skip
#: (role, kind, object, privilege): all there are, besides the owner's own.
MATRIX = {
    *((role, "schema", "auditstore", "USAGE") for role in ROLES),
    *((WRITER, "column", f"events.{name}", "INSERT") for name in APPENDED),
    (WRITER, "function", "stored_hashes", "EXECUTE"),
    *(
        (EXPORTER, "table", name, "SELECT")
        for name in (
            "events", "streams", "stream_intervals", "files", "credentials", "changes", "daemons",
            "state_changes", "alembic_version", "imports", "imported_events", "verified",
            "schedules",
        )
    ),
    *((EXPORTER, "column", f"files.{name}", "INSERT") for name in SEALED),
    *((EXPORTER, "column", f"files.{name}", "UPDATE") for name in DELIVERED),
    *((EXPORTER, "column", f"streams.{name}", "UPDATE") for name in MARKS),
    *((EXPORTER, "table", "daemons", each) for each in ("INSERT", "UPDATE", "DELETE")),
    *((EXPORTER, "table", "verified", each) for each in ("INSERT", "UPDATE", "DELETE")),
    *((EXPORTER, "table", "schedules", each) for each in ("INSERT", "UPDATE")),
    (EXPORTER, "table", "reconciliations", "SELECT"),
    *((EXPORTER, "column", f"reconciliations.{name}", "INSERT") for name in KEPT),
    (EXPORTER, "function", "last_position", "EXECUTE"),
    (EXPORTER, "function", "make_partitions", "EXECUTE"),
    (EXPORTER, "function", "open_writers", "EXECUTE"),
    (READER, "table", "events", "SELECT"),
}  # fmt: skip
# Everything in the schema, partitions and sequences too; where nothing was ever granted, what
# the server gives by default, which for functions is EXECUTE to everybody.
GRANTED = """
WITH acl (kind, object, acl, owner) AS (
    SELECT 'schema', nspname::text, coalesce(nspacl, acldefault('n', nspowner)), nspowner
    FROM pg_namespace WHERE nspname = 'auditstore'
    UNION ALL
    SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, relname,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)),
        relowner
    FROM pg_class WHERE relnamespace = 'auditstore'::regnamespace
        AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'column', relname || '.' || attname, attacl, relowner
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE relnamespace = 'auditstore'::regnamespace AND attacl IS NOT NULL AND NOT attisdropped
    UNION ALL
    SELECT 'function', proname, coalesce(proacl, acldefault('f', proowner)), proowner
    FROM pg_proc WHERE pronamespace = 'auditstore'::regnamespace
)
SELECT coalesce(rolname, 'PUBLIC'), kind, object, privilege_type
FROM acl CROSS JOIN LATERAL aclexplode(acl) AS each
LEFT JOIN pg_roles ON pg_roles.oid = each.grantee
WHERE each.grantee <> acl.owner
"""
INSERTED = (
    "event_id, flow_id, payload, size_bytes, sha256) VALUES"
    " ('6924f1c0a1b2c3d4e5f60718', 'f', '{}', 2, sha256('{}'))"
)


@pytest.fixture
def any_engine(database_any: Database) -> Iterator[sa.Engine]:
    """An engine on a fresh database of each version."""
    made = sa.create_engine(database_any.url)
    yield made
    made.dispose()


class Login:
    """A user that has one of the roles and nothing else."""

    def __init__(self, database: Database, role: str) -> None:
        self.name = f"login_{secrets.token_hex(6)}"
        self.url = database.cluster.url(database.name, user=self.name)
        database.cluster.execute(f"CREATE ROLE {self.name} LOGIN IN ROLE {role}")


def refused(engine: sa.Engine, statement: str, *, role: str) -> str:
    """Run a statement that must fail; return the server's words."""
    with engine.connect() as connection:
        connection.execute(sa.text(f"SET ROLE {role}"))
        with pytest.raises(DBAPIError) as error:
            connection.execute(sa.text(statement))
    return str(error.value.orig)


def allowed(engine: sa.Engine, statement: str, *, role: str) -> None:
    """Run a statement that must pass, and roll it back."""
    with engine.connect() as connection:
        connection.execute(sa.text(f"SET ROLE {role}"))
        connection.execute(sa.text(statement))


# --- the catalog --------------------------------------------------------------------


def test_the_catalog_grants_what_is_written_here_and_nothing_else(any_engine: sa.Engine) -> None:
    """Tables, partitions, sequences, columns, functions, the schema: whatever others may do."""
    with any_engine.begin() as connection:
        connection.execute(sa.text("SELECT auditstore.make_partitions('month', now(), 20)"))
        found = {tuple(row) for row in connection.execute(sa.text(GRANTED))}

    assert found - MATRIX == set(), "granted, and not written down"
    assert MATRIX - found == set(), "written down, and not granted"


def test_the_roles_are_bare(any_engine: sa.Engine) -> None:
    """No login, no attribute, no membership in each other, no default for what comes later."""
    with any_engine.connect() as connection:
        odd = connection.execute(
            sa.text(
                "SELECT rolname FROM pg_roles WHERE rolname = ANY (:roles) AND (rolcanlogin OR"
                " rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR"
                " EXISTS (SELECT 1 FROM pg_auth_members WHERE member = pg_roles.oid))"
            ),
            {"roles": list(ROLES)},
        ).all()
        defaults = connection.execute(sa.text("SELECT * FROM pg_default_acl")).all()
        known = connection.execute(
            sa.text("SELECT count(*) FROM pg_roles WHERE rolname = ANY (:roles)"),
            {"roles": list(ROLES)},
        ).scalar_one()

    assert (known, odd, defaults) == (3, [], [])


def test_what_runs_as_the_owner_cannot_be_led_astray(any_engine: sa.Engine) -> None:
    """Functions with the owner's rights resolve names in the system's schema first."""
    with any_engine.connect() as connection:
        loose = connection.scalars(
            sa.text(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'auditstore'::regnamespace"
                " AND prosecdef AND NOT ('search_path=pg_catalog, pg_temp' = ANY (proconfig))"
            )
        ).all()
        owners = connection.scalars(
            sa.text(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'auditstore'::regnamespace"
                " AND prosecdef ORDER BY 1"
            )
        ).all()

    assert loose == []
    assert owners == [
        "last_position", "make_partitions", "open_writers", "record_state", "stored_hashes",
    ]  # fmt: skip


# --- the writer ---------------------------------------------------------------------


def test_the_writer_reads_changes_and_numbers_nothing(any_engine: sa.Engine) -> None:
    """Each way to read, to alter, to choose a position or to see a credential is refused."""
    with any_engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO auditstore.events (" + INSERTED))
    for statement in (
        "SELECT event_id FROM auditstore.events",
        "SELECT payload FROM auditstore.events_default",
        "SELECT count(*) FROM auditstore.events",
        "INSERT INTO auditstore.events (" + INSERTED + " RETURNING payload",
        "COPY auditstore.events TO STDOUT",
        "COPY auditstore.events (position, event_id, flow_id, payload) FROM STDIN",
        "UPDATE auditstore.events SET reason = 'x'",
        "INSERT INTO auditstore.events (" + INSERTED + " ON CONFLICT (flow_id, event_id)"
        " DO UPDATE SET reason = 'x'",
        "MERGE INTO auditstore.events e USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        "DELETE FROM auditstore.events",
        "TRUNCATE auditstore.events",
        "LOCK auditstore.events IN ACCESS EXCLUSIVE MODE",
        "INSERT INTO auditstore.events (position, "
        + INSERTED.replace("VALUES (", "OVERRIDING SYSTEM VALUE VALUES (1, "),
        "INSERT INTO auditstore.events (recorded_at, "
        + INSERTED.replace("VALUES (", "VALUES (now(), "),
        "INSERT INTO auditstore.events_default (" + INSERTED,
        "SELECT nextval('auditstore.events_position_seq')",
        "SELECT setval('auditstore.events_position_seq', 1)",
        "SELECT last_value FROM auditstore.events_position_seq",
        "SELECT auditstore.last_position()",
        "SELECT * FROM auditstore.open_writers()",
        "SELECT auditstore.make_partitions('day', now(), 1)",
        "SELECT ciphertext FROM auditstore.credentials",
        "SELECT name FROM auditstore.credentials",
        "SELECT url FROM auditstore.streams",
        "SELECT object_key FROM auditstore.files",
        "SELECT after FROM auditstore.changes",
        "CREATE TABLE auditstore.mine (a int)",
        "CREATE TRIGGER t BEFORE INSERT ON auditstore.events EXECUTE FUNCTION suppress()",
    ):  # fmt: skip
        words = refused(any_engine, statement, role=WRITER)
        assert "permission denied" in words or "must be owner" in words, statement


@pytest.mark.parametrize(
    ("columns", "values", "guard"),
    [
        ("size_bytes", "3, '{}'", "events_size_check"),
        ("size_bytes", "3, E'{\\n}'", "events_line_check"),
        ("size_bytes", "3, E'{\\r}'", "events_line_check"),
        ("flow_id, size_bytes", "'', 2, '{}'", "events_flow_id_check"),
        ("flow_id, size_bytes", "repeat('x', 256), 2, '{}'", "events_flow_id_check"),
        ("lead_id, size_bytes", "repeat('x', 256), 2, '{}'", "events_lead_id_check"),
    ],
)
def test_a_writer_past_the_library_cannot_harm_a_file(
    any_engine: sa.Engine, columns: str, values: str, guard: str
) -> None:
    """A size that is not the payload's, a second line in one event, an id that no key can hold."""
    names, given = ("", "") if "flow_id" in columns else ("flow_id, ", "'f', ")
    statement = (
        f"INSERT INTO auditstore.events (event_id, {names}{columns}, payload, sha256)"
        f" VALUES ('6924f1c0a1b2c3d4e5f60718', {given}{values}, sha256('{{}}'))"
    )
    assert guard in refused(any_engine, statement, role=WRITER)


def test_appending_works_as_the_writer_alone(database_any: Database) -> None:
    """By INSERT and by COPY, and again; reading is refused in words that name the role to grant."""
    engine = create_engine(Login(database_any, WRITER).url)
    repository = EventRepository()
    many = [snapshot(number) for number in range(5)]
    with engine.begin() as connection:
        assert repository.append(connection, many).appended == 5
        assert repository.append(connection, many).existing == 5
        assert repository.append(connection, snapshot(5)).appended == 1
        assert repository.append(connection, [snapshot(5), snapshot(6), snapshot(7)]).appended == 2
    with engine.connect() as connection, pytest.raises(DatabaseRefused) as error, translated():
        repository.find(connection)
    assert "auditstore_reader" in error.value.hint
    engine.dispose()


# --- the exporter -------------------------------------------------------------------


def test_the_exporter_neither_appends_nor_changes_settings(any_engine: sa.Engine) -> None:
    """Not the outbox, not what is sealed, not where a stream goes, not a secret, not the record."""
    for statement in (
        "INSERT INTO auditstore.events (" + INSERTED,
        "INSERT INTO auditstore.events_default (" + INSERTED,
        "UPDATE auditstore.events SET payload = '{}'",
        "DELETE FROM auditstore.events",
        "TRUNCATE auditstore.events",
        "DROP TABLE auditstore.events_default",
        "SELECT nextval('auditstore.events_position_seq')",
        "SELECT * FROM auditstore.stored_hashes('{}', '{}')",
        "INSERT INTO auditstore.streams DEFAULT VALUES",
        "DELETE FROM auditstore.streams",
        *(
            f"UPDATE auditstore.streams SET {column} = NULL"
            for column in (
                "flow_id", "url", "endpoint_url", "location", "region", "credential_id", "options",
                "format", "key_template", "max_bytes", "max_events", "max_delay", "enabled",
                "created_at", "changed_at",
            )
        ),
        "INSERT INTO auditstore.stream_intervals (stream_id, from_position) VALUES (1, 1)",
        "UPDATE auditstore.stream_intervals SET to_position = 1",
        "UPDATE auditstore.files SET object_key = 'x'",
        "UPDATE auditstore.files SET event_count = 1",
        "DELETE FROM auditstore.files",
        "TRUNCATE auditstore.files",
        "INSERT INTO auditstore.credentials (name) VALUES ('a')",
        "UPDATE auditstore.credentials SET ciphertext = 'x'",
        "DELETE FROM auditstore.credentials",
        "DELETE FROM auditstore.changes",
        "UPDATE auditstore.changes SET actor = 'x'",
        "ALTER TABLE auditstore.events DISABLE TRIGGER ALL",
        "SET session_replication_role = 'replica'",
        "CREATE TABLE auditstore.mine (a int)",
    ):  # fmt: skip
        words = refused(any_engine, statement, role=EXPORTER)
        assert re.search("permission denied|must be owner", words), statement


def test_the_exporter_cannot_fill_the_catalog_with_partitions(any_engine: sa.Engine) -> None:
    """The function that it may call takes a hundred partitions at a time, up to 2100."""
    allowed(any_engine, "SELECT auditstore.make_partitions('day', now(), 100)", role=EXPORTER)
    for arguments in ("'day', now(), 1000000", "'day', now(), -1", "'month', '2500-01-01', 1"):
        statement = f"SELECT auditstore.make_partitions({arguments})"
        assert "at most 100 partitions" in refused(any_engine, statement, role=EXPORTER)
    hostile = "SELECT auditstore.make_partitions('day''); DROP TABLE x; --', now(), 1)"
    assert "by month or by day" in refused(any_engine, hostile, role=EXPORTER)


@pytest.mark.parametrize("form", ["ndjson.gz", "json"])
def test_a_whole_exporter_works_as_the_exporter_alone(
    database: Database, engine: sa.Engine, tmp_path: Path, form: str
) -> None:
    """The daemon, `export once`, status, reconciling and repairing need nothing more."""
    folder = tmp_path / "out"
    with engine.begin() as connection:
        new = NewStream("flow-1", folder.as_uri(), format=form)  # type: ignore[arg-type]  # one of both
        stream = streams.add(connection, new, actor="test")
        EventRepository().append(connection, [snapshot(number) for number in range(4)])
    settings = {
        "AUDITSTORE_DATABASE_URL": Login(database, EXPORTER).url,
        "AUDITSTORE_SECRET_KEYS": new_key(),
    }
    with running_exporter(settings) as exporter:
        exporter.wait_for("delivered", stream=stream.stream_id)
        assert exporter.stop() == 0
    said = "\n".join(exporter.lines)
    assert "permission" not in said
    assert "waiting" not in said
    cli = CommandLine(settings)
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(number) for number in range(4, 9)])
    assert cli.json("export", "once")["streams"][0]["events"] == 5
    for path in [path for path in folder.rglob("*") if path.is_file()][:2]:
        path.unlink()
    cli.run("reconcile", "--level", "events", code=1)
    cli.run("reconcile", "--level", "events", "--repair")
    export = tmp_path / "export.ndjson"
    export.write_bytes(b"\n".join(snapshot(number) for number in range(9)))
    cli.run("reconcile", "--source", str(export), "--against", "outbox", "--against", "cloud")
    said, hint = cli.error("import", str(export))
    assert "permission denied" in said
    assert "auditstore migrate" in hint
    assert cli.json("status")["streams"][0]["state"] == "streaming"
    assert cli.json("stream", "list")[0]["stream_id"] == stream.stream_id
    cli.run("stream", "show", str(stream.stream_id))
    said, hint = cli.error("stream", "disable", str(stream.stream_id))
    assert "permission denied" in said
    assert "auditstore migrate" in hint


# --- the reader ---------------------------------------------------------------------


def test_the_reader_sees_events_only(any_engine: sa.Engine) -> None:
    """Every other table, function and sequence is closed to it, and it changes nothing."""
    allowed(any_engine, "SELECT payload FROM auditstore.events", role=READER)
    tables = (
        "streams", "stream_intervals", "files", "credentials", "changes", "daemons",
        "alembic_version",
    )  # fmt: skip
    for statement in (
        "INSERT INTO auditstore.events (" + INSERTED,
        "UPDATE auditstore.events SET reason = 'x'",
        "DELETE FROM auditstore.events",
        "TRUNCATE auditstore.events",
        *(f"SELECT * FROM auditstore.{table}" for table in tables),
        "SELECT last_value FROM auditstore.events_position_seq",
        "SELECT auditstore.last_position()",
        "SELECT * FROM auditstore.open_writers()",
        "SELECT * FROM auditstore.stored_hashes('{}', '{}')",
        "SELECT auditstore.make_partitions('day', now(), 1)",
    ):
        assert "permission denied" in refused(any_engine, statement, role=READER), statement


def test_events_are_listed_and_shown_as_the_reader_alone(
    database: Database, engine: sa.Engine, tmp_path: Path
) -> None:
    """It finds and prints events, is told where they lie nowhere, and may not reconcile."""
    with engine.begin() as connection:
        streams.add(connection, NewStream("flow-1", tmp_path.as_uri()), actor="test")
        EventRepository().append(connection, [snapshot(number) for number in range(3)])
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": Login(database, READER).url})
    listed = cli.run("events", "list", "--json").stdout.splitlines()
    assert len(listed) == 3
    event_id = re.search('"id": ?"([0-9a-f]{24})"', listed[0])[1]  # type: ignore[index]  # it is there
    assert "may read events, not streams" in cli.run("events", "show", event_id).stdout
    for command in ("reconcile", "status"):
        said, hint = cli.error(command)
        assert "permission denied" in said
        assert "auditstore_exporter" in hint
