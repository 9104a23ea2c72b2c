"""What is not in the store yet: within its time, late, or never to come."""

from __future__ import annotations

from auditstore.ledger import LedgerFile
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.job import Job


def note_undelivered(job: Job, row: LedgerFile) -> None:
    """Report a file that was sealed, and not delivered when the comparison began."""
    sealed, stream = row.sealed, job.stream
    is_there = False
    if sealed.format != "json":
        is_there = job.look_up(sealed.object_key) is not None
    if row.delivery is not None:
        kind, detail = Kind.NOT_YET_DUE, "delivered while the comparison ran; compare again"
    elif not stream.enabled and is_there:
        kind = Kind.OVERDUE
        detail = "written, and not recorded as delivered, because the stream was disabled"
    elif not stream.enabled:
        kind = Kind.MISSING_FILE
        detail = "sealed, and never delivered, because the stream is disabled; enable it again"
    elif job.view.is_late(sealed.first_recorded_at):
        kind, detail = Kind.OVERDUE, "sealed, and not delivered in time" + _cause(job)
    else:
        kind, detail = Kind.NOT_YET_DUE, "sealed, and to be delivered within the delay"
    job.recorder.note(
        kind, detail,
        sequence=sealed.sequence, position=sealed.first_position, object_key=sealed.object_key,
        expected=f"{sealed.event_count} events",
        found=f"first recorded at {sealed.first_recorded_at.isoformat()}",
    )  # fmt: skip


def note_waiting(job: Job) -> None:
    """Report the events that no file holds yet: one finding for the late, one for the rest."""
    waiting = job.view.waiting
    oldest = "" if waiting.oldest is None else f"oldest recorded at {waiting.oldest.isoformat()}"
    if waiting.late:
        job.recorder.note(
            Kind.OVERDUE, "not sealed in time" + _cause(job),
            expected=f"{waiting.late} events", found=oldest,
        )  # fmt: skip
    if waiting.count > waiting.late:
        job.recorder.note(
            Kind.NOT_YET_DUE, "to be sealed within the delay",
            expected=f"{waiting.count - waiting.late} events",
            found="" if waiting.late else oldest,
        )  # fmt: skip


def _cause(job: Job) -> str:
    """What the exporter last said about the stream, or that it said nothing."""
    status = job.stream.status
    if status.state == "streaming":
        return "; does the exporter run? `auditstore status` shows it"
    return f"; the stream is {status.state}: {status.cause or 'no cause given'}"
