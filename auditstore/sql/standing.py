"""How a daemon's streams stand, in one statement however many they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import BigInteger


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where a stream's events were counted, and its sealed sequence at that time."""

    position: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StandingRow:
    """One stream of a daemon.

    ``counted`` events lie behind both the mark and the sealed position, up to ``upto``: final,
    since nothing below a safe position can still appear. ``above`` lie behind ``upto``.
    ``sealed`` events were sealed since the mark. ``undelivered`` events are sealed and not in
    the store yet. ``oldest_age`` is how many seconds ago the oldest event that is not in the
    store was recorded.
    """

    stream_id: int
    flow_id: str
    state: str
    max_delay: float
    sealed_sequence: int
    sealed_position: int
    upto: int
    counted: int
    above: int
    sealed: int
    undelivered: int
    oldest_age: float | None


def limit_time(connection: Connection, *, seconds: float) -> None:
    """No statement of this transaction takes longer; a watcher must not be a burden."""
    connection.execute(
        text("SELECT set_config('statement_timeout', :limit, true)"),
        {"limit": str(round(seconds * 1000))},
    )


# Everything is found through an index, and payloads are not touched. What was counted before is
# not counted again, so a large backlog costs once.
_OWN_STREAMS: Final = text(
    "SELECT s.stream_id, s.flow_id, s.state, s.max_delay, s.sealed_sequence, s.sealed_position,"
    " r.upto, c.counted, c.above, f.sealed, u.undelivered,"
    " extract(epoch FROM clock_timestamp() - least(u.oldest, o.recorded_at))::float AS oldest_age"
    " FROM auditstore.streams s"
    " LEFT JOIN unnest(:stream_ids, :positions, :sequences) AS k (stream_id, position, sequence)"
    "   ON k.stream_id = s.stream_id"
    " CROSS JOIN LATERAL (SELECT greatest(k.position, s.sealed_position) AS behind,"
    "   greatest(k.position, s.sealed_position, :fence) AS upto) r"
    " CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE position <= r.upto) AS counted,"
    "   count(*) FILTER (WHERE position > r.upto) AS above"
    "   FROM auditstore.events WHERE flow_id = s.flow_id AND position > r.behind) c"
    " CROSS JOIN LATERAL (SELECT coalesce(sum(event_count), 0)::bigint AS sealed"
    "   FROM auditstore.files WHERE stream_id = s.stream_id"
    "   AND sequence > coalesce(k.sequence, s.sealed_sequence)) f"
    " CROSS JOIN LATERAL (SELECT coalesce(sum(event_count), 0)::bigint AS undelivered,"
    "   min(first_recorded_at) AS oldest"
    "   FROM auditstore.files WHERE stream_id = s.stream_id AND delivered_at IS NULL) u"
    " LEFT JOIN LATERAL (SELECT recorded_at FROM auditstore.events"
    "   WHERE flow_id = s.flow_id AND position > s.sealed_position"
    "   ORDER BY position LIMIT 1) o ON true"
    " WHERE s.enabled AND s.lease_owner = :daemon_id AND s.lease_until > clock_timestamp()"
    " ORDER BY s.stream_id"
).bindparams(
    *(
        bindparam(name, type_=ARRAY(BigInteger))
        for name in ("stream_ids", "positions", "sequences")
    ),
    bindparam("fence", type_=BigInteger),
)


def own_streams(
    connection: Connection, *, daemon_id: str, fence: int, known: Mapping[int, Mark]
) -> list[StandingRow]:
    """The streams that the daemon has leased now, by id.

    ``known`` has the mark of each stream that was counted before; the others are counted from
    their sealed position.
    """
    found = connection.execute(
        _OWN_STREAMS,
        {
            "daemon_id": daemon_id, "fence": fence, "stream_ids": list(known),
            "positions": [mark.position for mark in known.values()],
            "sequences": [mark.sequence for mark in known.values()],
        },
    )  # fmt: skip
    return [StandingRow(*row) for row in found]
