"""Reconciliations that run while a page watches them: threads of this process, one at a time
for a flow, their reports in a folder that goes with the process.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

from sqlalchemy import Connection, Engine

from auditstore import credentials, database
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Finding, Scope, Summary, compare_stream, kept
from auditstore.reconciliation.document import About, Document
from auditstore.reconciliation.reports import (
    FORMATS,
    Report,
    ReportFormat,
    exit_code,
    open_report,
)
from auditstore.sql import server
from auditstore.sql.failures import translated
from auditstore.streams import Stream
from auditstore.vault import Vault
from auditstore.web.console.pages import installed_version

_KEPT: Final = 50
_SHOWN_FINDINGS: Final = 200
_RESULTS: Final[tuple[Literal["reconciled", "differences", "not compared"], ...]] = (
    "reconciled", "differences", "not compared",
)  # fmt: skip


@dataclass(slots=True)
class ReconcileJob:
    """One reconciliation; written by its thread, read by the pages.

    Of the findings the first 200 are shown; the reports have all.
    """

    job_id: str
    flow_id: str
    scope: Scope
    asked_by: str
    began: datetime
    streams: Sequence[Stream]
    folder: Path
    through: str = "console"
    stage: str = "Beginning"
    done: int = 0
    total: int = 0
    summaries: list[Summary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    found: int = 0
    ended: datetime | None = None
    number: int | None = None
    not_kept: AuditStoreError | None = None

    @property
    def result(self) -> str:
        """``running``, ``reconciled``, ``differences`` or ``not compared``."""
        if self.ended is None:
            return "running"
        # What broke off has compared less than it was to compare, whatever the rest says.
        whole = len(self.summaries) == len(self.streams)
        return _RESULTS[exit_code(self.summaries)] if whole else "not compared"

    # --- told by the comparison -------------------------------------------------------

    def listing(self, objects: int) -> None:
        """So many objects are listed."""
        self.stage, self.total = f"{objects:,} objects listed", 0

    def comparing(self, done: int, total: int, bytes_read: int) -> None:
        """So many of the files are compared."""
        self.stage, self.done, self.total = f"{done:,} of {total:,} files compared", done, total
        if bytes_read:
            self.stage += f", {bytes_read / 1024**2:.1f} MiB read"

    def report(self, form: ReportFormat) -> Path:
        """Where the report of this form lies."""
        return self.folder / f"report.{'txt' if form == 'text' else form}"


class ReconcileJobs:
    """The reconciliations of this process, the newest 50."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault
        self._jobs: OrderedDict[str, ReconcileJob] = OrderedDict()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._folder = Path(tempfile.mkdtemp(prefix="auditstore-reconcile-"))

    def start(
        self, flow_id: str, of_flow: Sequence[Stream], scope: Scope, *, asked_by: str,
        through: str = "console",
    ) -> ReconcileJob:  # fmt: skip
        """Begin one; ConfigurationError while another one of the flow runs."""
        job_id = uuid4().hex
        folder = self._folder / job_id
        with self._lock:
            if any(each.flow_id == flow_id and each.ended is None for each in self._jobs.values()):
                raise ConfigurationError(
                    "a reconciliation of this flow runs already", hint="Wait until it is over."
                )
            job = ReconcileJob(
                job_id, flow_id, scope, asked_by, datetime.now(UTC), of_flow, folder, through
            )  # fmt: skip
            self._jobs[job_id] = job
            self._forget_old()
            self._threads = [each for each in self._threads if each.is_alive()]
            thread = threading.Thread(target=self._run, args=(job,), name=f"reconcile-{job_id}")
            self._threads.append(thread)
        folder.mkdir()
        thread.start()
        return job

    def of_flow(self, flow_id: str) -> list[ReconcileJob]:
        """The flow's reconciliations, the newest first."""
        with self._lock:
            return [each for each in reversed(self._jobs.values()) if each.flow_id == flow_id]

    def get(self, flow_id: str, job_id: str) -> ReconcileJob | None:
        """One of the flow's reconciliations."""
        with self._lock:
            job = self._jobs.get(job_id)
        return job if job is not None and job.flow_id == flow_id else None

    def close(self) -> None:
        """Wait for what runs, and remove the reports."""
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _forget_old(self) -> None:
        while len(self._jobs) > _KEPT:
            job_id = next((key for key, job in self._jobs.items() if job.ended is not None), None)
            if job_id is None:
                return
            shutil.rmtree(self._jobs.pop(job_id).folder, ignore_errors=True)

    def _run(self, job: ReconcileJob) -> None:
        try:
            with translated(), self._engine.connect() as connection:
                about = _about(connection, job)
            # One for each form: a form tells its document all that it is told.
            documents = {form: Document(about) for form in FORMATS}
            with ExitStack() as stack:
                reports = [
                    open_report(
                        form,
                        stack.enter_context(
                            job.report(form).open("w", encoding="utf-8", newline="")
                        ),
                        document,
                    )
                    for form, document in documents.items()
                ]
                for stream in job.streams:
                    self._compare(job, stream, reports)
                result = exit_code(job.summaries)
                for document, report in zip(documents.values(), reports, strict=True):
                    document.close(result, datetime.now(UTC))
                    report.end(result)
            with translated(), self._engine.begin() as connection:
                job.number = kept.keep(connection, documents["json"].values())
        except AuditStoreError as error:
            job.not_kept = error
        finally:
            job.ended = datetime.now(UTC)

    def _compare(self, job: ReconcileJob, stream: Stream, reports: Sequence[Report]) -> None:
        def take(finding: Finding) -> None:
            job.found += 1
            if len(job.findings) < _SHOWN_FINDINGS:
                job.findings.append(finding)
            for report in reports:
                report.finding(finding, 1)

        job.stage, job.done, job.total = f"Stream {stream.stream_id}", 0, 0
        try:
            summary = compare_stream(
                self._engine, stream.stream_id, self._opener(stream), job.scope, report=take,
                progress=job,
            )  # fmt: skip
        except AuditStoreError as error:
            summary = Summary(
                stream.stream_id, stream.flow_id, stream.url, job.scope.level, error=error
            )
        job.summaries.append(summary)
        for report in reports:
            report.stream(summary, 1)

    def _opener(self, stream: Stream) -> Callable[[], ObjectStore]:
        from exporters.stores import open_store  # noqa: PLC0415  # the composition root

        def opened() -> ObjectStore:
            with translated(), self._engine.connect() as connection:
                secret = credentials.secret_of(connection, self._vault, stream.credential_id)
            return open_store(
                stream.destination, region=stream.region, secret=secret, options=stream.options
            )

        return opened


def _about(connection: Connection, job: ReconcileJob) -> About:
    return About(
        started_at=server.clock(connection),
        actor=f"{job.asked_by} ({job.through})",
        database_user=server.session_user(connection),
        versions={
            "auditstore": installed_version(),
            "schema": str(database.schema_revision(connection)),
            "server": server.full_version(connection),
        },
        scope={
            "level": job.scope.level, "since": job.scope.since, "until": job.scope.until,
            "flow": job.flow_id, "stream": None, "repair": "no", "views": None,
        },
    )  # fmt: skip
