"""Reconciliations as jobs: begin one, ask how far it is, fetch its report."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from auditstore import streams
from auditstore.errors import ConfigurationError, NotFound
from auditstore.reconciliation import Scope
from auditstore.sql.console import kept_reports
from auditstore.web.api.auth import Caller, Operator, Viewer
from auditstore.web.api.events import Moment
from auditstore.web.api.problems import Refused, answers
from auditstore.web.api.state import Api, FlowId, InApi
from auditstore.web.console import reconcile_reports
from auditstore.web.console.reconcile_jobs import ReconcileJob

router = APIRouter(prefix="/flows/{flow_id:path}/reconciliations", tags=["Reconciliations"])

Flow = Annotated[FlowId, Path(description="The flow's id.")]
JobId = Annotated[
    str,
    Path(
        pattern="^([0-9a-f]{32}|[0-9]{1,18})$",
        description="What starting it answered, or its number.",
    ),
]
_TYPES: Final[dict[str, str]] = {
    "text": "text/plain", "json": "application/json", "csv": "text/csv", "html": "text/html",
}  # fmt: skip


class Wanted(BaseModel):
    """What to compare: half-open, by the time that an event was recorded."""

    model_config = ConfigDict(extra="forbid")

    level: Literal["files", "events"] = Field(
        default="files", description="events reads every object."
    )
    since: Moment = Field(default=None, description="Inclusive.")
    until: Moment = Field(default=None, description="Exclusive.")


class Listed(BaseModel):
    """A reconciliation in short."""

    job_id: str = Field(description="Where to ask for it; of a kept one its number.")
    flow_id: str
    level: str
    since: datetime | None
    until: datetime | None
    asked_by: str
    began: datetime
    result: Literal["running", "reconciled", "differences", "not compared"]
    findings: int


class JobShown(Listed):
    """A reconciliation; `ended` is null while it runs."""

    ended: datetime | None
    stage: str = Field(description="How far it is, in words.")
    done: int = Field(description="Files compared in the present stream.")
    total: int
    number: int | None = Field(description="Of the report that the database keeps.")
    not_kept: str | None = Field(description="Why there is none, once it has ended.")


@router.get("", responses=answers())
def list_reconciliations(
    api: InApi, caller: Viewer, flow_id: Flow,
    limit: Annotated[int, Query(ge=1, le=1000, description="Of the kept ones.")] = 100,
) -> list[Listed]:  # fmt: skip
    """The flow's reconciliations, those that run first, then those kept, the newest first."""
    caller.insist_on(flow_id)
    # In this order: one that is kept meanwhile may be there twice, never not at all.
    running = [_shown(each) for each in api.jobs.unkept(flow_id)]
    with api.reading() as connection:
        found = kept_reports(connection, flow_id, limit=limit)
    return [*running, *(_listed(flow_id, each) for each in found)]


@router.post("", status_code=202, responses=answers(409))
def start_reconciliation(
    api: InApi, caller: Operator, flow_id: Flow, given: Wanted, response: Response
) -> JobShown:
    """Begin one; the header Location says where to ask for it. One at a time for a flow."""
    caller.insist_on(flow_id)
    scope = Scope(given.level, given.since, given.until)
    with api.reading() as connection:
        of_flow = streams.find(connection, flow_id=flow_id)
        if not of_flow:
            raise NotFound(
                "the flow has no stream, so there is nothing to compare with",
                hint="POST /api/v1/streams adds one.",
            )
        about = reconcile_reports.about(connection, flow_id, scope, caller.actor)
    try:
        job = api.jobs.start(flow_id, of_flow, scope, about=about)
    except ConfigurationError as error:
        raise Refused(409, "running", error.message, hint=error.hint) from error
    place = f"/api/v1/flows/{quote(flow_id, safe='')}/reconciliations/{job.job_id}"
    response.headers["location"] = place
    return _shown(job)


@router.get("/{job_id}", responses=answers())
def get_reconciliation(api: InApi, caller: Viewer, flow_id: Flow, job_id: JobId) -> JobShown:
    """How far it is, or what came of it."""
    return _shown(_job(api, caller, flow_id, job_id))


@router.get(
    "/{job_id}/report", response_class=Response,
    responses=answers(409) | {200: {
        "description": "The report.",
        "content": {kind: {"schema": {"type": "string"} if kind != "application/json"
                           else {"type": "object"}} for kind in _TYPES.values()},
    }},
)  # fmt: skip
def get_report(
    api: InApi, caller: Viewer, flow_id: Flow, job_id: JobId,
    form: Annotated[Literal["text", "json", "csv", "html"], Query(alias="format")] = "json",
) -> Response:  # fmt: skip
    """The report of a reconciliation that is over."""
    job = _job(api, caller, flow_id, job_id)
    if job.ended is None:
        raise Refused(
            409, "running", "the reconciliation still runs", hint="Ask again when it has ended."
        )
    if job.values is None:
        raise _no_report(job)
    # Never shown in this origin: the HTML form has a style of its own.
    headers = {"content-disposition": "attachment"}
    body = reconcile_reports.rendered(job.values, form)
    return Response(body, media_type=_TYPES[form], headers=headers)


def _no_report(job: ReconcileJob) -> NotFound:
    why = job.failure
    message = f"it has no report: {why.message}" if why else "it has no report"
    return NotFound(message, hint=why.hint if why else "Run it again.")


def _job(api: Api, caller: Caller, flow_id: str, job_id: str) -> ReconcileJob:
    caller.insist_on(flow_id)
    job = api.jobs.get(flow_id, job_id)
    if job is None and len(job_id) < 19:
        with api.reading() as connection:
            job = reconcile_reports.read(connection, flow_id, int(job_id))
    if job is None:
        raise NotFound(
            "there is no such reconciliation of this flow",
            hint=f"GET /api/v1/flows/{flow_id}/reconciliations lists them.",
        )
    return job


def _listed(flow_id: str, row: Any) -> Listed:
    scope = row.scope
    return Listed(
        job_id=str(row.number), flow_id=flow_id, level=scope["level"], since=scope["since"],
        until=scope["until"], asked_by=row.actor, began=row.started_at, result=row.result,
        findings=sum(row.counts.values()),
    )  # fmt: skip


def _shown(job: ReconcileJob) -> JobShown:
    return JobShown(
        job_id=job.job_id, flow_id=job.flow_id, level=job.scope.level, since=job.scope.since,
        until=job.scope.until, asked_by=job.asked_by, began=job.began, ended=job.ended,
        stage=job.stage, done=job.done, total=job.total, findings=job.found, number=job.number,
        not_kept=job.failure.message if job.failure else None,
        result=cast("Any", job.result),
    )  # fmt: skip
