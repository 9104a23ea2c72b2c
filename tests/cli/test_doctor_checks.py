"""The doctor's checks one by one, where the whole would take too long or cannot be made to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text
from support.fences import append, append_one
from support.memory_store import MemoryStore
from support.postgres import Cluster

from auditstore import streams
from auditstore.cli.doctor.database_checks import check_clock, check_server
from auditstore.cli.doctor.fence_checks import check_fence
from auditstore.cli.doctor.findings import DENIED, INCOMPLETE, NO_FILES, Finding
from auditstore.cli.doctor.store_checks import check_store
from auditstore.cli.doctor.verdict import Diagnosis, advice
from auditstore.database import create_engine
from auditstore.objects import Fact, Inspection
from auditstore.sql import grants
from auditstore.streams import NewStream, Stream


def look(engine: Engine, *, too_long: float = 0.0) -> Finding:
    """Watch the fence for a moment."""
    return check_fence(engine, look_for=0.3, too_long=too_long)


def test_a_quiet_and_a_busy_outbox_both_have_a_fence_that_moves(engine: Engine) -> None:
    """Up to what was handed out at the first look."""
    assert look(engine).result == "ok"
    position = append_one(engine)
    found = look(engine)
    assert found.message.endswith(f"up to position {position}")


def test_a_writer_that_stays_open_is_named_with_the_way_to_end_it(engine: Engine) -> None:
    """It is trouble when it lasts, and that is for both symptoms."""
    with engine.connect() as writer:
        append(writer)
        pid = writer.execute(text("SELECT pg_backend_pid()")).scalar_one()
        append_one(engine)
        found = look(engine)
        assert found.result == "fails"
        assert f"process {pid} (user postgres" in found.message
        assert "idle in transaction" in found.message
        assert f"pg_terminate_backend({pid})" in found.hint
        assert found.explains == (NO_FILES, INCOMPLETE)
        assert look(engine, too_long=600).result == "warning"
        writer.rollback()
    assert look(engine).result == "ok"


def test_a_prepared_transaction_is_named_by_its_id(engine: Engine) -> None:
    """It has no process to end, and outlives restarts."""
    with engine.connect() as writer:
        append(writer)
        writer.exec_driver_sql("PREPARE TRANSACTION 'it''s mine'")
    append_one(engine)
    found = look(engine)
    assert "the prepared transaction it's mine" in found.message
    assert "ROLLBACK PREPARED 'it''s mine'" in found.hint
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as plain:
        plain.exec_driver_sql("ROLLBACK PREPARED 'it''s mine'")


@contextmanager
def server_time(engine: Engine) -> Iterator[tuple[Connection, datetime]]:
    """A connection, and its server's clock."""
    with engine.connect() as connection:
        yield connection, datetime.now(UTC)


@pytest.mark.parametrize(
    ("off", "said"), [(3630, "1 h ahead of"), (-3630, "1 h behind"), (0, "agree")]
)
def test_a_host_whose_clock_is_off(engine: Engine, off: int, said: str) -> None:
    """A warning: leases and states go by the server's clock alone."""
    with server_time(engine) as (connection, now):
        host = now + timedelta(seconds=off)
        found = check_clock(connection, host, host + timedelta(seconds=2))
    assert said in found.message
    assert found.result == ("warning" if off else "ok")


def test_what_an_exporter_needs_is_what_the_migration_grants(engine: Engine) -> None:
    """No more and no less: each right that the role has in the schema is on the list."""
    with engine.connect() as connection:
        assert grants.lacking(connection, grants.EXPORTER_ROLE) == []
        granted = {
            tuple(row)
            for row in connection.execute(
                text(
                    "SELECT 'table', table_name, privilege_type, '' "
                    "  FROM information_schema.table_privileges"
                    "  WHERE grantee = :role AND table_schema = 'auditstore'"
                    " UNION ALL SELECT 'column', table_name, privilege_type, column_name"
                    "  FROM information_schema.column_privileges c"
                    "  WHERE grantee = :role AND table_schema = 'auditstore' AND NOT EXISTS ("
                    "    SELECT FROM information_schema.table_privileges t"
                    "    WHERE (t.grantee, t.table_schema, t.table_name, t.privilege_type)"
                    "      = (c.grantee, c.table_schema, c.table_name, c.privilege_type))"
                    " UNION ALL SELECT 'function', routine_name, privilege_type, ''"
                    "  FROM information_schema.routine_privileges"
                    "  WHERE grantee = :role AND routine_schema = 'auditstore'"
                ),
                {"role": grants.EXPORTER_ROLE},
            )
        }
    listed = {
        (right.kind, right.object.partition("(")[0], right.privilege, right.column)
        for right in grants.EXPORTER_NEEDS
        if right.kind != "schema"
    }
    assert listed == granted


