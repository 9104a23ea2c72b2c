"""Questions about the server itself."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

#: Differs after every restart and every recovery from a crash. A backend that is killed takes
#: the shared memory with it but not the postmaster; what such a recovery renews, and everybody
#: may read, is the time since which statistics are counted.
RUN: Final = (
    "concat(extract(epoch FROM pg_postmaster_start_time()), '/',"
    " extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()))"
)


def version(connection: Connection) -> int:
    """The server's major version."""
    return int(connection.scalar(text("SHOW server_version_num")) or 0) // 10000


def full_version(connection: Connection) -> str:
    """The server's version as it names itself."""
    return str(connection.scalar(text("SHOW server_version")))


def session_user(connection: Connection) -> str:
    """Who is logged in."""
    return str(connection.scalar(text("SELECT session_user")))


def encoding(connection: Connection) -> str:
    """The database's encoding, as PostgreSQL names it."""
    return str(connection.scalar(text("SHOW server_encoding")))


def clock(connection: Connection) -> datetime:
    """The server's clock, the authority for every time in the store."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def run(connection: Connection) -> str:
    """The server's present run: no lock and no unflushed commit outlives it."""
    return str(connection.scalar(text(f"SELECT {RUN}")))  # a constant of ours


def is_standby(connection: Connection) -> bool:
    """Whether the server is in recovery, so that it shows no writer's locks."""
    return bool(connection.scalar(text("SELECT pg_is_in_recovery()")))


def history(connection: Connection) -> dict[str, str]:
    """Which server this is and since when it runs: what a failover, a restore or a restart changes.

    The timeline is read from the WAL's file name; ``pg_control_checkpoint`` lags after a promotion.
    """
    row = connection.execute(
        text(
            "SELECT system_identifier::text,"
            " left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline,"
            " extract(epoch FROM pg_postmaster_start_time())::text AS started"
            " FROM pg_control_system()"
        )
    ).one()
    return {"system": row.system_identifier, "timeline": row.timeline, "started": row.started}
