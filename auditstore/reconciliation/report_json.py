"""The report as one JSON object, written while the comparison runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final, TextIO

import orjson

from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.report_csv import writable
from auditstore.reconciliation.scope import Scope
from auditstore.reconciliation.summary import Summary

#: Of the shape described in ``docs/reference/reconciliation.md``.
VERSION: Final = 1
_RESULTS: Final = {0: "reconciled", 1: "differences", 2: "not compared"}


class JsonReport:
    """Holds no finding: they are written into the array ``findings`` as they come."""

    def __init__(self, out: TextIO, scope: Scope) -> None:
        self._out = out
        self._streams: list[dict[str, Any]] = []
        self._written = 0
        head = {
            "version": VERSION, "level": scope.level, "since": scope.since, "until": scope.until,
        }  # fmt: skip
        out.write(_dumps(head)[:-1] + ',"findings":[')

    def finding(self, finding: Finding, comparison_round: int) -> None:
        """One element, on a line of its own."""
        values = {
            name: writable(value) if isinstance(value, str) else value
            for name, value in asdict(finding).items()
        }
        values["kind"] = finding.kind.value
        values |= {"round": comparison_round, "difference": finding.kind.is_difference}
        self._out.write((",\n" if self._written else "\n") + _dumps(values))
        self._written += 1

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """Kept until the end: there is one a stream, or two."""
        values = asdict(summary)
        error = summary.error
        values |= {
            "round": comparison_round,
            "result": summary.result,
            "differences": summary.differences,
            "counts": {kind.value: summary.counts[kind] for kind in Kind},
            "error": error and {"code": error.code, "message": error.message, "hint": error.hint},
        }
        self._streams.append(values)

    def end(self, result: int) -> None:
        """Close the array, and the object with what is known only now."""
        tail = {"streams": self._streams, "result": _RESULTS[result], "exit_code": result}
        self._out.write("\n]," + _dumps(tail)[1:] + "\n")


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()
