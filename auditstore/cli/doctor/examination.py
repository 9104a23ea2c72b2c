"""The whole examination, from the database to each stream's store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.doctor import database_checks, fence_checks, stream_checks
from auditstore.cli.doctor.findings import INCOMPLETE, NO_FILES, Finding, Findings, failure, unknown
from auditstore.cli.doctor.least_privilege import least_privilege
from auditstore.cli.doctor.store_checks import check_store, open_checked
from auditstore.cli.doctor.verdict import Diagnosis, Examined
from auditstore.cli.overview import StreamProgress, progress_of
from auditstore.cli.stores import store_opener
from auditstore.cli.wording import number
from auditstore.errors import AuditStoreError, NotFound
from auditstore.objects import ObjectStore
from auditstore.sql import leases, server
from auditstore.sql.failures import translated
from auditstore.streams import Stream

_STORES_AT_ONCE: Final = 8


def now() -> datetime:
    """This host's clock."""
    return datetime.now(UTC)


def examine(session: Session, stream_id: int | None, say: Callable[[str], None]) -> Diagnosis:
    """Look at everything, or at what one stream needs; NotFound for one that is not there.

    What is wrong becomes a finding, never an error.
    """
    general = Findings()
    say("Looking at the database")
    try:
        engine = session.engine
        with translated(), engine.connect() as connection:
            general.append(database_checks.check_server(connection, engine))
            general.append(database_checks.check_primary(connection))
            if not _look_at_database(connection, general):
                return Diagnosis(general, complete=False)
            say("Watching the fence")
            _look_at_exporters(engine, connection, general)
            examined = _streams(session, connection, stream_id, say)
    except NotFound:
        raise
    except AuditStoreError as error:
        # Before anything was found it is the server itself, afterwards what the rights explain.
        general.append(
            unknown("streams", error.message) if general
            else failure("database", error, NO_FILES, INCOMPLETE)
        )  # fmt: skip
        return Diagnosis(general, complete=False)
    return Diagnosis(general, examined)


def _look_at_database(connection: Connection, general: Findings) -> bool:
    """Schema, rights, sequence, clock; whether the schema is one that can be asked more."""
    with general.looking("schema", NO_FILES), translated():
        general.append(database_checks.check_schema(connection))
        if general[-1].result != "ok":
            return False
    connection.rollback()
    with general.looking("rights", NO_FILES), translated():
        general.append(database_checks.check_rights(connection))
    connection.rollback()
    with general.looking("sequence", NO_FILES), translated():
        general.append(database_checks.check_sequence(connection))
    connection.rollback()
    general.append(database_checks.check_clock(connection, now(), now()))
    return True


def _look_at_exporters(engine: Engine, connection: Connection, general: Findings) -> None:
    if any(finding.check == "primary" and finding.is_bad for finding in general):
        general.append(unknown("fence", "a standby does not show who is writing"))
    else:
        with general.looking("fence", NO_FILES, INCOMPLETE), translated():
            general.append(fence_checks.check_fence(engine))
    fence = general[-1]
    with general.looking("exporter", NO_FILES), translated():
        daemons = leases.list_daemons(connection)
        general.append(stream_checks.check_daemons(daemons))
        theirs = fence_checks.check_daemons_fences(daemons, fence)
        if theirs is not None:
            general.append(theirs)
    connection.rollback()


def _streams(
    session: Session, connection: Connection, stream_id: int | None, say: Callable[[str], None]
) -> list[Examined]:
    with translated():
        wanted = (
            streams.find(connection) if stream_id is None else [streams.get(connection, stream_id)]
        )
        daemons = leases.list_daemons(connection)
        current = server.clock(connection)
        in_database = {
            each.stream_id: _in_database(connection, each, daemons, current) for each in wanted
        }
        stores: dict[int, ObjectStore] = {}
        for each in wanted:
            # A disabled stream's store is tried when it is asked for by name.
            if each.enabled or stream_id is not None:
                store = open_checked(
                    connection, each, store_opener(session.vault), in_database[each.stream_id]
                )
                if store is not None:
                    stores[each.stream_id] = store
        # Stores take their time; nothing is held in the database meanwhile.
        connection.rollback()
    say(f"Trying {number(len(stores), 'store')}")

    def at_store(stream: Stream) -> list[Finding]:
        store = stores.get(stream.stream_id)
        if store is None:
            return []
        with closing(store):
            return list(check_store(store, stream, now))

    with ThreadPoolExecutor(_STORES_AT_ONCE, thread_name_prefix="doctor") as pool:
        at_stores = list(pool.map(at_store, wanted))
    return [
        Examined(each, [*in_database[each.stream_id], *found], least_privilege(each))
        for each, found in zip(wanted, at_stores, strict=True)
    ]


def _in_database(
    connection: Connection, stream: Stream, daemons: Sequence[object], current: datetime
) -> Findings:
    found = Findings()
    progress: StreamProgress = progress_of(connection, stream, daemons, current)
    found.append(stream_checks.check_state(stream, current))
    keeper = stream_checks.check_keeper(progress, daemons)
    if keeper is not None:
        found.append(keeper)
    found.append(stream_checks.check_waiting(progress, current))
    found += stream_checks.check_coverage(connection, stream)
    return found
