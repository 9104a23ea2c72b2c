"""A report's values told again to a form, as if the comparison ran now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from auditstore.errors import AuditStoreError
from auditstore.reconciliation.differing import Differences, FieldChange
from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.patterns import Delay, Pattern, Period, Sort, Tally
from auditstore.reconciliation.reports import Report
from auditstore.reconciliation.summary import Summary


def replay(values: Mapping[str, Any], report: Report) -> None:
    """Tell a form of the report what it would have been told; findings that were kept."""
    for stream in values["streams"]:
        number = stream["round"]
        for each in values["findings"]:
            if each["comparison"] == stream["comparison"]:
                report.finding(_finding(each), number)
        report.stream(summary(stream), number)
    report.end(values["exit_code"])


def _finding(values: Mapping[str, Any]) -> Finding:
    known = _known(Finding, values)
    told = known.get("fields")
    known["kind"] = Kind(values["kind"])
    known["fields"] = told and Differences(
        tuple(FieldChange(**change) for change in told["changes"]), told["left_out"], told["note"]
    )
    return Finding(**known)


def summary(values: Mapping[str, Any]) -> Summary:
    """A stream's counts."""
    known = _known(Summary, values)
    known["counts"] = Counter({Kind(kind): count for kind, count in values["counts"].items()})
    known["intervals"] = tuple((start, end) for start, end in values["intervals"])
    if values["compared_at"] is not None:
        known["compared_at"] = datetime.fromisoformat(values["compared_at"])
    known["pattern"] = pattern(values["pattern"])
    error = values["error"]
    if error is not None:
        known["error"] = AuditStoreError(error["message"], hint=error["hint"])
        known["error"].code = error["code"]
    return Summary(**known)


def pattern(values: Mapping[str, Any] | None) -> Pattern | None:
    """The counts by time and kind, and the delays."""
    if values is None:
        return None
    delay = values["delay"]
    return Pattern(
        step=values["step"],
        periods=tuple(Period(each["start"], Tally(**each["tally"])) for each in values["periods"]),
        sorts=_sorts(values["sorts"]),
        sorts_left_out=values["sorts_left_out"],
        differing=_sorts(values["differing"]),
        differing_left_out=values["differing_left_out"],
        delay=delay
        and Delay(**{**delay, "histogram": tuple((upper, n) for upper, n in delay["histogram"])}),
    )


def _sorts(values: list[Mapping[str, Any]]) -> tuple[Sort, ...]:
    return tuple(
        Sort(each["type"], each["outcome"], Tally(**each["tally"]), each["start"])
        for each in values
    )


def _known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What this version's class has of what another may have written."""
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}
