"""Events in a CSV table: whole ones in a column ``payload``, or a column a field.

A table with the column ``payload`` holds whole events: its cells are their JSON, and other
columns are not looked at. Without it each column is a field of the event by its path, such as
``id``, ``outcome``, ``vars.lead.email``; such rows can be compared in those fields, and are no
whole events. ``id``, ``type`` and ``outcome`` must be among them, and ``vars.flow.id`` unless
the caller names the flow.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from typing import Final

import orjson

from auditstore.events import is_event_id, unusable_owner_id
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.views.records import MAX_EVENT_BYTES, Record, Trouble

PAYLOAD: Final = "payload"
NEEDED: Final = ("id", "type", "outcome")
FLOW: Final = "vars.flow.id"
LEAD: Final = "vars.lead.id"


class Broken(ValueError):
    """The table as a whole cannot be read."""


def rows(
    raw: io.RawIOBase, *, flow_id: str | None
) -> Iterator[tuple[int, bytes | dict[str, str] | str]]:
    """The line on which each row ends, and its event, its cells by column, or what is wrong."""
    csv.field_size_limit(MAX_EVENT_BYTES)
    # What is no UTF-8 is told with its line: a strict decoder, which reads ahead, knows of none.
    text = io.TextIOWrapper(
        io.BufferedReader(raw), encoding="utf-8", errors="surrogateescape", newline=""
    )
    reader = csv.reader(text, strict=True)
    try:
        columns = [name.strip() for name in _decoded(next(reader, []))]
        _check(columns, flow_id)
        place = columns.index(PAYLOAD) if PAYLOAD in columns else None
        for cells in reader:
            if not _decoded(cells):
                continue
            if len(cells) != len(columns):
                yield reader.line_num, f"{len(cells)} cells where there are {len(columns)} columns"
            elif place is not None:
                yield reader.line_num, cells[place].encode()
            else:
                yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise Broken(f"line {reader.line_num} is not CSV: {error}") from error
    except UnicodeEncodeError as error:
        raise Broken(f"line {reader.line_num} is not UTF-8") from error


def _decoded(cells: list[str]) -> list[str]:
    """The cells; raise UnicodeEncodeError for bytes in them that are no text."""
    for cell in cells:
        if not cell.isascii():
            cell.encode()
    return cells


def _check(columns: list[str], flow_id: str | None) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise Broken(f"the head line names a column twice: {', '.join(twice)}")
    if PAYLOAD in columns:
        return
    needed = (*NEEDED, FLOW) if flow_id is None else NEEDED
    missing = [name for name in needed if name not in columns]
    if missing:
        raise Broken(
            f"the head line lacks the columns {', '.join(missing)}: there must be a column "
            f"{PAYLOAD} with whole events, or a column a field, {', '.join((*NEEDED, FLOW))} "
            "among them"
        )


def record(row: dict[str, str], place: str, *, flow_id: str | None) -> Record | Trouble:
    """A row of columns as a partial record, or why it is none."""
    event_id = row["id"].strip()
    if not is_event_id(event_id):
        return Trouble(Kind.UNREADABLE_LINE, "it is no event: id: not 24 hex digits", place)
    event_id = event_id.lower()
    owner = row.get(FLOW) or flow_id
    if not owner or unusable_owner_id(owner):
        return Trouble(
            Kind.UNREADABLE_LINE, f"it is no event: {FLOW}: missing or unusable", place,
            event_id=event_id,
        )  # fmt: skip
    payload = orjson.dumps({name: cell for name, cell in row.items() if name != "id"})
    return Record(
        event_id=event_id, flow_id=owner, lead_id=row.get(LEAD) or None,
        type=row["type"] or None, outcome=row["outcome"] or None,
        sha256=hashlib.sha256(payload).digest(), place=place, payload=payload, partial=True,
        recipient_event_id=row.get("recipient_event_id") or None,
    )  # fmt: skip
