"""Damage to an export, or to what LeadConduit's API tells."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from hypothesis import strategies as st
from reconciliation.damage.export import FILES, FORMS, NEEDED, TABLES, Export, Form, Seen
from reconciliation.damage.picture import edited, event_id_of

from auditstore.reconciliation import Kind

_GZIP_TRAILER = 8


class ExportDamage(ABC):
    """One damage; a number names an event of any export."""

    forms: ClassVar[frozenset[Form]] = frozenset(FORMS)

    @abstractmethod
    def plant(self, export: Export) -> bool:
        """Change the export; false if there is nothing to change."""

    @abstractmethod
    def expected(self, untouched: Export) -> Iterator[Seen]:
        """What must be found where nothing else is damaged, unless all of it is unreadable."""


def _id(event: int, untouched: Export) -> str:
    return event_id_of(untouched.items[event % len(untouched.items)]) or ""


@dataclass(frozen=True)
class Drop(ExportDamage):
    """An event is not there."""

    event: int

    def plant(self, export: Export) -> bool:
        if not export.items or export.rows_cut:
            return False
        del export.items[self.event % len(export.items)]
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:
        yield Seen(Kind.UNKNOWN_EVENT, _id(self.event, untouched))


@dataclass(frozen=True)
class Edit(ExportDamage):
    """An event says something else."""

    event: int
    how: str

    def plant(self, export: Export) -> bool:
        at = self.event % len(export.items) if export.items else 0
        if not export.items or event_id_of(export.items[at]) is None:
            return False
        export.items[at] = edited(export.items[at], self.how)
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:
        yield Seen(Kind.CHANGED_EVENT, _id(self.event, untouched))


@dataclass(frozen=True)
class Respell(ExportDamage):
    """An event is spelled otherwise and says the same, which is no damage."""

    event: int

    def plant(self, export: Export) -> bool:
        at = self.event % len(export.items) if export.items else 0
        if not export.items or event_id_of(export.items[at]) is None:
            return False
        fields = json.loads(export.items[at])
        export.items[at] = json.dumps(fields, sort_keys=True, separators=(" ,", " : ")).encode()
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:  # noqa: ARG002  # nothing
        return iter(())


@dataclass(frozen=True)
class Shuffle(ExportDamage):
    """The events stand in another order, which an export may have."""

    step: int
    forms = frozenset(FILES)

    def plant(self, export: Export) -> bool:
        if export.rows_cut:
            return False
        at = self.step % (len(export.items) + 1)
        export.items[:] = export.items[at:] + export.items[:at]
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:  # noqa: ARG002  # nothing
        return iter(())


@dataclass(frozen=True)
class Stranger(ExportDamage):
    """An event is there that the other view has not."""

    spare: int

    def plant(self, export: Export) -> bool:
        row = export.spare[self.spare % len(export.spare)]
        if export.find(row.event_id) is not None:
            return False
        export.items.append(row.payload)
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:
        yield Seen(Kind.MISSING_EVENT, untouched.spare[self.spare % len(untouched.spare)].event_id)


@dataclass(frozen=True)
class Repeat(ExportDamage):
    """An id stands there twice, with the same content or with another."""

    event: int
    how: str | None
    forms = frozenset(FILES)

    def plant(self, export: Export) -> bool:
        if not export.items:
            return False
        item = export.items[self.event % len(export.items)]
        if event_id_of(item) is None:
            return False
        export.items.append(item if self.how is None else edited(item, self.how))
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:
        yield Seen(Kind.DUPLICATE_EVENT, _id(self.event, untouched))


@dataclass(frozen=True)
class NoEvent(ExportDamage):
    """In the place of an event stands JSON that is none."""

    event: int
    text: bytes
    forms = frozenset(FILES)

    def plant(self, export: Export) -> bool:
        if not export.items:
            return False
        export.items[self.event % len(export.items)] = self.text
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:
        yield Seen(Kind.UNREADABLE_LINE)
        yield Seen(Kind.UNKNOWN_EVENT, _id(self.event, untouched))


@dataclass(frozen=True)
class NoJson(ExportDamage):
    """In the place of an event stands what is no JSON: an array ends there, or no text: a table."""

    event: int
    text: bytes
    forms: ClassVar[frozenset[Form]] = frozenset({"array", "lines", "payloads"})

    def plant(self, export: Export) -> bool:
        return NoEvent(self.event, self.text).plant(export)

    def expected(self, untouched: Export) -> Iterator[Seen]:
        return NoEvent(self.event, self.text).expected(untouched)


@dataclass(frozen=True)
class CutRow(ExportDamage):
    """A row of a table lacks a cell."""

    event: int
    forms = TABLES

    def plant(self, export: Export) -> bool:
        if not export.items:
            return False
        export.rows_cut.add(self.event % len(export.items))
        return True

    def expected(self, untouched: Export) -> Iterator[Seen]:
        yield Seen(Kind.UNREADABLE_LINE)
        yield Seen(Kind.UNKNOWN_EVENT, _id(self.event, untouched))


# --- the file as a whole --------------------------------------------------------------


class Breaking(ExportDamage):
    """One after which nobody can read the export to its end."""

    def expected(self, untouched: Export) -> Iterator[Seen]:  # noqa: ARG002  # an error
        return iter(())

    def plant(self, export: Export) -> bool:
        """Note it too."""
        export.breaks.append(type(self).__name__)
        return True


@dataclass(frozen=True)
class DropColumn(Breaking):
    """A column that every table must have is missing."""

    column: int
    forms = TABLES

    def plant(self, export: Export) -> bool:
        needed = [name for name in export.columns if name in NEEDED]
        if not needed:
            return False
        export.columns.remove(needed[self.column % len(needed)])
        return True


@dataclass(frozen=True)
class RepeatColumn(Breaking):
    """A column stands there twice."""

    column: int
    forms = TABLES

    def plant(self, export: Export) -> bool:
        if not export.columns:
            return False
        export.columns.append(export.columns[self.column % len(export.columns)])
        return True


@dataclass(frozen=True)
class CutFile(Breaking):
    """A gzip file, or an array, ends too early."""

    bytes_cut: int
    forms = frozenset(FILES)

    def plant(self, export: Export) -> bool:
        if not (export.packed or export.form == "array"):
            return False
        export.cut = self.bytes_cut
        return super().plant(export)


@dataclass(frozen=True)
class FlipTrailer(Breaking):
    """A gzip file has another checksum or size than its content."""

    at: int
    forms = frozenset(FILES)

    def plant(self, export: Export) -> bool:
        if not export.packed or export.flip:
            return False
        export.flip = 2 + self.at % (_GZIP_TRAILER - 1)
        return super().plant(export)


@dataclass(frozen=True)
class NoUtf8(Breaking):
    """An array or a table ends in bytes that are no text."""

    text: bytes
    forms: ClassVar[frozenset[Form]] = frozenset({"array", "payloads", "columns"})

    def plant(self, export: Export) -> bool:
        export.end += self.text
        return super().plant(export)


_some: Final = st.integers(0, 11)
_no_events: Final = st.sampled_from([b"[]", b"7", b'{"id": 5}', b'{"id": ""}'])
_no_json: Final = st.sampled_from([b"{oops", b'{"id": "\xff"}', b'{"id": NaN}'])
_how: Final = st.sampled_from(["exported", "said otherwise in the export"])

KINDS: Final[dict[type[ExportDamage], st.SearchStrategy[ExportDamage]]] = {
    Drop: st.builds(Drop, _some),
    Edit: st.builds(Edit, _some, _how),
    Respell: st.builds(Respell, _some),
    Shuffle: st.builds(Shuffle, _some),
    Stranger: st.builds(Stranger, _some),
    Repeat: st.builds(Repeat, _some, st.one_of(st.none(), _how)),
    NoEvent: st.builds(NoEvent, _some, _no_events),
    NoJson: st.builds(NoJson, _some, _no_json),
    CutRow: st.builds(CutRow, _some),
    DropColumn: st.builds(DropColumn, _some),
    RepeatColumn: st.builds(RepeatColumn, _some),
    CutFile: st.builds(CutFile, st.integers(1, 100)),
    FlipTrailer: st.builds(FlipTrailer, _some),
    NoUtf8: st.builds(NoUtf8, st.sampled_from([b"\xff", b"\xfe\xff"])),
}  # fmt: skip


def kinds(form: Form) -> list[type[ExportDamage]]:
    """Those that can be done to a form."""
    return [kind for kind in KINDS if form in kind.forms]


def combinations(form: Form) -> st.SearchStrategy[list[ExportDamage]]:
    """Up to four damages at once; those that break all of it are a few of many."""
    one = st.sampled_from(kinds(form)).flatmap(KINDS.__getitem__)
    return st.lists(one, min_size=1, max_size=4)
