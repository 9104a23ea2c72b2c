"""One ledger row against the objects that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from auditstore.errors import AuditStoreError
from auditstore.layout import event_key
from auditstore.ledger import Delivery, LedgerFile
from auditstore.reconciliation import contents
from auditstore.reconciliation.agreement import agrees, take
from auditstore.reconciliation.deciding import Case
from auditstore.reconciliation.decoding import Undecodable, gunzip
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.job import Job
from auditstore.reconciliation.patterns import Tally
from auditstore.reconciliation.reading_ahead import Found
from auditstore.reconciliation.tallies import Key, hour_of
from auditstore.sql.comparison import Entry

_DIFFERING: Final = "CREATE TABLE differing (position INTEGER PRIMARY KEY, sha256 BLOB NOT NULL)"


def compare_file(job: Job, case: Case, delivery: Delivery, found: Found | None = None) -> None:
    """Compare a delivered file with its objects, and put missing ones back if that is wanted.

    What was ``found`` ahead can only say that all of it is well.
    """
    row, summary = case.row, job.summary
    summary.files_expected += 1
    summary.events_expected += row.sealed.event_count
    job.counting.expect(row)
    if found is not None and agrees(case, found.reading, found.side):
        take(job, case, delivery, found.reading)
    elif row.sealed.format == "json":
        _compare_objects(job, row, delivery)
    else:
        _compare_object(job, case, delivery)


# --- one object a file --------------------------------------------------------------


def _compare_object(job: Job, case: Case, delivery: Delivery) -> None:
    row, sealed, summary = case.row, case.row.sealed, job.summary
    if case.info is None:
        _note_missing(job, _Repair(job, row), row, sealed.object_key)
        if job.reads_events:
            contents.note_altered(job, row)
        return
    summary.files_found += 1
    if job.reads_events:
        matched = contents.compare_lines(job, row, delivery)
    else:
        matched = case.reads is None or _as_hashed(job, row, delivery)
        summary.events_found += sealed.event_count
        summary.events_matched += sealed.event_count if matched else 0
        job.counting.whole(matched=matched)
    summary.files_matched += matched


def _as_hashed(job: Job, row: LedgerFile, delivery: Delivery) -> bool:
    """Read the object; its bytes count, or else its uncompressed content."""
    key = row.sealed.object_key
    stored = _hash(job.read(key))
    if stored == delivery.object_sha256:
        return True
    if stored is None:
        _note_missing(job, _Repair(job, row), row, key)
        return False
    try:
        content = _hash(gunzip(job.read(key) or iter(())))
    except Undecodable as error:
        contents.note_changed(job, row, str(error))
        return False
    if content == delivery.content_sha256:
        contents.note_recompressed(job, row, delivery, stored)
        return True
    contents.note_changed(
        job, row, "the object holds other content than was delivered",
        expected=delivery.content_sha256, found=content,
    )  # fmt: skip
    return False


def _hash(chunks: Iterator[bytes] | None) -> bytes | None:
    if chunks is None:
        return None
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


# --- one object an event ------------------------------------------------------------


@dataclass(slots=True)
class _Outcome:
    """What the objects of a file came to; the digests are over all of them, end to end.

    Those that differ from the outbox are kept aside on disk until the last one was read: only
    then it shows which side was altered.
    """

    expected: int = 0
    found: int = 0
    matched: int = 0
    tallies: dict[Key, Tally] = field(default_factory=dict)
    differing: int = 0
    content: hashlib._Hash = field(default_factory=hashlib.sha256)
    objects: hashlib._Hash = field(default_factory=hashlib.sha256)


def _compare_objects(job: Job, row: LedgerFile, delivery: Delivery) -> None:
    """Each event of the range has its object with exactly the snapshot's bytes.

    They are read at both levels: the ledger keeps no ETag of each.
    """
    sealed, outcome, repair = row.sealed, _Outcome(), _Repair(job, row)
    for entry in job.entries(sealed.first_position, sealed.last_position, verify=job.reads_events):
        outcome.expected += 1
        contents.note_if_altered(job, row, entry)
        _compare_event(job, row, entry, outcome, repair)
    summary = job.summary
    summary.files_found += outcome.found > 0
    summary.events_found += outcome.found
    summary.events_matched += outcome.matched
    job.counting.add(outcome.tallies)
    told = (delivery.content_sha256, delivery.object_sha256)
    is_delivered = (outcome.content.digest(), outcome.objects.digest()) == told
    summary.files_matched += is_delivered
    if outcome.differing:
        _explain_objects(job, row, is_delivered=is_delivered)
    agree = outcome.matched == outcome.expected
    if agree and not is_delivered and outcome.expected == sealed.event_count:
        # A count that differs was reported with the ledger's ranges.
        job.recorder.note(
            Kind.OUTBOX_DIFFERS,
            "outbox and objects agree with each other, and not with what was delivered",
            sequence=sealed.sequence,
            position=sealed.first_position,
            object_key=sealed.object_key,
            expected=delivery.content_sha256.hex(),
            found=outcome.content.hexdigest(),
        )


def _explain_objects(job: Job, row: LedgerFile, *, is_delivered: bool) -> None:
    """Report the objects that differ; nothing but damage reads the file's events again."""
    for entry in job.entries(row.sealed.first_position, row.sealed.last_position):
        kept = job.database.execute(
            "SELECT sha256 FROM differing WHERE position = ?", (entry.position,)
        ).fetchone()
        if kept is not None:
            key = _key(job, entry)
            contents.explain_object(job, row, entry, key, kept[0], is_delivered=is_delivered)
    job.database.execute("DROP TABLE differing")