class Clocked(MemoryStore):
    """A store that says of itself what it is told to."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self.ahead = ahead

    def inspect(self, now: object) -> Inspection:  # noqa: ARG002  # the protocol's
        """One fact that it keeps to itself."""
        return Inspection((Fact("versioning", None, "s3:GetBucketVersioning"),), self.ahead)


@pytest.fixture
def stream(engine: Engine) -> Stream:
    """Some stream."""
    with engine.begin() as connection:
        return streams.add(connection, NewStream("f", "s3://some-bucket/p"), actor="me")


@pytest.mark.parametrize(
    ("ahead", "result", "said"),
    [(2.0, "ok", "agree"), (300.0, "warning", "5 min behind"), (-1000.0, "fails", "ahead of")],
)
def test_a_store_whose_clock_differs(stream: Stream, ahead: float, result: str, said: str) -> None:
    """From 15 minutes on requests are refused, so that explains `access denied`."""
    found = {each.check: each for each in
             check_store(Clocked(ahead), stream, lambda: datetime.now(UTC))}  # fmt: skip
    clock = found["store's clock"]
    assert clock.result == result
    assert said in clock.message
    assert (DENIED in clock.explains) == (result != "ok")
    assert found["versioning"].message == "not known: needs permission s3:GetBucketVersioning"


def test_a_store_that_is_spoken_to_in_clear_text_is_told(engine: Engine) -> None:
    """Somebody has meant it once; whoever looks now should know."""
    new = NewStream("f", "s3://some-bucket/p", "http://stores.example.com",
                    options={"insecure_http": "yes"})  # fmt: skip
    with engine.begin() as connection:
        stream = streams.add(connection, new, actor="me")
    found = {each.check: each for each in
             check_store(Clocked(0.0), stream, lambda: datetime.now(UTC))}  # fmt: skip
    assert found["server"].result == "warning"
    assert "http://stores.example.com answers" in found["server"].message
    assert "unencrypted" in found["server"].message
    assert "https://" in found["server"].hint


def test_a_database_that_need_not_prove_itself_is_told(cluster: Cluster) -> None:
    """By its URL or PGSSLMODE less was asked for than is usual."""
    here = f"postgresql://postgres@127.0.0.1:{cluster.port}/postgres"
    away = f"postgresql://postgres@db.example.com:{cluster.port}/postgres?hostaddr=127.0.0.1"
    for url, result in [(here, "ok"), (f"{away}&sslmode=disable", "warning")]:
        engine = create_engine(url)
        with engine.connect() as connection:
            found = check_server(connection, engine)
        engine.dispose()
        assert found.result == result
        assert ("as sslmode=disable asks for" in found.message) == (result == "warning")


def test_the_verdict_is_the_first_failure_on_the_way(stream: Stream) -> None:  # noqa: ARG001
    """A failure before a warning; and what keeps files away makes events look incomplete."""
    general = [
        Finding("a", "warning", "a little", "Do A.", (NO_FILES,)),
        Finding("b", "fails", "much", "Do B.", (NO_FILES,)),
        Finding("c", "fails", "more", "Do C.", (NO_FILES, DENIED)),
        Finding("d", "ok", "well", "", (NO_FILES,)),
    ]
    found = {each.symptom: each for each in advice(Diagnosis(general))}
    assert (found[NO_FILES].cause, found[NO_FILES].next_step) == ("much", "Do B.")
    assert found[NO_FILES].others == 2
    assert (found[INCOMPLETE].cause, found[INCOMPLETE].others) == ("much", 1)
    assert found[DENIED].cause == "more"
