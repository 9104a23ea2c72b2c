"""Daemons and the leases by which they share streams. The server's clock decides.

A lease saves double work. Correctness never depends on one: two workers on one stream seal
under the stream's row lock and write the same bytes under the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import BigInteger


def announce(connection: Connection, *, daemon_id: str, host: str, pid: int, version: str) -> None:
    """Say that a daemon lives; forget those that were not seen for a day."""
    connection.execute(
        text(
            "INSERT INTO auditstore.daemons (daemon_id, host, pid, version)"
            " VALUES (:daemon_id, :host, :pid, :version)"
            " ON CONFLICT (daemon_id) DO UPDATE SET seen_at = clock_timestamp()"
        ),
        {"daemon_id": daemon_id, "host": host, "pid": pid, "version": version},
    )
    connection.execute(
        text("DELETE FROM auditstore.daemons WHERE seen_at < clock_timestamp() - interval '1 day'")
    )


def report_fence(connection: Connection, *, daemon_id: str, position: int, age: float) -> None:
    """Show a daemon's safe position to `auditstore status`: the newest one ``age`` seconds ago."""
    connection.execute(
        text(
            "UPDATE auditstore.daemons SET fence_position = :position,"
            " fence_at = clock_timestamp() - make_interval(secs => :age)"
            " WHERE daemon_id = :daemon_id"
        ),
        {"daemon_id": daemon_id, "position": position, "age": age},
    )


def withdraw(connection: Connection, *, daemon_id: str) -> None:
    """A daemon leaves: its leases are free at once."""
    parameters = {"daemon_id": daemon_id}
    connection.execute(
        text(
            "UPDATE auditstore.streams SET lease_owner = NULL, lease_until = NULL"
            " WHERE lease_owner = :daemon_id"
        ),
        parameters,
    )
    connection.execute(
        text("DELETE FROM auditstore.daemons WHERE daemon_id = :daemon_id"), parameters
    )


def list_daemons(connection: Connection) -> Sequence[Any]:
    """Every known daemon with the seconds since it was seen, and its fence's age in seconds."""
    return connection.execute(
        text(
            "SELECT daemon_id, host, pid, version, started_at, seen_at, fence_position, fence_at,"
            " extract(epoch FROM clock_timestamp() - seen_at)::float AS silent_for,"
            " extract(epoch FROM clock_timestamp() - fence_at)::float AS fence_age"
            " FROM auditstore.daemons ORDER BY started_at"
        )
    ).all()


def live_daemons(connection: Connection, *, ttl: float) -> int:
    """How many daemons were seen within ``ttl`` seconds."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM auditstore.daemons"
                " WHERE seen_at > clock_timestamp() - make_interval(secs => :ttl)"
            ),
            {"ttl": ttl},
        ).scalar_one()
    )


def renew(connection: Connection, *, daemon_id: str, ttl: float) -> list[int]:
    """Extend this daemon's unexpired leases on enabled streams; return the streams.

    One whose row is locked, as it is while a file is sealed or recorded, is not waited for: its
    lease is still held, and extended the next time.
    """
    connection.execute(
        text(
            "UPDATE auditstore.streams"
            " SET lease_until = clock_timestamp() + make_interval(secs => :ttl)"
            " WHERE stream_id IN (SELECT stream_id FROM auditstore.streams"
            "   WHERE lease_owner = :daemon_id AND lease_until > clock_timestamp() AND enabled"
            "   FOR NO KEY UPDATE SKIP LOCKED)"
        ),
        {"daemon_id": daemon_id, "ttl": ttl},
    )
    held = connection.execute(
        text(
            "SELECT stream_id FROM auditstore.streams"
            " WHERE lease_owner = :daemon_id AND lease_until > clock_timestamp() AND enabled"
            " ORDER BY stream_id"
        ),
        {"daemon_id": daemon_id},
    )
    return list(held.scalars())


def acquire(connection: Connection, *, daemon_id: str, ttl: float, limit: int) -> list[int]:
    """Lease up to ``limit`` enabled streams that nobody holds; return them."""
    found = connection.execute(
        text(
            "UPDATE auditstore.streams SET lease_owner = :daemon_id,"
            " lease_until = clock_timestamp() + make_interval(secs => :ttl)"
            " WHERE stream_id IN (SELECT stream_id FROM auditstore.streams"
            "   WHERE enabled AND (lease_until IS NULL OR lease_until <= clock_timestamp())"
            "   ORDER BY stream_id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)"
            " RETURNING stream_id"
        ),
        {"daemon_id": daemon_id, "ttl": ttl, "limit": limit},
    )
    return sorted(row.stream_id for row in found)


def release(connection: Connection, *, daemon_id: str, stream_ids: Sequence[int]) -> None:
    """Give leases back."""
    connection.execute(
        text(
            "UPDATE auditstore.streams SET lease_owner = NULL, lease_until = NULL"
            " WHERE lease_owner = :daemon_id AND stream_id = ANY (:stream_ids)"
        ).bindparams(bindparam("stream_ids", type_=ARRAY(BigInteger))),
        {"daemon_id": daemon_id, "stream_ids": list(stream_ids)},
    )
