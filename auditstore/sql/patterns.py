"""What ranges of positions hold, counted by the server: hours, types, outcomes, delays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Connection, DateTime, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY


@dataclass(frozen=True, slots=True)
class Kinds:
    """So many events of the range ``number``, counted from 0, are of this hour and kind."""

    number: int
    hour: int
    type: str | None
    outcome: str | None
    events: int


_RANGE_KINDS: Final = text(
    "SELECT r.number - 1 AS number, k.hour, k.type, k.outcome, k.events"
    " FROM unnest(:firsts, :lasts) WITH ORDINALITY AS r (first, last, number)"
    " CROSS JOIN LATERAL ("
    "   SELECT floor(extract(epoch FROM e.recorded_at) / 3600)::bigint AS hour,"
    "     e.type, e.outcome, count(*) AS events"
    "   FROM auditstore.events e"
    "   WHERE e.flow_id = :flow_id AND e.position BETWEEN r.first AND r.last"
    "   GROUP BY 1, 2, 3) k"
).bindparams(
    bindparam("firsts", type_=ARRAY(BigInteger)), bindparam("lasts", type_=ARRAY(BigInteger))
)


def range_kinds(
    connection: Connection, flow_id: str, ranges: Sequence[tuple[int, int]]
) -> list[Kinds]:
    """The events of each range by hour of recording since the epoch, type and outcome."""
    if not ranges:
        return []
    found = connection.execute(
        _RANGE_KINDS,
        {
            "flow_id": flow_id,
            "firsts": [first for first, _ in ranges],
            "lasts": [last for _, last in ranges],
        },
    )
    return [Kinds(row.number, row.hour, row.type, row.outcome, row.events) for row in found]


# Answered from the index alone.
_RANGE_DELAYS: Final = text(
    "SELECT ceil(ln(d.ms) / ln(CAST(:growth AS double precision)))::integer AS bucket,"
    "   count(*) AS events, max(d.ms)::bigint AS worst"
    " FROM unnest(:firsts, :lasts, :moments) AS r (first, last, moment)"
    " CROSS JOIN LATERAL ("
    "   SELECT greatest(ceil(extract(epoch FROM r.moment - e.recorded_at) * 1000), 1)"
    "     ::double precision AS ms"
    "   FROM auditstore.events e"
    "   WHERE e.flow_id = :flow_id AND e.position BETWEEN r.first AND r.last) d"
    " WHERE r.moment IS NOT NULL"
    " GROUP BY 1"
).bindparams(
    bindparam("firsts", type_=ARRAY(BigInteger)),
    bindparam("lasts", type_=ARRAY(BigInteger)),
    bindparam("moments", type_=ARRAY(DateTime(timezone=True))),
)


def range_delays(
    connection: Connection,
    flow_id: str,
    ranges: Sequence[tuple[int, int]],
    moments: Sequence[datetime | None],
    *,
    growth: float,
) -> list[tuple[int, int, int]]:
    """How long the events of ranges waited until each range's moment.

    Buckets (n, events, the longest in milliseconds): bucket n holds the delays of more than
    ``growth ** (n - 1)`` milliseconds and at most ``growth ** n``.
    """
    if not ranges:
        return []
    found = connection.execute(
        _RANGE_DELAYS,
        {
            "flow_id": flow_id,
            "firsts": [first for first, _ in ranges],
            "lasts": [last for _, last in ranges],
            "moments": list(moments),
            "growth": growth,
        },
    )
    return [(row.bucket, row.events, row.worst) for row in found]
