"""Partition upkeep: the work is done inside the database, by a function of the migration."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text


def make_partitions(
    connection: Connection, *, period: str, first_at: datetime, periods: int
) -> list[tuple[str, str]]:
    """Make the partitions of ``periods`` months or days from ``first_at`` on.

    Returns each name with ``created``, ``exists``, ``overlaps`` (with one of the other period)
    or ``rows-in-default`` (its range already has events in the default partition).
    """
    rows = connection.execute(
        text(
            "SELECT partition_name, outcome"
            " FROM auditstore.make_partitions(:period, :first_at, :periods)"
        ),
        {"period": period, "first_at": first_at, "periods": periods},
    )
    return [(row.partition_name, row.outcome) for row in rows]
