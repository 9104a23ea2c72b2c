"""Checks of the database: reachable, primary, schema, rights, sequence, clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

from sqlalchemy import Connection, Engine

from auditstore import database, transport
from auditstore.cli.doctor.findings import DENIED, INCOMPLETE, NO_FILES, Finding
from auditstore.cli.wording import age
from auditstore.errors import SchemaOutdated
from auditstore.sql import fence, grants, server
from auditstore.sql.grants import Right

#: The name that the daemon's connections have.
EXPORTER_APPLICATION: Final = "auditstore exporter"
# Correctness needs no local clock; from here on logs and the store's are hard to compare.
_SKEW_S: Final = 5.0


def check_server(connection: Connection, engine: Engine) -> Finding:
    """It answers: where it is, as whom we are there, and whether it must prove who it is."""
    url = engine.url
    host = url.host or url.query.get("host") or "its local socket"
    seen = (
        f"PostgreSQL {server.version(connection)} at {host}, database {url.database}, "
        f"user {grants.current_user(connection)}"
    )
    if weak := transport.weakness(url):
        return Finding(
            "database", "warning", f"{seen}; {weak}",
            "Write sslmode=verify-full into the URL (or PGSSLMODE), with sslrootcert where the "
            "server's certificate is from an authority of your own.",
        )  # fmt: skip
    return Finding("database", "ok", seen)


def check_primary(connection: Connection) -> Finding:
    """Only a primary shows who is writing, and takes what the exporter records."""
    if not server.is_standby(connection):
        return Finding("primary", "ok", "it is the primary")
    return Finding(
        "primary", "fails", "this server is a standby: nothing can be recorded on it, and it "
        "does not show who is writing",
        "Point AUDITSTORE_DATABASE_URL at the primary, or promote this one.",
        (NO_FILES,),
    )  # fmt: skip


def check_schema(connection: Connection) -> Finding:
    """The tables are those that this version works with."""
    try:
        database.check_schema(connection)
    except SchemaOutdated as error:
        return Finding("schema", "fails", error.message, error.hint, (NO_FILES,))
    return Finding("schema", "ok", "it is the one that this version needs")


def check_rights(connection: Connection) -> Finding:
    """This user, and whom the running exporters connect as, may do what an exporter does."""
    me = grants.current_user(connection)
    others = grants.users_of(connection, EXPORTER_APPLICATION)
    users = [*others, *({me} - set(others))]
    lacking = {user: grants.lacking(connection, user) for user in users}
    poor = [user for user in users if lacking[user]]
    if not poor:
        names = " and ".join(users)
        return Finding("rights", "ok", f"what an exporter needs is allowed to {names}")
    hints = [_grants(connection, user, lacking[user]) for user in poor]
    return Finding(
        "rights", "fails",
        "; ".join(f"the user {user} lacks {_in_words(lacking[user])}" for user in poor),
        "As the owner of the schema: " + " ".join(dict.fromkeys(hints)),
        (NO_FILES, DENIED),
    )  # fmt: skip


def _in_words(rights: Sequence[Right], *, most: int = 4) -> str:
    named = [
        f"{right.privilege} on {right.object}" + (f" ({columns})" if columns else "")
        for right, columns in _by_object(rights)
    ]
    more = len(named) - most
    return ", ".join(named[:most]) + (f" and {more} more" if more > 0 else "")


def _grants(connection: Connection, user: str, rights: Sequence[Right]) -> str:
    """Statements that give what is lacking: to the role, where the user has it."""
    if not grants.is_exporter(connection, user):
        return f'GRANT {grants.EXPORTER_ROLE} TO "{user}";'
    return " ".join(
        f"GRANT {right.privilege}{f' ({columns})' if columns else ''} ON "
        f"{_KINDS[right.kind]}{right.object} TO {grants.EXPORTER_ROLE};"
        for right, columns in _by_object(rights)
    )


_KINDS: Final = {
    "schema": "SCHEMA ", "function": "FUNCTION auditstore.", "table": "auditstore.",
    "column": "auditstore.",
}  # fmt: skip


def _by_object(rights: Iterable[Right]) -> list[tuple[Right, str]]:
    """One right an object and privilege, with its columns."""
    grouped = groupby(rights, key=lambda right: (right.object, right.privilege))
    return [
        (same[0], ", ".join(right.column for right in same if right.column))
        for same in (list(group) for _, group in grouped)
    ]


def check_sequence(connection: Connection) -> Finding:
    """Positions are handed out one by one."""
    cache = fence.sequence_cache(connection)
    if cache == 1:
        return Finding("sequence", "ok", "positions are handed out one by one")
    return Finding(
        "sequence", "fails",
        f"the outbox's sequence has CACHE {cache}, so a lower position may come later; the "
        "exporter refuses to work",
        "Run ALTER TABLE auditstore.events ALTER COLUMN position SET CACHE 1 while no flow "
        "engine is connected.",
        (NO_FILES, INCOMPLETE),
    )  # fmt: skip


def check_clock(connection: Connection, before: datetime, after: datetime) -> Finding:
    """This host's clock, which said ``before`` just now and says ``after`` soon, and the
    server's. Leases and states go by the server's; only people compare the two.
    """
    now = server.clock(connection)
    ahead = max((before - now).total_seconds(), (now - after).total_seconds(), 0.0)
    if ahead < _SKEW_S:
        return Finding("clock", "ok", "this host's clock and the database's agree")
    side = "ahead of" if before > now else "behind"
    return Finding(
        "clock", "warning", f"this host's clock is {age(ahead)} {side} the database's",
        "Set both by NTP. Delivering does not depend on it, but stores refuse requests whose time "
        "is off by more than 15 minutes.",
    )  # fmt: skip
