"""An export, or what LeadConduit's API tells, as plain values; what a comparison finds of it."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from reconciliation.damage.picture import Row, event_id_of

from auditstore.reconciliation import Finding, Kind

Form = Literal["array", "lines", "payloads", "columns", "api"]
FORMS: Final[tuple[Form, ...]] = ("array", "lines", "payloads", "columns", "api")
FILES: Final = frozenset(FORMS) - {"api"}
TABLES: Final[frozenset[Form]] = frozenset({"payloads", "columns"})
#: Columns without which a table cannot be read: the first four, or the last alone.
NEEDED: Final = ("id", "type", "outcome", "vars.flow.id", "payload")
COLUMNS: Final = ("id", "type", "outcome", "reason", "vars.flow.id", "vars.lead.id")


class Seen(NamedTuple):
    """A finding by what it names."""

    kind: Kind
    event_id: str | None = None

    @classmethod
    def of(cls, finding: Finding) -> Seen:
        """What the product found."""
        return cls(finding.kind, finding.event_id)


@dataclass
class Export:
    """The events of a view, each as it stands there, and what is done to the file as a whole.

    ``rows_cut`` lack a cell, ``end`` follows what belongs there, ``cut`` bytes are gone at the
    end and the one at ``flip`` from it is another. ``breaks`` names what of this makes the whole
    unreadable.
    """

    form: Form
    packed: bool
    items: list[bytes]
    spare: tuple[Row, ...]
    columns: list[str] = field(default_factory=list)
    rows_cut: set[int] = field(default_factory=set)
    end: bytes = b""
    cut: int = 0
    flip: int = 0
    breaks: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, form: Form, rows: dict[int, Row], spare: tuple[Row, ...], *, packed: bool
    ) -> Export:
        """A whole one of these events."""
        columns = list(COLUMNS) if form == "columns" else ["note", "payload"]
        items = [rows[position].payload for position in sorted(rows)]
        return cls(form, packed and form != "api", items, spare, columns)

    def find(self, event_id: str) -> int | None:
        """Where an event stands first."""
        return next(
            (at for at, item in enumerate(self.items) if event_id_of(item) == event_id), None
        )

    @property
    def is_refused(self) -> bool:
        """Whether nobody can read it to its end.

        A file of lines is known by its first one: without a brace it is taken for another form.
        An array ends where something is no JSON, a table where something is no text.
        """
        if self.form == "lines":
            is_bad = not self.items[0].startswith(b"{")
        elif self.form == "array":
            is_bad = not all(map(_is_json, self.items))
        else:
            whole = [item for at, item in enumerate(self.items) if at not in self.rows_cut]
            is_bad = not all(map(_is_text, whole)) or self._lacks_columns()
        return bool(self.breaks) or is_bad

    def _lacks_columns(self) -> bool:
        columns = set(self.columns)
        is_whole = NEEDED[-1] in columns or columns >= set(NEEDED[:-1])
        return self.form in TABLES and (not is_whole or len(columns) < len(self.columns))

    # --- as bytes ---------------------------------------------------------------------

    def written(self) -> bytes:
        """The file."""
        if self.form == "array":
            content = b"[" + b",\n".join(self.items) + b"]"
        elif self.form == "lines":
            content = b"".join(item + b"\n" for item in self.items)
        else:
            content = self._table()
        content += self.end
        body = gzip.compress(content, mtime=0) if self.packed else content
        if self.flip:
            body = body[: -self.flip] + bytes([body[-self.flip] ^ 0x55]) + body[1 - self.flip :]
        return body[: len(body) - self.cut]

    def _table(self) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(self.columns)
        for number, item in enumerate(self.items):
            cells = [_cell(item, column) for column in self.columns]
            writer.writerow(cells[:-1] if number in self.rows_cut else cells)
        return out.getvalue().encode(errors="surrogateescape")

    # --- what is found ------------------------------------------------------------------

    def expectation(self, against: dict[str, bytes]) -> Counter[Seen]:
        """Every difference to another view's events, by id, and every item that is none."""
        return Counter(self._found(against))

    def _found(self, against: dict[str, bytes]) -> Iterator[Seen]:
        first: dict[str, bytes] = {}
        for number, item in enumerate(self.items):
            event_id = None if number in self.rows_cut else event_id_of(item)
            if event_id is None:
                yield Seen(Kind.UNREADABLE_LINE)
            elif event_id in first:
                yield Seen(Kind.DUPLICATE_EVENT, event_id)
            else:
                first[event_id] = item
        for event_id in against.keys() - first.keys():
            yield Seen(Kind.UNKNOWN_EVENT, event_id)
        for event_id, item in first.items():
            if event_id not in against:
                yield Seen(Kind.MISSING_EVENT, event_id)
            elif self._told(item) != self._told(against[event_id]):
                yield Seen(Kind.CHANGED_EVENT, event_id)

    def _told(self, item: bytes) -> Any:
        """What the form tells of an event."""
        if self.form != "columns":
            return json.loads(item)
        return [_cell(item, column) for column in self.columns]


def _is_text(item: bytes) -> bool:
    with suppress(UnicodeDecodeError):
        item.decode()
        return True
    return False


def _is_json(item: bytes) -> bool:
    with suppress(ValueError):
        json.loads(item.decode(), parse_constant=_refuse)
        return True
    return False


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not of JSON")


def _cell(item: bytes, column: str) -> str:
    if column == "payload":
        return item.decode(errors="surrogateescape")
    if column == "note":
        return "of no interest"
    if event_id_of(item) is None:
        return item.decode(errors="surrogateescape") if column == "id" else ""
    value: Any = json.loads(item)
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else str(value)
