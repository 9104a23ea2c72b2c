"""A long history of small events, made inside PostgreSQL: a store as it is after years, in minutes.

Only its size counts here. Every index, constraint and partition is the product's own; the
snapshots are some 300 bytes instead of the usual 3.6 KB, so that millions of them are affordable,
unless they are padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from auditstore.sql import partitions, server

#: A lead has so many events, one after the other.
STEPS: Final = 4
_BATCH: Final = 100_000
# The function makes no more in one call.
_AT_ONCE: Final = 100
# n counts all events: one flow after the other has its next, evenly over the time.
_FILL: Final = sa.text(
    "INSERT INTO auditstore.events (event_id, flow_id, lead_id, type, outcome, reason, step_id,"
    " started_at, ended_at, recorded_at, payload, size_bytes, sha256)"
    " SELECT event_id, flow_id, lead_id, kind, outcome, reason, 'step-' || n % 7, at, at, at,"
    "   body::json, octet_length(body), sha256(convert_to(body, 'UTF8'))"
    ' FROM (SELECT *, format(\'{"id":"%s","type":"%s","outcome":"%s","reason":"%s",\''
    '     || \'"vars":{"flow":{"id":"%s","name":"Flow %s"},"lead":{"id":"%s",\''
    '     || \'"email":"lead-%s@example.test","note":"%s"}},"ms":%s}\','
    "     event_id, kind, outcome, reason, flow_id, n % :flows, lead_id, n,"
    "     repeat(md5(n::text), :pad), n % 900) AS body"
    "   FROM (SELECT n, 'flow-' || lpad((n % :flows)::text, 6, '0') AS flow_id,"
    "     lpad(to_hex(extract(epoch FROM at)::bigint), 8, '0') || lpad(to_hex(n), 16, '0')"
    "       AS event_id,"
    "     'lead-' || n % :flows || '-' || n / (:flows * :steps) AS lead_id,"
    "     (ARRAY['source', 'filter', 'recipient', 'feedback-received'])[1 + n % 4] AS kind,"
    "     CASE WHEN n % 20 = 0 THEN 'failure' ELSE 'success' END AS outcome,"
    "     CASE WHEN n % 20 = 0 THEN 'duplicate lead ' || n % 100 ELSE '' END AS reason, at"
    "     FROM (SELECT n, CAST(:start AS timestamptz) + n * CAST(:apart AS interval) AS at"
    "       FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n) a) b) c"
)


def fill(
    engine: Engine, *, flows: int, events: int, days: float, until: datetime, first: int = 0,
    pad: int = 0,
) -> Iterator[int]:  # fmt: skip
    """Append the events from number ``first`` to before ``events``, spread over ``days`` before
    ``until``; tell how many are there, now and then. ``pad`` times 32 bytes make them longer.
    """
    for start in range(first, events, _BATCH):
        with engine.begin() as connection:
            connection.execute(
                _FILL,
                {
                    "flows": flows, "steps": STEPS, "start": until - timedelta(days=days),
                    "apart": timedelta(days=days) / events, "first": start,
                    "last": min(start + _BATCH, events) - 1, "pad": pad,
                },
            )  # fmt: skip
        yield min(start + _BATCH, events)


def make_partitions(connection: Connection, *, period: str, days: int, ahead: int = 3) -> None:
    """Those of the days before now, today's, and the next ones."""
    now = server.clock(connection)
    length = timedelta(days=28 if period == "month" else 1)
    periods = days // length.days + ahead
    for first in range(0, periods, _AT_ONCE):
        partitions.make_partitions(
            connection, period=period, first_at=now - timedelta(days=days) + first * length,
            periods=min(_AT_ONCE, periods - first),
        )  # fmt: skip


def settle(engine: Engine) -> None:
    """As autovacuum leaves a table that has been there for a while."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(
            sa.text("VACUUM ANALYZE auditstore.events")
        )
