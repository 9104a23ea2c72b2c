"""Kept reports of one flow: found, shown as a page, and rendered as a file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from auditstore.reconciliation import Scope, kept
from auditstore.reconciliation.document import About, canonical
from auditstore.reconciliation.replay import replay
from auditstore.reconciliation.report_csv import CsvReport
from auditstore.reconciliation.report_text import TextReport
from auditstore.reconciliation.reports import ReportFormat
from auditstore.web.console.reconcile_jobs import ReconcileJob


def about(connection: Connection, flow_id: str, scope: Scope, actor: str) -> About:
    """What a report says of itself; DatabaseRefused if it could not be kept."""
    kept.check_may_keep(connection)
    return kept.about(
        connection, actor=actor, level=scope.level, since=scope.since, until=scope.until,
        flow=flow_id,
    )  # fmt: skip


def read(connection: Connection, flow_id: str, number: int) -> ReconcileJob | None:
    """A kept report as the pages show one; ``None`` if it is not of this flow."""
    found = kept.read(connection, number)
    asked: Mapping[str, Any] = found.row.scope
    if asked["flow"] != flow_id or asked["views"] is not None:
        return None
    scope = Scope(asked["level"], _moment(asked["since"]), _moment(asked["until"]))
    job = ReconcileJob(
        str(number), flow_id, scope, found.row.actor, found.row.started_at, values=found.values,
        number=number, ended=found.row.ended_at,
    )  # fmt: skip
    replay(found.values, job)
    job.found = found.values["findings_total"]
    return job


def rendered(values: Mapping[str, Any], form: ReportFormat) -> str:
    """The report as `auditstore report show` writes it."""
    if form == "json":
        return canonical(values).decode() + "\n"
    if form == "html":
        from auditstore.reconciliation.html import render  # noqa: PLC0415  # slow to import

        return render(values)
    out = io.StringIO()
    replay(values, CsvReport(out) if form == "csv" else TextReport(out))
    return out.getvalue()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
