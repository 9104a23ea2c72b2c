"""What the lock fence asks the server. Each function is one statement, on purpose.

The order matters: the last position first, then the holders, then, in a new statement, the
events. See ``docs/explanation/tailing.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

_OUTBOX_LOCKS = (
    " FROM pg_locks l WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    # The partitions too: whoever owns them can insert into one directly.
    " AND l.relation IN (SELECT relid FROM pg_partition_tree('auditstore.events'))"
)


@dataclass(frozen=True, slots=True)
class HighWater:
    """The position handed out last, and since when the server that says so runs."""

    position: int
    server_started: datetime


def high_water(connection: Connection) -> HighWater:
    """H: every position handed out so far is at most this."""
    row = connection.execute(
        text("SELECT auditstore.last_position() AS position, pg_postmaster_start_time() AS started")
    ).one()
    return HighWater(position=row.position, server_started=row.started)


def writers(connection: Connection) -> frozenset[str]:
    """S: the virtual transactions that have inserted into the outbox and are not over.

    Prepared transactions are among them; they have no pid, so nothing is joined here.
    """
    return frozenset(
        row.virtualtransaction
        for row in connection.execute(text("SELECT l.virtualtransaction" + _OUTBOX_LOCKS))
    )


def open_writers(connection: Connection) -> Sequence[Any]:
    """Who holds the fence back: pid, user, application, age in seconds, state and query.

    A prepared transaction has its gid in ``prepared`` and no pid. What another user runs is
    visible to members of ``pg_read_all_stats`` only.
    """
    return connection.execute(
        text(
            "SELECT h.virtualtransaction, a.pid, a.usename AS user_name,"
            " a.application_name AS application, a.state, left(a.query, 200) AS query,"
            " p.gid AS prepared,"
            " extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float"
            "   AS age"
            " FROM (SELECT DISTINCT l.virtualtransaction, l.pid" + _OUTBOX_LOCKS + ") h"
            " LEFT JOIN pg_stat_activity a ON a.pid = h.pid"
            " LEFT JOIN pg_locks x ON h.pid IS NULL AND x.locktype = 'transactionid'"
            "   AND x.virtualtransaction = h.virtualtransaction AND x.granted"
            " LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid"
            " ORDER BY age DESC NULLS LAST"
        )
    ).all()


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
