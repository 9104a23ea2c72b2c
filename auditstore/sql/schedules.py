"""When which stream is reconciled, by whom, and what came of it. The server's clock decides.

As with the streams, a lease saves double work: two runs at once find the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import BigInteger, DateTime


@dataclass(frozen=True, slots=True)
class Schedule:
    """One stream at one level: when it is due, and the last run, if there was one.

    ``verified_sequence`` is the file up to which all was compared, and ``unclean`` how many of
    those were not clean; ``None`` while nothing is remembered.
    """

    stream_id: int
    flow_id: str
    level: str
    cron: str
    next_run_at: datetime | None
    running_since: datetime | None
    ended_at: datetime | None
    result: str | None
    differences: Mapping[str, int]
    seconds: float | None
    files: int | None
    error_code: str | None
    error_cause: str | None
    error_hint: str | None
    verified_sequence: int | None
    unclean: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a run; ``differences`` by kind."""

    result: str
    seconds: float
    files: int = 0
    differences: Mapping[str, int] = field(default_factory=dict)
    error_code: str | None = None
    error_cause: str | None = None
    error_hint: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """From now on due at this time; with an error where the expression gives none."""

    stream_id: int
    level: str
    cron: str
    next_run_at: datetime | None
    error_code: str | None = None
    error_cause: str | None = None
    error_hint: str | None = None


def unplanned(connection: Connection) -> list[tuple[int, str, str]]:
    """Stream, level and expression of the enabled streams whose plan follows from another one."""
    found = connection.execute(
        text(
            "SELECT s.stream_id, l.level, l.cron FROM auditstore.streams s"
            " CROSS JOIN LATERAL (VALUES ('files', s.reconcile_files),"
            "   ('events', s.reconcile_events)) AS l (level, cron)"
            " LEFT JOIN auditstore.schedules k"
            "   ON k.stream_id = s.stream_id AND k.level = l.level"
            " WHERE s.enabled AND k.cron IS DISTINCT FROM l.cron"
            " ORDER BY s.stream_id, l.level"
        )
    )
    return [(row.stream_id, row.level, row.cron) for row in found]


def plan(connection: Connection, planned: Sequence[Planned]) -> None:
    """Set when the next runs are due; what came of the last ones stays, but for an error."""
    statement = text(
        "INSERT INTO auditstore.schedules (stream_id, level, cron, next_run_at,"
        "   error_code, error_cause, error_hint)"
        " SELECT * FROM jsonb_to_recordset(CAST(:planned AS jsonb)) AS p (stream_id bigint,"
        "   level text, cron text, next_run_at timestamptz, error_code text, error_cause text,"
        "   error_hint text)"
        " ON CONFLICT (stream_id, level) DO UPDATE SET cron = excluded.cron,"
        "   next_run_at = excluded.next_run_at, error_code = excluded.error_code,"
        "   error_cause = excluded.error_cause, error_hint = excluded.error_hint"
    )
    # In one statement: between those of a pipeline the server would not take a planner that is
    # paused for an idle one, and would never end its transaction.
    connection.execute(statement, {"planned": orjson.dumps(planned).decode()})


