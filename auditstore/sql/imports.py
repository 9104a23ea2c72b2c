"""Events that came from another view than the flow engine, and by which import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection, bindparam, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from auditstore.sql.tables import imported_events, imports
from auditstore.taking import Key

Kind = Literal["import", "adopt"]


def begin(connection: Connection, *, kind: Kind, source: str, actor: str) -> int:
    """Open the record of an import; its number."""
    made: int = connection.execute(
        insert(imports).values(kind=kind, source=source, actor=actor).returning(imports.c.import_id)
    ).scalar_one()
    return made


def count(
    connection: Connection, import_id: int, *, offered: int, appended: int, existing: int,
    refused: int,
) -> None:  # fmt: skip
    """Write how far it is; refused once the import is finished."""
    connection.execute(
        update(imports)
        .where(imports.c.import_id == import_id)
        .values(offered=offered, appended=appended, existing=existing, refused=refused)
    )


def finish(connection: Connection, import_id: int) -> None:
    """It came to its end: from now on its record is final."""
    connection.execute(
        update(imports)
        .where(imports.c.import_id == import_id)
        .values(finished_at=func.clock_timestamp())
    )


# In a transaction that sees nothing of others, so what is there of the keys is what it appended.
_MARK: Final = text(
    "INSERT INTO auditstore.imported_events (position, import_id)"
    " SELECT e.position, :import_id FROM unnest(:flow_ids, :event_ids) AS asked (flow_id, event_id)"
    ' JOIN auditstore.events e ON e.flow_id = asked.flow_id COLLATE "C"'
    ' AND e.event_id = asked.event_id COLLATE "C"'
).bindparams(bindparam("flow_ids", type_=ARRAY(Text)), bindparam("event_ids", type_=ARRAY(Text)))


def mark(connection: Connection, import_id: int, keys: Sequence[Key]) -> int:
    """Record that these events, appended by this transaction, came by this import; how many."""
    return connection.execute(
        _MARK,
        {
            "import_id": import_id,
            "flow_ids": [flow for flow, _ in keys],
            "event_ids": [event for _, event in keys],
        },
    ).rowcount


def find(connection: Connection, *, limit: int) -> Sequence[Any]:
    """The latest imports, the newest first."""
    return connection.execute(
        select(imports).order_by(imports.c.import_id.desc()).limit(limit)
    ).all()


def of_position(connection: Connection, position: int) -> Any | None:
    """The import that an event came by, or ``None`` for the flow engine's own."""
    return connection.execute(
        select(imports)
        .join(imported_events, imported_events.c.import_id == imports.c.import_id)
        .where(imported_events.c.position == position)
    ).one_or_none()
