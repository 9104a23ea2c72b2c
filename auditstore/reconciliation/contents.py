"""The events in an object against those of the outbox."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from auditstore.ledger import Delivery, LedgerFile
from auditstore.reconciliation.decoding import Line, Lines, Undecodable, gunzip
from auditstore.reconciliation.explain import Explanation
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.job import Job
from auditstore.sql.comparison import Entry

_OUTBOX_ALTERED: Final = "the object is as delivered: the outbox was altered since"


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one pass over an object saw; ``agrees`` is about its lines and the outbox's events."""

    stored: bytes
    content: bytes
    lines: int
    agrees: bool
    unended: bool


def compare_lines(job: Job, row: LedgerFile, delivery: Delivery) -> bool:
    """Compare a file of lines, event by event; return whether it is as it was delivered.

    One pass without parsing shows whether all is well. Only where it is not, the object is
    read again, and taken apart on disk.
    """
    sealed, summary = row.sealed, job.summary
    try:
        reading = _read(job, row)
    except Undecodable as error:
        note_changed(job, row, f"its events cannot be compared: {error}")
        return False
    if reading is None:
        note_altered(job, row)
        note_changed(job, row, "the object went away while it was being compared")
        return False
    summary.events_found += reading.lines
    is_delivered = reading.content == delivery.content_sha256
    if is_delivered and reading.stored != delivery.object_sha256:
        note_recompressed(job, row, delivery, reading.stored)
    if reading.agrees and is_delivered:
        summary.events_matched += reading.lines
        job.counting.whole(matched=True)
        return True
    with Explanation(job, row) as explanation:
        explanation.take_entries(job.entries(sealed.first_position, sealed.last_position))
        explanation.take_lines(lines(job, sealed.object_key))
        summary.events_matched += explanation.matched()
        explanation.count()
        if not is_delivered:
            why = "the object holds other content than was delivered"
            if reading.unended:
                why += "; its last line has no line end"
            if explanation.is_disordered():
                why += "; its events are not in order"
            note_changed(job, row, why, expected=delivery.content_sha256, found=reading.content)
        explanation.report(
            side=_OUTBOX_ALTERED
            if is_delivered
            else "the object was altered since it was delivered"
        )
    return is_delivered


def explain_object(
    job: Job, row: LedgerFile, entry: Entry, key: str, found: bytes, *, is_delivered: bool
) -> None:
    """Report an object of one event that is not as the outbox has it.

    ``is_delivered`` says that the file's objects are what was delivered, as the ledger proves.
    """
    if not is_delivered:
        note_changed(
            job, row, "the object does not hold the event's snapshot",
            key=key, entry=entry, expected=entry.sha256, found=found,
        )  # fmt: skip
    elif not job.reads_events:
        job.recorder.note(
            Kind.OUTBOX_DIFFERS, f"the event is not what was delivered; {_OUTBOX_ALTERED}",
            sequence=row.sealed.sequence, object_key=key,
            expected=entry.sha256.hex(), found=found.hex(), **entry.names,
        )  # fmt: skip
    if job.reads_events:
        with Explanation(job, row, key=key) as explanation:
            explanation.take_entries(iter((entry,)))
            explanation.take_lines(whole(job, key))
            explanation.count()
            explanation.report(side=_OUTBOX_ALTERED if is_delivered else "object and outbox differ")


def lines(job: Job, key: str) -> Iterator[Line]:
    """The lines of a gzip object with their bytes; Undecodable where it stops being one."""
    splitter = Lines(keep=True)
    for piece in gunzip(job.read(key) or iter(())):
        yield from splitter.feed(piece)
    yield from splitter.rest()


def whole(job: Job, key: str) -> Iterator[Line]:
    """An object that is one event, as one line."""
    splitter = Lines(keep=True)
    for chunk in job.read(key) or iter(()):
        splitter.hold(chunk)
    yield from splitter.rest()


def _read(job: Job, row: LedgerFile) -> _Reading | None:
    chunks = job.read(row.sealed.object_key)
    if chunks is None:
        return None
    stored, content, splitter = hashlib.sha256(), hashlib.sha256(), Lines()
    entries = job.entries(row.sealed.first_position, row.sealed.last_position, verify=True)
    agrees, count = True, 0

    def pieces() -> Iterator[bytes]:
        for chunk in chunks:
            stored.update(chunk)
            yield chunk

    def found() -> Iterator[Line]:
        for piece in gunzip(pieces()):
            content.update(piece)
            yield from splitter.feed(piece)

    unended = False

    def last() -> Iterator[Line]:
        nonlocal unended
        unended = splitter.unended
        yield from splitter.rest()

    try:
        for line in chain(found(), last()):
            count += 1
            entry = next(entries, None)
            if entry is not None:
                note_if_altered(job, row, entry)
            agrees = agrees and entry is not None and entry.sha256 == line.sha256
    except Undecodable:
        # What was altered in the outbox is found all the same.
        note_altered(job, row, entries)
        raise
    agrees = note_altered(job, row, entries) == 0 and agrees
    return _Reading(
        stored.digest(), content.digest(), count, agrees=agrees and not unended, unended=unended
    )


# --- findings -----------------------------------------------------------------------


def note_altered(job: Job, row: LedgerFile, entries: Iterator[Entry] | None = None) -> int:
    """Report those of a file's events, or of the rest of them, that were altered in the outbox.

    Return how many were looked at.
    """
    if entries is None:
        sealed = row.sealed
        entries = job.entries(sealed.first_position, sealed.last_position, verify=True)
    count = 0
    for entry in entries:
        note_if_altered(job, row, entry)
        count += 1
    return count


def note_if_altered(job: Job, row: LedgerFile | None, entry: Entry) -> None:
    """Report an event whose payload in the outbox is not what its own hash says.

    ``row`` is its file, ``None`` where it is in none.
    """
    if entry.intact is False:
        job.recorder.note(
            Kind.OUTBOX_DIFFERS,
            "the event's payload in the outbox is not what its hash says",
            sequence=None if row is None else row.sealed.sequence,
            object_key=None if row is None else row.sealed.object_key,
            expected=entry.sha256.hex(), **entry.names,
        )  # fmt: skip


def note_changed(
    job: Job,
    row: LedgerFile,
    detail: str,
    *,
    key: str | None = None,
    entry: Entry | None = None,
    expected: bytes | None = None,
    found: bytes | None = None,
) -> None:
    """Report an object that is not what was delivered."""
    job.recorder.note(
        Kind.CHANGED_FILE, detail,
        sequence=row.sealed.sequence,
        object_key=key or row.sealed.object_key,
        expected=None if expected is None else expected.hex(),
        found=None if found is None else found.hex(),
        **({} if entry is None else entry.names),
    )  # fmt: skip


def note_recompressed(job: Job, row: LedgerFile, delivery: Delivery, stored: bytes) -> None:
    """Report an object whose bytes differ while its content is the same."""
    job.recorder.note(
        Kind.RECOMPRESSED,
        "the object was compressed anew: its bytes differ, its content is what was delivered",
        sequence=row.sealed.sequence, object_key=row.sealed.object_key,
        expected=delivery.object_sha256.hex(), found=stored.hex(),
    )  # fmt: skip
