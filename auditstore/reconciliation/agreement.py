"""A file that was read ahead and is as it should be in everything; nothing else ends here."""

from __future__ import annotations

from auditstore.ledger import Delivery
from auditstore.reconciliation import contents
from auditstore.reconciliation.deciding import Case
from auditstore.reconciliation.job import Job
from auditstore.reconciliation.reading import Reading
from auditstore.sql.comparison import Side


def agrees(case: Case, reading: Reading, side: Side | None) -> bool:
    """Whether store, outbox and ledger say the same of the file, so that there is nothing to find.

    Stored bytes may differ from what was delivered where the content does not.
    """
    delivery = case.delivery
    if delivery is None or reading.trouble:
        return False
    if case.reads == "stored":
        return reading.stored == delivery.object_sha256
    if side is None or not side.intact or side.events == 0 or reading.unended:
        return False
    if (reading.events, reading.digests) != (side.events, side.digests):
        return False
    if case.reads == "objects":
        told = (delivery.content_sha256, delivery.object_sha256, delivery.object_bytes)
        return (reading.content, reading.stored, reading.stored_size) == told
    return reading.content == delivery.content_sha256


def take(job: Job, case: Case, delivery: Delivery, reading: Reading) -> None:
    """Count a file that agrees, as comparing it event by event would have."""
    summary = job.summary
    events = case.row.sealed.event_count if case.reads == "stored" else reading.events
    summary.bytes_read += reading.stored_size
    summary.files_found += 1
    summary.files_matched += 1
    summary.events_found += events
    summary.events_matched += events
    job.counting.whole(matched=True)
    if reading.stored != delivery.object_sha256:
        contents.note_recompressed(job, case.row, delivery, reading.stored)
