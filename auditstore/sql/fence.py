"""What the lock fence asks the server. Each function is one statement, on purpose.

The order matters: the last position first, then the holders, then, in a new statement, the
events. See ``docs/explanation/tailing.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from auditstore.sql.server import RUN, clock

_WRITERS: Final = (
    "SELECT DISTINCT l.virtualtransaction, l.pid"
    " FROM pg_locks l WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    # The partitions too: whoever owns them can insert into one directly.
    " AND l.relation IN (SELECT relid FROM pg_partition_tree('auditstore.events'))"
)
_HIGH_WATER: Final = text(f"SELECT auditstore.last_position() AS position, {RUN} AS run")
_WRITERS_AND_RUN: Final = text(
    f"SELECT ARRAY(SELECT virtualtransaction FROM ({_WRITERS}) w) AS writers, {RUN} AS run"  # noqa: S608  # constants of ours
)
_DETAILS: Final = text(
    "SELECT a.usename AS user_name, a.application_name AS application, a.state,"
    " left(a.query, 200) AS query, p.gid AS prepared,"
    " extract(epoch FROM CAST(:now AS timestamptz) - coalesce(a.xact_start, p.prepared))::float"
    "   AS age"
    " FROM (SELECT CAST(:pid AS integer) AS pid) h"
    " LEFT JOIN pg_stat_activity a ON a.pid = h.pid"
    " LEFT JOIN pg_locks x ON h.pid IS NULL AND x.locktype = 'transactionid' AND x.granted"
    "   AND x.virtualtransaction = :virtualtransaction"
    " LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid"
    " LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class HighWater:
    """The position handed out last, and in which run of the server."""

    position: int
    run: str


def high_water(connection: Connection) -> HighWater:
    """H: every position handed out so far is at most this."""
    row = connection.execute(_HIGH_WATER).one()
    return HighWater(position=row.position, run=row.run)


@dataclass(frozen=True, slots=True)
class Writers:
    """Virtual transactions, and the run of the server outside which they mean nothing."""

    virtualtransactions: frozenset[str]
    run: str


def writers(connection: Connection) -> Writers:
    """S: the virtual transactions that have inserted into the outbox and are not over.

    Prepared transactions are among them; they have no pid, so nothing is joined here.
    """
    row = connection.execute(_WRITERS_AND_RUN).one()
    return Writers(virtualtransactions=frozenset(row.writers), run=row.run)


@dataclass(frozen=True, slots=True)
class OpenWriter:
    """A transaction that holds the fence back. ``age`` in seconds.

    A prepared transaction has its gid in ``prepared`` and no pid. What another user runs is
    visible to members of ``pg_read_all_stats`` only.
    """

    virtualtransaction: str
    pid: int | None
    user_name: str | None
    application: str | None
    state: str | None
    query: str | None
    prepared: str | None
    age: float | None


def open_writers(connection: Connection) -> list[OpenWriter]:
    """Who holds the fence back, oldest first."""
    found = []
    writers = connection.execute(text(_WRITERS)).all()
    # One moment for all, or the one that is asked about last would seem older than it is.
    now = clock(connection)
    for writer in writers:
        asked = {"pid": writer.pid, "virtualtransaction": writer.virtualtransaction, "now": now}
        detail = connection.execute(_DETAILS, asked).one()
        found.append(
            OpenWriter(
                virtualtransaction=writer.virtualtransaction, pid=writer.pid,
                user_name=detail.user_name, application=detail.application, state=detail.state,
                query=detail.query, prepared=detail.prepared, age=detail.age,
            )
        )  # fmt: skip
    return sorted(found, key=lambda writer: -(writer.age or 0.0))


def transaction_isolation(connection: Connection) -> str:
    """The isolation level in force, as PostgreSQL spells it."""
    return str(connection.execute(text("SHOW transaction_isolation")).scalar_one())


def sequence_cache(connection: Connection) -> int:
    """How many positions a session takes at a time; anything above 1 breaks the fence."""
    return int(
        connection.execute(
            text(
                "SELECT seqcache FROM pg_sequence"
                " WHERE seqrelid = 'auditstore.events_position_seq'::regclass"
            )
        ).scalar_one()
    )
