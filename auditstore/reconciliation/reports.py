"""What every form of the report has in common, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol, TextIO

from auditstore.reconciliation.document import Document
from auditstore.reconciliation.findings import Finding
from auditstore.reconciliation.report_csv import CsvReport
from auditstore.reconciliation.report_json import JsonReport
from auditstore.reconciliation.report_text import TextReport
from auditstore.reconciliation.summary import Summary

ReportFormat = Literal["text", "json", "csv", "html"]
FORMATS: Final[tuple[ReportFormat, ...]] = ("text", "json", "csv", "html")

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
        """All is compared; ``result`` is the exit code. The document is closed by then."""


def open_report(
    form: ReportFormat, out: TextIO, document: Document, *, values: bool = False
) -> Report:
    """A report that is written to ``out`` while the comparison runs.

    It tells ``document`` all that it is told. ``values`` shows those of fields that differ, in
    every form but HTML, which shows the document.
    """
    if form == "html":
        # Jinja is in an extra, and slow to import.
        from auditstore.reconciliation.html import HtmlReport  # noqa: PLC0415

        return _Both(document, HtmlReport(out, document))
    if form == "json":
        return _Both(document, JsonReport(out, document, values=values))
    return _Both(document, CsvReport(out) if form == "csv" else TextReport(out))


class _Both:
    """The document that is kept, and the form that is shown."""

    def __init__(self, document: Document, report: Report) -> None:
        self._document = document
        self._report = report

    def finding(self, finding: Finding, comparison_round: int) -> None:
        """Both take it."""
        self._document.finding(finding, comparison_round)
        self._report.finding(finding, comparison_round)

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """Both take it."""
        self._document.stream(summary, comparison_round)
        self._report.stream(summary, comparison_round)

    def end(self, result: int) -> None:
        """The document was closed before."""
        self._report.end(result)


def exit_code(last_rounds: Sequence[Summary]) -> int:
    """0 reconciled, 1 differences, 2 when any stream could not be compared."""
    if any(summary.error is not None for summary in last_rounds):
        return NOT_COMPARED
    return DIFFERENCES if any(summary.differences for summary in last_rounds) else RECONCILED