def one_claimer(connection: Connection) -> None:
    """One exporter at a time chooses what it runs, until the end of the transaction.

    Else two could begin the two levels of one stream at the same moment.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('auditstore.schedules'))"))


def due(connection: Connection, *, now: datetime) -> list[tuple[int, str]]:
    """Stream and level of the enabled streams that are due and not being run, longest due first.

    Nobody may run another level of the stream, either.
    """
    found = connection.execute(
        text(
            "SELECT k.stream_id, k.level FROM auditstore.schedules k"
            " JOIN auditstore.streams s ON s.stream_id = k.stream_id"
            " WHERE k.next_run_at <= :now AND s.enabled AND NOT EXISTS ("
            "   SELECT 1 FROM auditstore.schedules r WHERE r.stream_id = k.stream_id"
            "   AND r.lease_until > clock_timestamp())"
            " ORDER BY k.next_run_at, k.stream_id, k.level DESC"
        ),
        {"now": now},
    )
    return [(row.stream_id, row.level) for row in found]


def claim(connection: Connection, stream_id: int, level: str, *, owner: str, ttl: float) -> None:
    """Lease a run; the caller is the one claimer and has seen that it is due."""
    connection.execute(
        text(
            "UPDATE auditstore.schedules SET lease_owner = :owner, began_at = clock_timestamp(),"
            " lease_until = clock_timestamp() + make_interval(secs => :ttl)"
            " WHERE stream_id = :stream_id AND level = :level"
        ),
        {"stream_id": stream_id, "level": level, "owner": owner, "ttl": ttl},
    )


def renew(connection: Connection, *, owner: str, ttl: float) -> None:
    """Extend the leases that this exporter still has."""
    connection.execute(
        text(
            "UPDATE auditstore.schedules"
            " SET lease_until = clock_timestamp() + make_interval(secs => :ttl)"
            " WHERE lease_owner = :owner AND lease_until > clock_timestamp()"
        ),
        {"owner": owner, "ttl": ttl},
    )


def release(connection: Connection, stream_id: int, level: str, *, owner: str) -> None:
    """Give a run back unfinished: it is still due, and anybody may take it at once."""
    connection.execute(
        text(
            "UPDATE auditstore.schedules SET lease_owner = NULL, lease_until = NULL"
            " WHERE stream_id = :stream_id AND level = :level AND lease_owner = :owner"
        ),
        {"stream_id": stream_id, "level": level, "owner": owner},
    )


def release_all(connection: Connection, *, owner: str) -> None:
    """An exporter leaves: what it ran is due again at once."""
    connection.execute(
        text(
            "UPDATE auditstore.schedules SET lease_owner = NULL, lease_until = NULL"
            " WHERE lease_owner = :owner"
        ),
        {"owner": owner},
    )


_FINISH: Final = text(
    "UPDATE auditstore.schedules SET lease_owner = NULL, lease_until = NULL,"
    " next_run_at = CASE WHEN cron = :cron THEN :next_run_at ELSE next_run_at END,"
    " ended_at = clock_timestamp(), result = :result,"
    " differences = :differences, seconds = :seconds, files = :files, error_code = :error_code,"
    " error_cause = :error_cause, error_hint = :error_hint"
    " WHERE stream_id = :stream_id AND level = :level AND lease_owner = :owner"
    " RETURNING stream_id"
).bindparams(
    bindparam("differences", type_=JSONB), bindparam("next_run_at", type_=DateTime(timezone=True))
)


def finish(
    connection: Connection,
    stream_id: int,
    level: str,
    ended: Ended,
    *,
    owner: str,
    cron: str,
    next_run_at: datetime | None,
) -> bool:
    """Record what came of a run, and when the next is due by ``cron``, unless the expression
    changed meanwhile. False where the lease was lost: the run is another's by now.
    """
    values = asdict(ended) | {
        "stream_id": stream_id, "level": level, "owner": owner, "cron": cron,
        "next_run_at": next_run_at,
    }  # fmt: skip
    return connection.execute(_FINISH, values).one_or_none() is not None


_SCHEDULES: Final = (
    "SELECT k.stream_id, s.flow_id, k.level, k.cron, k.next_run_at,"
    " CASE WHEN k.lease_until > clock_timestamp() THEN k.began_at END AS running_since,"
    " k.ended_at, k.result, k.differences, k.seconds, k.files,"
    " k.error_code, k.error_cause, k.error_hint,"
    " v.sequence AS verified_sequence, cardinality(v.unclean) AS unclean"
    " FROM auditstore.schedules k JOIN auditstore.streams s ON s.stream_id = k.stream_id"
    " LEFT JOIN auditstore.verified v ON v.stream_id = k.stream_id AND v.level = k.level"
)
_ORDER: Final = " ORDER BY k.stream_id, k.level DESC"
_SCHEDULES_OF: Final = text(
    _SCHEDULES + " WHERE k.stream_id = ANY (:stream_ids)" + _ORDER
).bindparams(bindparam("stream_ids", type_=ARRAY(BigInteger)))


def find(connection: Connection, stream_ids: Sequence[int] | None = None) -> list[Schedule]:
    """The schedules of these streams, or of all, by stream; level files first."""
    if stream_ids is None:
        return _schedules(connection.execute(text(_SCHEDULES + _ORDER)).all())
    found = connection.execute(_SCHEDULES_OF, {"stream_ids": list(stream_ids)})
    return _schedules(found.all())


def _schedules(rows: Sequence[Any]) -> list[Schedule]:
    return [Schedule(*row) for row in rows]
