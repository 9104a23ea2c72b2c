"""The report as CSV: one line a finding, every finding."""

from __future__ import annotations

import csv
from dataclasses import fields
from typing import Final, TextIO

from auditstore.reconciliation.findings import Finding
from auditstore.reconciliation.summary import Summary

# What a spreadsheet would take for a formula or lose at the start of a cell, and our own mark.
_ACTIVE: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_FIELDS: Final = tuple(field.name for field in fields(Finding) if field.name != "kind")
#: The columns, in order.
COLUMNS: Final = ("round", "kind", "difference", *_FIELDS)


class CsvReport:
    """Writes the head line at once and each finding as it comes; summaries have no place."""

    def __init__(self, out: TextIO) -> None:
        # Text is quoted throughout: a bare carriage return would begin a row for a spreadsheet.
        self._writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        self._writer.writerow(COLUMNS)

    def finding(self, finding: Finding, comparison_round: int) -> None:
        """One line; empty where a field does not apply, ``true`` or ``false`` where it is one."""
        values = (
            comparison_round, finding.kind.value, finding.kind.is_difference,
            *(getattr(finding, name) for name in _FIELDS),
        )  # fmt: skip
        self._writer.writerow([_cell(value) for value in values])

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """Nothing: the exit code says how it went."""

    def end(self, result: int) -> None:
        """Nothing."""


def _cell(value: object) -> str | int:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value
    return inert(writable(value if isinstance(value, str) else str(value)))


def inert(text: str) -> str:
    """Text that no spreadsheet computes: an apostrophe goes before what could begin a formula.

    One that is there already gets another, so taking one off gives back every text.
    """
    return "'" + text if text.startswith(_ACTIVE) else text


def writable(text: str) -> str:
    """Text as UTF-8 can hold it: a folder's file names may be any bytes."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
