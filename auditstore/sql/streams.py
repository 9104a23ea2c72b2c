"""The streams' statements: settings, intervals, marks, states, leases, and their changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, text, update

from auditstore.sql.tables import (
    changes,
    credentials,
    state_changes,
    stream_intervals,
    streams,
)

_COLUMNS = (
    *streams.c,
    credentials.c.name.label("credential_name"),
    credentials.c.changed_at.label("credential_changed_at"),
)
_JOINED = streams.outerjoin(credentials)


def lock_configuration(connection: Connection) -> None:
    """One change of stream settings at a time, so that two cannot take one location."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('auditstore.streams'))"))


def last_position(connection: Connection) -> int:
    """The position handed out last, 0 before the first; not transactional."""
    return int(connection.execute(text("SELECT auditstore.last_position()")).scalar_one())


def insert_stream(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a stream; return its id."""
    statement = insert(streams).values(**values).returning(streams.c.stream_id)
    return int(connection.execute(statement).scalar_one())


def update_stream(connection: Connection, stream_id: int, values: Mapping[str, Any]) -> None:
    """Change settings; `changed_at` makes the daemons look at once."""
    connection.execute(
        update(streams)
        .where(streams.c.stream_id == stream_id)
        .values(**values, changed_at=func.clock_timestamp())
    )


def switch(connection: Connection, stream_id: int, values: Mapping[str, Any]) -> None:
    """Enable or disable a stream: a change of settings with which its state begins anew."""
    update_stream(connection, stream_id, {**values, "state_since": func.clock_timestamp()})


def get(connection: Connection, stream_id: int, *, lock: bool = False) -> Any | None:
    """One stream's row; with ``lock`` until the end of the transaction."""
    statement = select(*_COLUMNS).select_from(_JOINED).where(streams.c.stream_id == stream_id)
    if lock:
        # FOR NO KEY UPDATE: whoever only refers to the stream, as a schedule does, is in no way.
        statement = statement.with_for_update(of=streams, key_share=True)
    return connection.execute(statement).one_or_none()


def find(
    connection: Connection,
    *,
    flow_id: str | None = None,
    enabled: bool | None = None,
    credential_id: int | None = None,
) -> Sequence[Any]:
    """Streams' rows in the order of their ids."""
    statement = select(*_COLUMNS).select_from(_JOINED).order_by(streams.c.stream_id)
    if flow_id is not None:
        statement = statement.where(streams.c.flow_id == flow_id)
    if enabled is not None:
        statement = statement.where(streams.c.enabled == enabled)
    if credential_id is not None:
        statement = statement.where(streams.c.credential_id == credential_id)
    return connection.execute(statement).all()


# --- intervals --------------------------------------------------------------------


def open_interval(connection: Connection, stream_id: int, from_position: int) -> None:
    """From here on the stream covers what is appended."""
    connection.execute(
        insert(stream_intervals).values(stream_id=stream_id, from_position=from_position)
    )


def close_interval(connection: Connection, stream_id: int, to_position: int) -> None:
    """The stream covers nothing after ``to_position``."""
    connection.execute(
        update(stream_intervals)
        .where(stream_intervals.c.stream_id == stream_id, stream_intervals.c.to_position.is_(None))
        .values(to_position=to_position, closed_at=func.clock_timestamp())
    )


def intervals(connection: Connection, stream_id: int) -> list[tuple[int, int | None]]:
    """The covered intervals (from exclusive, to inclusive or open), in order."""
    statement = (
        select(stream_intervals.c.from_position, stream_intervals.c.to_position)
        .where(stream_intervals.c.stream_id == stream_id)
        .order_by(stream_intervals.c.from_position, stream_intervals.c.opened_at)
    )
    return [(row.from_position, row.to_position) for row in connection.execute(statement)]


# --- what the exporter writes -----------------------------------------------------


def set_state(
    connection: Connection,
    stream_id: int,
    *,
    state: str,
    code: str | None = None,
    cause: str | None = None,
    hint: str | None = None,
    attempts: int = 0,
    retry_in: float | None = None,
) -> None:
    """Set what an operator sees; `state_since` moves only when state or code change, and only
    then is a row added to `state_changes`, by a trigger.

    ``retry_in`` is in seconds from the server's now.
    """
    connection.execute(
        text(
            "UPDATE auditstore.streams SET"
            " state_since = CASE WHEN state = :state AND state_code IS NOT DISTINCT FROM :code"
            "   THEN state_since ELSE clock_timestamp() END,"
            " state = :state, state_code = :code, state_cause = :cause, state_hint = :hint,"
            " attempts = :attempts,"
            " next_try_at = clock_timestamp() + make_interval(secs => :retry_in)"
            " WHERE stream_id = :stream_id"
        ),
        {
            "stream_id": stream_id, "state": state, "code": code, "cause": cause, "hint": hint,
            "attempts": attempts, "retry_in": retry_in,
        },
    )  # fmt: skip


def latest_state_changes(connection: Connection, stream_id: int, *, limit: int) -> Sequence[Any]:
    """A stream's latest changes of state or code, the newest first."""
    statement = (
        select(state_changes)
        .where(state_changes.c.stream_id == stream_id)
        .order_by(state_changes.c.change_id.desc())
        .limit(limit)
    )
    return connection.execute(statement).all()


def set_history(connection: Connection, stream_id: int, history: Mapping[str, str]) -> None:
    """Remember which server's history the stream's marks belong to."""
    connection.execute(
        update(streams).where(streams.c.stream_id == stream_id).values(history=dict(history))
    )


# --- changes ----------------------------------------------------------------------


def record_change(
    connection: Connection,
    *,
    actor: str,
    subject: str,
    subject_id: int,
    action: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """Append a change: who, what, from what to what. The caller has masked secrets."""
    connection.execute(
        insert(changes).values(
            actor=actor, subject=subject, subject_id=subject_id, action=action,
            before=before, after=after,
        )
    )  # fmt: skip


def list_changes(connection: Connection, subject: str, subject_id: int) -> Sequence[Any]:
    """The changes of one stream or credential, oldest first."""
    statement = (
        select(changes)
        .where(changes.c.subject == subject, changes.c.subject_id == subject_id)
        .order_by(changes.c.change_id)
    )
    return connection.execute(statement).all()


def newest_change(connection: Connection) -> datetime | None:
    """When a stream's or a credential's settings changed last, the daemons' cue to look."""
    statement = text(
        "SELECT greatest((SELECT max(changed_at) FROM auditstore.streams),"
        " (SELECT max(changed_at) FROM auditstore.credentials))"
    )
    found: datetime | None = connection.execute(statement).scalar_one()
    return found
