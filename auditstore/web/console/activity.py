"""Activity: who changed what, when, from what to what; and who opened which event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from auditstore.sql import console as sql
from auditstore.web.console.flows import frame
from auditstore.web.console.pages import Visit, shown

_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class Change:
    """A change as it is shown: the subject by its name, and each setting that differs."""

    row: Any
    subject: str
    flow_id: str | None
    differences: list[tuple[str, str | None, str | None]]


def of_flow(visit: Visit) -> Response:
    """The changes of one flow's streams and of the credentials that they use."""
    return _shown(visit, visit.flow_id)


def everywhere(visit: Visit) -> Response:
    """Every change."""
    return _shown(visit, None)


def _shown(visit: Visit, flow_id: str | None) -> Response:
    of_readings = visit.query.get("of") == "readings"
    before = visit.query.get("before", "")
    asked = sql.latest_readings if of_readings else sql.latest_changes
    with visit.reading() as connection:
        rows = asked(
            connection, flow_id=flow_id, limit=_PAGE + 1,
            before=int(before) if before.isdecimal() and len(before) < 19 else None,
        )  # fmt: skip
    last = rows[_PAGE - 1] if len(rows) > _PAGE else None
    return shown(
        visit, "activity.html", frame=frame(visit, flow_id) if flow_id else None, flow_id=flow_id,
        changes=[] if of_readings else [change(row) for row in rows[:_PAGE]],
        readings=rows[:_PAGE] if of_readings else None,
        more=last and (last.reading_id if of_readings else last.change_id),
    )  # fmt: skip


def change(row: Any) -> Change:
    """A row of `auditstore.changes` in words."""
    before: Mapping[str, Any] = row.before or {}
    after: Mapping[str, Any] = row.after or {}
    settings = after or before
    name = settings.get("url") if row.subject == "stream" else settings.get("name")
    differences = [
        (key.replace("_", " "), _value(before.get(key)), _value(after.get(key)))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key) and (after.get(key) not in (None, {}) or before)
    ]
    return Change(
        row, str(name or f"number {row.subject_id}"), settings.get("flow_id"), differences
    )


def _value(setting: Any) -> str | None:
    if setting in (None, {}, []):
        return None
    if isinstance(setting, dict):
        return ", ".join(f"{name}={each}" for name, each in setting.items())
    if isinstance(setting, list):
        return ", ".join(map(str, setting))
    if isinstance(setting, bool):
        return "on" if setting else "off"
    return str(setting)