def _compare_event(
    job: Job, row: LedgerFile, entry: Entry, outcome: _Outcome, repair: _Repair
) -> None:
    key = _key(job, entry)
    chunks = job.read(key) if job.may_be_there(key) else None
    if chunks is None:
        _note_missing(job, repair, row, key, entry)
        return
    outcome.found += 1
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        outcome.content.update(chunk)
        outcome.objects.update(chunk)
    outcome.content.update(b"\n")
    is_same = digest.digest() == entry.sha256
    if is_same or not job.reads_events:
        # Otherwise what is found counts as what it says it is.
        kind = (hour_of(entry.recorded_at), entry.type, entry.outcome)
        outcome.tallies[kind] = outcome.tallies.get(kind, Tally()) + Tally(0, 1, int(is_same))
    if is_same:
        outcome.matched += 1
    else:
        if not outcome.differing:
            job.database.execute(_DIFFERING)
        outcome.differing += 1
        job.database.execute(
            "INSERT INTO differing VALUES (?, ?)", (entry.position, digest.digest())
        )


def _key(job: Job, entry: Entry) -> str:
    return event_key(
        prefix=job.stream.destination.prefix, lead_id=entry.lead_id, event_id=entry.event_id
    )


# --- putting files back -------------------------------------------------------------


@dataclass(slots=True)
class _Repair:
    """At most one attempt a file, whatever number of its objects is missing."""

    job: Job
    row: LedgerFile
    tried: bool = False
    done: bool = False
    failure: str = ""

    def attempt(self) -> None:
        """Put the file back, or try whether that would work, if the caller gave a way to.

        A failure is kept as a sentence.
        """
        if not self.tried and self.job.restore is not None:
            self.tried = True
            try:
                self.job.restore(self.job.stream, self.row)
                self.done = True
            except AuditStoreError as error:
                self.failure = f"; it could not be put back: {error.message}"


def _note_missing(
    job: Job, repair: _Repair, row: LedgerFile, key: str, entry: Entry | None = None
) -> None:
    repair.attempt()
    at = row.delivered_at.isoformat() if row.delivered_at else "an unknown time"
    expected = row.delivery.object_sha256 if row.delivery else b""
    job.recorder.note(
        Kind.MISSING_FILE,
        f"the object is gone that was delivered at {at}{repair.failure}",
        sequence=row.sealed.sequence,
        object_key=key,
        expected=(expected if entry is None else entry.sha256).hex(),
        fixable=not repair.failure,
        planned=repair.done and job.dry_run,
        repaired=repair.done and not job.dry_run,
        **({} if entry is None else entry.names),
    )
