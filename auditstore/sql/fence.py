"""What the lock fence asks the server. Each function is one statement, on purpose.

The order matters: the last position first, then the holders, then, in a new statement, the
events. See ``docs/explanation/tailing.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from auditstore.sql.server import RUN

_WRITERS: Final = (
    "SELECT DISTINCT l.virtualtransaction, l.pid"
    " FROM pg_locks l WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    # The partitions too: whoever owns them can insert into one directly.
    " AND l.relation IN (SELECT relid FROM pg_partition_tree('auditstore.events'))"
)
_HIGH_WATER: Final = text(
    f"SELECT auditstore.last_position() AS position, {RUN} AS run,"
    " current_setting('transaction_read_only') = 'on' AS read_only"
)
_WRITERS_AND_RUN: Final = text(
    f"SELECT ARRAY(SELECT virtualtransaction FROM ({_WRITERS}) w) AS writers, {RUN} AS run"  # noqa: S608  # constants of ours
)
_OPEN_WRITERS: Final = text(
    "SELECT w.virtualtransaction, w.pid, w.user_name, w.application, w.state, w.prepared, w.age,"
    " nullif(left(a.query, 200), '<insufficient privilege>') AS query"
    " FROM auditstore.open_writers() w LEFT JOIN pg_stat_activity a ON a.pid = w.pid"
    " ORDER BY w.age DESC NULLS FIRST"
)


@dataclass(frozen=True, slots=True)
class HighWater:
    """The position handed out last, in which run of the server, and whether that takes writes."""

    position: int
    run: str
    read_only: bool


def high_water(connection: Connection) -> HighWater:
    """H: every position handed out so far is at most this."""
    row = connection.execute(_HIGH_WATER).one()
    return HighWater(position=row.position, run=row.run, read_only=row.read_only)


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

    A prepared transaction has its gid in ``prepared`` and no pid. ``state`` and ``age`` are
    empty where the schema's owner is neither a superuser nor a member of
    ``pg_read_all_stats``, ``query`` where this user is neither.
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
    return [OpenWriter(**row) for row in connection.execute(_OPEN_WRITERS).mappings()]


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
