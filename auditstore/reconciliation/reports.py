"""What every form of the report has in common, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol, TextIO

from auditstore.reconciliation.findings import Finding
from auditstore.reconciliation.report_csv import CsvReport
from auditstore.reconciliation.report_json import JsonReport
from auditstore.reconciliation.report_text import TextReport
from auditstore.reconciliation.scope import Scope
from auditstore.reconciliation.summary import Summary

ReportFormat = Literal["text", "json", "csv"]

RECONCILED: Final = 0
DIFFERENCES: Final = 1
NOT_COMPARED: Final = 2


class Report(Protocol):
    """Takes findings as they come. Rounds are 1, and 2 for a comparison after a repair."""

    def finding(self, finding: Finding, comparison_round: int) -> None:
        """One finding of the stream that is being compared."""

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """A stream's comparison is over, also where it failed."""

    def end(self, result: int) -> None:
        """All is compared; ``result`` is the exit code."""


def open_report(form: ReportFormat, out: TextIO, scope: Scope) -> Report:
    """A report that is written to ``out`` while the comparison runs."""
    if form == "json":
        return JsonReport(out, scope)
    if form == "csv":
        return CsvReport(out)
    return TextReport(out)


def exit_code(last_rounds: Sequence[Summary]) -> int:
    """0 reconciled, 1 differences, 2 when any stream could not be compared."""
    if any(summary.error is not None for summary in last_rounds):
        return NOT_COMPARED
    return DIFFERENCES if any(summary.differences for summary in last_rounds) else RECONCILED
