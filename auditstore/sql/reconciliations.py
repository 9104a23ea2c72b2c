"""The reports of reconciliations that are kept: added once, and only read from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, cast, func, insert, select, text
from sqlalchemy.types import Text

from auditstore.sql.tables import reconciliations

#: What whoever keeps reports must be allowed to insert.
COLUMNS: Final = (
    "started_at", "ended_at", "actor", "scope", "result", "counts", "heads", "report", "sha256",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeptReport:
    """A row without the report itself. ``counts`` maps kinds of findings to how many there were."""

    number: int
    kept_at: datetime
    started_at: datetime
    ended_at: datetime
    actor: str
    database_user: str
    scope: Mapping[str, Any]
    result: str
    counts: Mapping[str, int]
    heads: Sequence[Mapping[str, Any]]
    sha256: bytes


def add(connection: Connection, *, report: str, **values: Any) -> int:
    """Keep a report, its text as it is; return its number."""
    # Bound as text: the driver would spell a value of type json its own way.
    statement = (
        insert(reconciliations)
        .values(**values, report=cast(report, Text).op("::")(text("json")))
        .returning(reconciliations.c.reconciliation_id)
    )
    return int(connection.execute(statement).scalar_one())


def may_add(connection: Connection) -> bool:
    """Whether this user may keep reports."""
    return bool(
        connection.scalar(
            text(
                "SELECT has_schema_privilege('auditstore', 'USAGE') AND bool_and("
                "has_column_privilege('auditstore.reconciliations', name, 'INSERT'))"
                " FROM unnest(CAST(:names AS text[])) AS name"
            ),
            {"names": list(COLUMNS)},
        )
    )


def find(
    connection: Connection,
    *,
    limit: int,
    flow_id: str | None = None,
    stream_id: int | None = None,
) -> list[KeptReport]:
    """The newest first; all, or those that were asked for one flow, for one stream."""
    statement = select(*_ABOUT).order_by(reconciliations.c.reconciliation_id.desc()).limit(limit)
    if flow_id is not None:
        statement = statement.where(reconciliations.c.scope["flow"].astext == flow_id)
    if stream_id is not None:
        statement = statement.where(reconciliations.c.scope["stream"].astext == str(stream_id))
    return [KeptReport(*row) for row in connection.execute(statement)]


def get(connection: Connection, number: int) -> tuple[KeptReport, bytes] | None:
    """A report and its text, byte for byte."""
    report = func.convert_to(cast(reconciliations.c.report, Text), "UTF8")
    row = connection.execute(
        select(*_ABOUT, report).where(reconciliations.c.reconciliation_id == number)
    ).one_or_none()
    return None if row is None else (KeptReport(*row[:-1]), bytes(row[-1]))


_ABOUT: Final = (
    reconciliations.c.reconciliation_id, reconciliations.c.kept_at, reconciliations.c.started_at,
    reconciliations.c.ended_at, reconciliations.c.actor, reconciliations.c.database_user,
    reconciliations.c.scope, reconciliations.c.result, reconciliations.c.counts,
    reconciliations.c.heads, reconciliations.c.sha256,
)  # fmt: skip
