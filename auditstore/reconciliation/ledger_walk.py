"""The ledger against itself and against the outbox: chain, sequence, ranges, coverage.

Every row is checked before the store has its say about it. See ``docs/reference/ledger.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from auditstore.ledger import GENESIS, LedgerFile, row_hash
from auditstore.reconciliation.contents import note_if_altered
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.job import Job
from auditstore.reconciliation.parts import Doubt
from auditstore.sql import comparison as sql
from auditstore.sql import ledger as ledger_sql

_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Page:
    """The rows behind one sequence up to another, as far as they are there."""

    after: int
    upto: int
    rows: list[LedgerFile]


def pages(job: Job) -> Iterator[Page]:
    """The rows to compare, each read once; of what was sealed, nothing changes any more."""
    after = job.view.first_sequence - 1
    while after < job.view.last_sequence:
        upto = min(after + _PAGE, job.view.last_sequence)
        yield Page(after, upto, _rows(job, after, upto))
        after = upto


def walk(job: Job, found: Iterable[Page]) -> Iterator[LedgerFile]:
    """Check the rows of the pages, and yield each in order of sequence."""
    view = job.view
    before = view.first_sequence - 1
    previous = _row(job, before)
    if previous is None and before > 0:
        _note_gap(job, before, before)
    for each in found:
        page = each.rows
        _check_counts(job, page)
        _check_coverage(job, _between(previous, page, whole=view.first_sequence == 1))
        expected = each.after + 1
        for row in page:
            if row.sealed.sequence > expected:
                _note_gap(job, expected, row.sealed.sequence - 1)
            expected = row.sealed.sequence + 1
            _check_range(job, previous, row)
            _check_hashes(job, previous, row)
            yield row
            previous = row
        if expected <= each.upto:
            _note_gap(job, expected, each.upto)
    _check_coverage(job, _behind(job, previous))


def _rows(job: Job, after: int, upto: int) -> list[LedgerFile]:
    with job.engine.connect() as connection:
        return list(
            ledger_sql.stream_files(connection, job.stream.stream_id, after=after, upto=upto)
        )


def _between(
    previous: LedgerFile | None, page: list[LedgerFile], *, whole: bool
) -> list[tuple[int, int]]:
    """The positions between the files of a page, and before its first."""
    gaps = []
    end = 0 if previous is None else previous.sealed.last_position
    for number, row in enumerate(page):
        # Where the row before is gone and was not asked for, nobody knows where it ended.
        if number or previous is not None or whole:
            gaps.append((end + 1, row.sealed.first_position - 1))
        end = max(end, row.sealed.last_position)
    return gaps


def _behind(job: Job, previous: LedgerFile | None) -> list[tuple[int, int]]:
    """The positions between the last file and the next one, or else the sealed mark."""
    last = job.view.last_sequence
    if previous is None and job.view.first_sequence > 1:
        return []
    start = 1 if previous is None else previous.sealed.last_position + 1
    if last == job.stream.sealed_sequence:
        return [(start, job.stream.sealed_position)]
    following = _row(job, last + 1)
    return [] if following is None else [(start, following.sealed.first_position - 1)]


def _check_counts(job: Job, page: list[LedgerFile]) -> None:
    """The outbox still holds as many events and bytes in each range as were sealed."""
    ranges = [(row.sealed.first_position, row.sealed.last_position) for row in page]
    with job.engine.connect() as connection:
        found = sql.range_summaries(connection, job.stream.flow_id, ranges)
    for row, (count, size) in zip(page, found, strict=True):
        sealed = row.sealed
        if (count, size) != (sealed.event_count, sealed.content_bytes):
            job.recorder.note(
                Kind.OUTBOX_DIFFERS,
                "the outbox does not hold what was sealed: events are gone from this file's "
                "range, were added to it, or were altered",
                sequence=sealed.sequence,
                position=sealed.first_position,
                object_key=sealed.object_key,
                expected=f"{sealed.event_count} events, {sealed.content_bytes} bytes",
                found=f"{count} events, {size} bytes",
            )


def _check_range(job: Job, previous: LedgerFile | None, row: LedgerFile) -> None:
    """Ranges only move forward, and only through what the stream covers."""
    sealed = row.sealed
    end = 0 if previous is None else previous.sealed.last_position
    if sealed.first_position <= end:
        _note_broken(
            job, row, "this file's range begins before the end of the one before it",
            expected=f"above position {end}", found=str(sealed.first_position),
        )  # fmt: skip
    whole = (sealed.first_position, sealed.last_position)
    if whole not in job.view.covered_parts(*whole):
        _note_broken(
            job, row, "this file's range lies outside of what the stream covers",
            found=f"positions {sealed.first_position} to {sealed.last_position}",
        )  # fmt: skip


def _check_hashes(job: Job, previous: LedgerFile | None, row: LedgerFile) -> None:
    """The row is what its hash says, and chained to the one before it."""
    sealed = row.sealed
    if sealed.sequence > job.stream.delivered_sequence:
        return
    if row.delivery is None or row.delivered_at is None or row.previous_hash is None:
        _note_broken(job, row, "the stream's delivered mark has passed a file not delivered")
        return
    computed = row_hash(row.previous_hash, sealed, row.delivery, row.delivered_at)
    if computed != row.row_hash:
        _note_broken(
            job, row, "the ledger row was altered: it is not what its hash says",
            expected=(row.row_hash or b"").hex(), found=computed.hex(),
        )  # fmt: skip
    if previous is not None and previous.sealed.sequence == sealed.sequence - 1:
        expected = previous.row_hash
    elif sealed.sequence == 1:
        expected = GENESIS
    else:
        return  # reported as a gap: there is nothing to be chained to
    if row.previous_hash != expected:
        _note_broken(
            job, row, "the ledger row is not chained to the one before it",
            expected=(expected or b"").hex(), found=row.previous_hash.hex(),
        )  # fmt: skip


def check_head(job: Job, walked: Sequence[tuple[int, int]]) -> None:
    """The stream's own mark names the newest delivered row, so a deleted tail shows.

    Where it lies among the ``walked`` rows, its absence shows there.
    """
    sequence = job.stream.delivered_sequence
    head = _row(job, sequence)
    if head is None:
        if sequence > 0 and not any(first <= sequence <= last for first, last in walked):
            _note_gap(job, sequence, sequence)
        return
    if head.row_hash != job.stream.chain_hash:
        _note_broken(
            job, head, "the stream's head is not the hash of its newest delivered row",
            expected=job.stream.chain_hash.hex(), found=(head.row_hash or b"").hex(),
        )  # fmt: skip


def _check_coverage(job: Job, gaps: list[tuple[int, int]]) -> None:
    """No covered event lies between two files, where no file would ever hold it."""
    parts = [part for gap in gaps for part in job.view.covered_parts(*gap)]
    with job.engine.connect() as connection:
        found = sql.range_summaries(connection, job.stream.flow_id, parts)
    for (low, high), (count, _) in zip(parts, found, strict=True):
        for entry in job.entries(low, high, verify=job.reads_events) if count else ():
            if job.scope.holds(entry.recorded_at):
                note_if_altered(job, None, entry)
                job.recorder.note(
                    Kind.MISSING_EVENT,
                    "the event lies in no file's range though it was appended while the stream "
                    "covered it",
                    expected=entry.sha256.hex(),
                    **entry.names,
                )


def note_other_ledger(job: Job, doubt: Doubt) -> None:
    """Report that the ledger is not the one of which a part was verified before."""
    job.recorder.note(
        Kind.BROKEN_CHAIN,
        f"the ledger is not the one that was verified at {doubt.verified_at.isoformat()}: up to "
        "this file it was rewritten, or an earlier state of the database came back; all of it is "
        "compared anew",
        sequence=doubt.sequence, expected=doubt.expected, found=doubt.found,
    )  # fmt: skip


def _note_gap(job: Job, first: int, last: int) -> None:
    what = f"row {first} is" if first == last else f"rows {first} to {last} are"
    job.recorder.note(Kind.BROKEN_CHAIN, f"{what} missing from the ledger", sequence=first)


def _note_broken(
    job: Job, row: LedgerFile, detail: str, *, expected: str | None = None, found: str | None = None
) -> None:
    job.recorder.note(
        Kind.BROKEN_CHAIN, detail,
        sequence=row.sealed.sequence, object_key=row.sealed.object_key,
        expected=expected, found=found,
    )  # fmt: skip


def _row(job: Job, sequence: int) -> LedgerFile | None:
    if sequence < 1:
        return None
    with job.engine.connect() as connection:
        return ledger_sql.one_file(connection, job.stream.stream_id, sequence)
