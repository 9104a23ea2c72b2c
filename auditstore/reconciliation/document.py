"""A report as plain values: what is kept, hashed, and shown in every form later.

It holds the first findings of each kind and counts the others, so its size is bounded whatever
is found. It never holds a value of an event.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson

from auditstore.errors import ReportDamaged
from auditstore.reconciliation import patterns
from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.report_csv import writable
from auditstore.reconciliation.summary import Summary

#: Of the shape described in ``docs/reference/reconciliation.md``.
VERSION: Final = 1
#: How many findings of each kind, stream and round are kept, and how many in all.
MOST_OF_A_KIND: Final = 100
MOST_FINDINGS: Final = 2000
RESULTS: Final = {0: "reconciled", 1: "differences", 2: "not compared"}

_SUMMED: Final = (
    "files_expected", "files_found", "files_matched", "events_expected", "events_found",
    "events_matched", "events_rewritten", "objects_listed", "verification_objects", "bytes_read",
    "planned", "repaired",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """Who compared what, when, and with which versions of everything.

    ``scope`` says what was asked for, ``versions`` what auditstore, schema and server were.
    """

    started_at: datetime
    actor: str
    database_user: str
    versions: Mapping[str, str]
    scope: Mapping[str, Any]


class Document:
    """A report's values; takes findings and summaries as every form of the report does."""

    def __init__(self, about: About) -> None:
        self.about = about
        self._frame: dict[str, Any] = {}
        self._findings: list[dict[str, Any]] = []
        self._kept: Counter[tuple[int, Kind]] = Counter()
        self._digest = hashlib.sha256()
        self._total = 0
        self._streams: list[dict[str, Any]] = []
        self._rounds: list[tuple[int, Summary]] = []

    def finding(self, finding: Finding, comparison_round: int) -> None:
        """Kept if it is among the first of its kind; hashed and counted in any case."""
        values = finding_values(finding, comparison_round, self.comparison, values=False)
        self._digest.update(canonical(values) + b"\n")
        self._total += 1
        kind = (self.comparison, finding.kind)
        if self._kept[kind] < MOST_OF_A_KIND and len(self._findings) < MOST_FINDINGS:
            self._kept[kind] += 1
            self._findings.append(values)

    @property
    def comparison(self) -> int:
        """The number, from 1, of the comparison that goes on: findings come before its summary."""
        return len(self._streams) + 1

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """A comparison's counts; there are two of one that was repaired."""
        self._streams.append(stream_values(summary, comparison_round, self.comparison))
        self._rounds.append((comparison_round, summary))

    def values(self) -> dict[str, Any]:
        """The whole, with its own hash; :meth:`close` comes before."""
        left_out = self._total - len(self._findings)
        return sealed(self._frame | {"findings": self._findings, "findings_left_out": left_out})

    @property
    def frame(self) -> Mapping[str, Any]:
        """All but the findings; :meth:`close` comes before."""
        return self._frame

    def close(self, result: int, ended_at: datetime) -> None:
        """All is compared; ``result`` is the exit code."""
        about = self.about
        self._frame = _plain(
            {
                "version": VERSION,
                "started_at": about.started_at,
                "ended_at": ended_at,
                "actor": writable(about.actor),
                "database_user": about.database_user,
                "versions": dict(about.versions),
                **about.scope,
                "streams": self._streams,
                "totals": totals(self._rounds),
                "findings_total": self._total,
                "findings_sha256": self._digest.hexdigest(),
                "result": RESULTS[result],
                "exit_code": result,
            }
        )


def finding_values(
    finding: Finding, comparison_round: int, comparison: int, *, values: bool
) -> dict[str, Any]:
    """A finding as plain values; those of an event's fields only where they are asked for."""
    if finding.fields is not None and not values:
        finding = replace(finding, fields=finding.fields.masked())
    found: dict[str, Any] = _plain(
        {
            name: writable(value) if isinstance(value, str) else value
            for name, value in asdict(finding).items()
        }
    )
    found |= {
        "comparison": comparison,
        "round": comparison_round,
        "difference": finding.kind.is_difference,
    }
    return found


def stream_values(summary: Summary, comparison_round: int, comparison: int) -> dict[str, Any]:
    """A stream's counts as plain values."""
    error = summary.error
    # Without the error itself, which cannot be copied.
    values = asdict(replace(summary, error=None))
    values |= {
        "comparison": comparison,
        "round": comparison_round,
        "result": summary.result,
        "differences": summary.differences,
        "counts": {kind.value: summary.counts[kind] for kind in Kind},
        "error": error
        and {
            "code": error.code,
            "message": writable(error.message),
            "hint": writable(error.hint),
        },
    }
    return _plain(values)


def totals(rounds: Sequence[tuple[int, Summary]]) -> list[dict[str, Any]]:
    """The sum over all streams as first found; and once more after a repair of any."""
    first = [summary for number, summary in rounds if number == 1]
    if all(number == 1 for number, _ in rounds):
        return [_total(first, 1)]
    last: list[Summary] = []
    for number, summary in rounds:
        # A second round stands in the place of the first, which it follows.
        if number > 1:
            last.pop()
        last.append(summary)
    return [_total(first, 1), _total(last, 2)]


def _total(summaries: Sequence[Summary], number: int) -> dict[str, Any]:
    counts = sum((each.counts for each in summaries), Counter[Kind]())
    found = [each.pattern for each in summaries if each.pattern is not None]
    pattern = patterns.total(found)
    return _plain(
        {
            "round": number,
            "streams": len(summaries),
            "not_compared": sum(each.error is not None for each in summaries),
            **{name: sum(getattr(each, name) for each in summaries) for name in _SUMMED},
            "differences": sum(each.differences for each in summaries),
            "counts": {kind.value: counts[kind] for kind in Kind},
            "pattern": None if pattern is None else asdict(pattern),
        }
    )


# --- its own hash -------------------------------------------------------------------


def canonical(values: Mapping[str, Any]) -> bytes:
    """JSON in one spelling: ASCII, names sorted, no white space; as Python's ``json`` writes it."""
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with ``sha256``, the hash of the canonical JSON of the others."""
    return {**values, "sha256": hashlib.sha256(canonical(values)).hexdigest()}


def check_seal(values: Mapping[str, Any]) -> str:
    """The hash that a report carries; ReportDamaged if it is not that of the report."""
    told = values.get("sha256")
    computed = hashlib.sha256(
        canonical({name: value for name, value in values.items() if name != "sha256"})
    ).hexdigest()
    if told != computed:
        raise ReportDamaged(
            f"the report says its SHA-256 is {told}, and it is {computed}",
            hint="The report was altered after it was written, or is not complete.",
        )
    return computed


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    # Times become text as JSON has them, so that whoever parses it has the same values.
    plain: dict[str, Any] = orjson.loads(orjson.dumps(values, option=orjson.OPT_UTC_Z))
    return plain
