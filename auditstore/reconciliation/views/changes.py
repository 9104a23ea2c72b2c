"""In which fields an event of two views differs, as findings carry it."""

from __future__ import annotations

from dataclasses import dataclass

from auditstore.reconciliation.differing import (
    SHOWN,
    Differences,
    FieldChange,
    column_change,
    differences,
)
from auditstore.reconciliation.views import sameness
from auditstore.reconciliation.views.records import Key, Record


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one event: in words, and field by field where that can be told."""

    in_words: str
    fields: Differences | None


def change_of(
    record: Record, ours: dict[Key, bytes], theirs: dict[Key, bytes], *, values: bool
) -> Change | None:
    """How two snapshots of ``record`` differ; ``None`` if only their spelling does.

    A partial record is compared by its columns. With ``values`` those of both sides are told.
    """
    one, other = ours.get(record.key), theirs.get(record.key)
    if one is None or other is None:
        return Change(sameness.in_words(None), None)
    if record.partial:
        names = sameness.differing_columns(one, other)
        found = None if names is None else _columns(names, one, other, values=values)
    else:
        names = sameness.differing_fields(one, other)
        found = differences(one, other, values=values, by_value=True)
    if names == []:
        return None
    if names and (found is None or not found.changes):
        # A name that stands twice, or digits that no number of this machine holds.
        found = Differences(
            tuple(FieldChange(name, "changed", None, None) for name in names[:SHOWN]),
            max(len(names) - SHOWN, 0),
        )
    return Change(sameness.in_words(names), found)


def _columns(names: list[str], row: bytes, whole: bytes, *, values: bool) -> Differences:
    cells = sameness.cells(row)
    changes = (
        column_change(name, cells[name], sameness.value_at(whole, name), values=values)
        for name in names[:SHOWN]
    )
    return Differences(tuple(changes), max(len(names) - SHOWN, 0))
