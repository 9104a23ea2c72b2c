"""Reconciliations that run while a page watches them: threads of this process, one at a time
for a flow. What they come to is kept in the database, like the report of the command.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Engine

from auditstore import credentials
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Finding, Scope, Summary, compare_stream, kept
from auditstore.reconciliation.document import RESULTS, About, Document
from auditstore.reconciliation.reports import NOT_COMPARED, exit_code
from auditstore.sql import server
from auditstore.sql.failures import translated
from auditstore.streams import Stream
from auditstore.vault import Vault

_REMEMBERED: Final = 50
_SHOWN_FINDINGS: Final = 200


@dataclass(slots=True)
class ReconcileJob:
    """One reconciliation; written by its thread, read by the pages.

    Of the findings the first 200 are shown; the reports have more. ``values`` is the report once
    all is compared, ``number`` under which it is kept, ``failure`` why it is not.
    """

    job_id: str
    flow_id: str
    scope: Scope
    asked_by: str
    began: datetime
    stage: str = "Beginning"
    done: int = 0
    total: int = 0
    summaries: list[Summary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    found: int = 0
    values: dict[str, Any] | None = None
    number: int | None = None
    failure: AuditStoreError | None = None
    ended: datetime | None = None

    @property
    def result(self) -> str:
        """``running``, ``reconciled``, ``differences`` or ``not compared``."""
        if self.ended is None:
            return "running"
        # What did not come to its end has proved nothing.
        return RESULTS[exit_code(self.summaries) if self.values is not None else NOT_COMPARED]

    # --- told by the comparison -------------------------------------------------------

    def listing(self, objects: int) -> None:
        """So many objects are listed."""
        self.stage, self.total = f"{objects:,} objects listed", 0

    def comparing(self, done: int, total: int, bytes_read: int) -> None:
        """So many of the files are compared."""
        self.stage, self.done, self.total = f"{done:,} of {total:,} files compared", done, total
        if bytes_read:
            self.stage += f", {bytes_read / 1024**2:.1f} MiB read"

    # --- as every form of a report is told --------------------------------------------

    def finding(self, finding: Finding, comparison_round: int) -> None:  # noqa: ARG002  # the protocol's
        """Counted, and shown if it is among the first."""
        self.found += 1
        if len(self.findings) < _SHOWN_FINDINGS:
            self.findings.append(finding)

    def stream(self, summary: Summary, comparison_round: int) -> None:  # noqa: ARG002  # the protocol's
        """A stream's comparison is over."""
        self.summaries.append(summary)

    def end(self, result: int) -> None:
        """All is compared; the summaries say with which result."""


class ReconcileJobs:
    """The reconciliations of this process, the newest 50."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault
        self._jobs: OrderedDict[str, ReconcileJob] = OrderedDict()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(
        self, flow_id: str, of_flow: Sequence[Stream], scope: Scope, *, about: About
    ) -> ReconcileJob:
        """Begin one; ConfigurationError while another one of the flow runs."""
        job = ReconcileJob(uuid4().hex, flow_id, scope, about.actor, datetime.now(UTC))
        with self._lock:
            if any(each.flow_id == flow_id and each.ended is None for each in self._jobs.values()):
                raise ConfigurationError(
                    "a reconciliation of this flow runs already", hint="Wait until it is over."
                )
            self._jobs[job.job_id] = job
            self._forget_old()
            self._threads = [each for each in self._threads if each.is_alive()]
            thread = threading.Thread(
                target=self._run, args=(job, of_flow, about), name=f"reconcile-{job.job_id}"
            )
            self._threads.append(thread)
        thread.start()
        return job

    def unkept(self, flow_id: str) -> list[ReconcileJob]:
        """The flow's that run, or could not be kept; the newest first."""
        with self._lock:
            return [
                each
                for each in reversed(self._jobs.values())
                if each.flow_id == flow_id and each.number is None
            ]

    def get(self, flow_id: str, job_id: str) -> ReconcileJob | None:
        """One of the flow's reconciliations."""
        with self._lock:
            job = self._jobs.get(job_id)
        return job if job is not None and job.flow_id == flow_id else None

    def close(self) -> None:
        """Wait for what runs."""
        for thread in self._threads:
            thread.join()

    def _forget_old(self) -> None:
        while len(self._jobs) > _REMEMBERED:
            job_id = next((key for key, job in self._jobs.items() if job.ended is not None), None)
            if job_id is None:
                return
            self._jobs.pop(job_id)

    def _run(self, job: ReconcileJob, of_flow: Sequence[Stream], about: About) -> None:
        document = Document(about)
        try:
            for stream in of_flow:
                self._compare(job, stream, document)
            with translated(), self._engine.begin() as connection:
                document.close(exit_code(job.summaries), server.clock(connection))
                job.values = document.values()
                job.number = kept.keep(connection, job.values)
        except AuditStoreError as error:
            job.failure, job.number = error, None
        finally:
            job.ended = datetime.now(UTC)

    def _compare(self, job: ReconcileJob, stream: Stream, document: Document) -> None:
        def take(finding: Finding) -> None:
            job.finding(finding, 1)
            document.finding(finding, 1)

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
        job.stream(summary, 1)
        document.stream(summary, 1)

    def _opener(self, stream: Stream) -> Callable[[], ObjectStore]:
        from exporters.stores import open_store  # noqa: PLC0415  # the composition root

        def opened() -> ObjectStore:
            with translated(), self._engine.connect() as connection:
                secret = credentials.secret_of(connection, self._vault, stream.credential_id)
            return open_store(
                stream.destination, region=stream.region, secret=secret, options=stream.options
            )

        return opened
