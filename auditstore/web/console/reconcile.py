"""The Reconciliation tab: run one for a period, watch it, read its report, take it away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, cast

from starlette.responses import Response

from auditstore import streams
from auditstore.errors import ConfigurationError, NotFound
from auditstore.reconciliation import Level, Scope
from auditstore.reconciliation.reports import FORMATS
from auditstore.sql import console as sql
from auditstore.web.console import reconcile_reports
from auditstore.web.console.flows import frame
from auditstore.web.console.pages import Visit, moved, shown
from auditstore.web.console.reconcile_jobs import ReconcileJob, ReconcileJobs

_LISTED: Final = 100
_TYPES: Final = {
    "text": "text/plain; charset=utf-8", "json": "application/json",
    "csv": "text/csv; charset=utf-8", "html": "text/html; charset=utf-8",
}  # fmt: skip


def overview(visit: Visit) -> Response:
    """The form, and the reconciliations so far."""
    return _shown(visit, {}, {})


def start(visit: Visit) -> Response:
    """Begin a reconciliation for the period that the form names."""
    flow_id = visit.flow_id
    typed = {name: visit.form.get(name, "").strip() for name in ("since", "until", "level")}
    errors: dict[str, str] = {}
    since, until = (_moment(typed, name, errors) for name in ("since", "until"))
    if typed["level"] not in {"files", "events"}:
        errors["level"] = "Choose one of the two."
    with visit.reading() as connection:
        of_flow = streams.find(connection, flow_id=flow_id)
    if not of_flow:
        errors["level"] = "The flow has no stream, so there is nothing to compare with."
    if errors:
        return _shown(visit, typed, errors)
    try:
        scope = Scope(cast("Level", typed["level"]), since, until)
        with visit.reading() as connection:
            about = reconcile_reports.about(connection, flow_id, scope, visit.actor)
        job = _jobs(visit).start(flow_id, of_flow, scope, about=about)
    except ConfigurationError as error:
        field = "until" if "interval" in error.message else "level"
        text = "The end lies before the start." if field == "until" else f"{error.message}."
        return _shown(visit, typed, {field: text[:1].upper() + text[1:]})
    return moved(visit, "/flow/reconciliation/report", id=flow_id, job=job.job_id)


def report(visit: Visit) -> Response:
    """One reconciliation: progress while it runs, then what it found."""
    flow_id = visit.flow_id
    job = _job(visit)
    template = "reconcile_body.html" if visit.query.get("part") else "reconcile_report.html"
    return shown(
        visit, template, frame=frame(visit, flow_id), job=job, now=datetime.now(UTC),
        formats=FORMATS,
    )  # fmt: skip


def download(visit: Visit) -> Response:
    """The report as a file."""
    job, form = _job(visit), visit.query.get("form", "text")
    if form not in FORMATS or job.values is None:
        raise NotFound("there is no such report yet", hint="Wait until the comparison is over.")
    body = reconcile_reports.rendered(job.values, form)
    suffix = "txt" if form == "text" else form
    name = f"reconciliation-{job.began:%Y%m%dT%H%M%SZ}.{suffix}"
    # Never shown in this origin: the HTML form has a style of its own.
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(body, media_type=_TYPES[form], headers=headers)


def _shown(visit: Visit, typed: dict[str, str], errors: dict[str, str]) -> Response:
    flow_id = visit.flow_id
    with visit.reading() as connection:
        kept = sql.kept_reports(connection, flow_id, limit=_LISTED)
    return shown(
        visit, "reconcile.html", status=422 if errors else 200, frame=frame(visit, flow_id),
        kept=kept,
        typed={"since": "", "until": "", "level": "files", **typed}, errors=errors,
        jobs=_jobs(visit).unkept(flow_id), now=datetime.now(UTC),
    )  # fmt: skip


def _job(visit: Visit) -> ReconcileJob:
    flow_id, job_id = visit.flow_id, visit.query.get("job", "")
    job = _jobs(visit).get(flow_id, job_id)
    if job is None and job_id.isdecimal() and len(job_id) < 19:
        with visit.reading() as connection:
            job = reconcile_reports.read(connection, flow_id, int(job_id))
    if job is None:
        raise NotFound(
            "there is no such reconciliation of this flow", hint="Choose one of the list."
        )
    return job


def _jobs(visit: Visit) -> ReconcileJobs:
    return cast("ReconcileJobs", visit.state.reconcile_jobs)


def _moment(typed: dict[str, str], name: str, errors: dict[str, str]) -> datetime | None:
    text = typed[name]
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        errors[name] = "Write a date like 2026-11-24, or a time like 2026-11-24T09:00."
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment + timedelta(days=1) if name == "until" and len(text) == 10 else moment
