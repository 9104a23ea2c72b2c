"""The main path: look, list, walk the ledger, then ask about whatever is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import tee
from typing import Final

from sqlalchemy import Engine

from auditstore.layout import join
from auditstore.objects import ObjectInfo, ObjectStore
from auditstore.reconciliation.counting import Counting
from auditstore.reconciliation.due import note_undelivered, note_waiting
from auditstore.reconciliation.files import compare_file
from auditstore.reconciliation.findings import Finding
from auditstore.reconciliation.inventory import Inventory, temporary_database
from auditstore.reconciliation.job import Job, Restore
from auditstore.reconciliation.ledger_walk import check_head, note_other_ledger, pages, walk
from auditstore.reconciliation.listing import Listing
from auditstore.reconciliation.parts import EVERYTHING, Part
from auditstore.reconciliation.reading_ahead import cases
from auditstore.reconciliation.scope import Progress, Scope, Silent
from auditstore.reconciliation.summary import Recorder, Summary
from auditstore.reconciliation.unknown import compare_unknown
from auditstore.reconciliation.view import View, look
from auditstore.reconciliation.workers import Readers
from auditstore.sql.failures import translated

_SILENT: Final = Silent()


def compare_stream(
    engine: Engine,
    stream_id: int,
    open_store: Callable[[], ObjectStore],
    scope: Scope,
    *,
    report: Callable[[Finding], None],
    restore: Callable[[ObjectStore], Restore] | None = None,
    progress: Progress = _SILENT,
    clock: Callable[[], float] = time.monotonic,
    choose: Callable[[View], Part] = lambda _: EVERYTHING,
    dry_run: bool = False,
    pattern: bool = False,
    readers: Readers | None = None,
    listing: Listing | None = None,
) -> Summary:
    """Compare one stream's outbox, ledger and store; each finding goes to ``report`` at once.

    ``open_store`` is called if there is anything to compare, and what it opens is closed.
    With ``restore`` each missing file is put back as it is found. Raises the store's and the
    database's errors if the comparison could not be brought to its end; the findings reported
    by then are true, and not all. ``clock`` counts seconds. ``choose`` says which part to
    compare; it is asked once the marks are known, and before anything is listed. ``dry_run`` says
    that what ``restore`` gives writes nothing. ``pattern`` asks for the counts by hour, type and
    outcome and the delays of delivery too, which costs a look at each event's row.
    With ``readers`` files are read ahead by others; what is found, and in which order, is the same.
    With ``listing`` the store is not listed, and what the listing lacks is asked for one by one.
    """
    began = clock()
    with translated():
        view = look(engine, stream_id, scope)
        part = choose(view)
        summary = _summary(view, scope, part)
        if view.was_ever_enabled:
            store = open_store()
            try:
                restorer = None if restore is None else restore(store)
                recorder = Recorder(summary, report, view.stream.destination)
                _compare(
                    engine, store, scope, view, recorder, progress, restorer, part,
                    dry_run=dry_run, pattern=pattern, readers=readers, listing=listing,
                )  # fmt: skip
            finally:
                store.close()
    summary.seconds = clock() - began
    return summary


def _compare(  # noqa: PLR0917  # called once, above, with what it says
    engine: Engine,
    store: ObjectStore,
    scope: Scope,
    view: View,
    recorder: Recorder,
    progress: Progress,
    restore: Restore | None,
    part: Part,
    *,
    dry_run: bool,
    pattern: bool,
    readers: Readers | None,
    listing: Listing | None,
) -> None:
    if listing is not None:
        recorder.summary.listing = str(listing.made)
    with temporary_database() as database:
        objects = _listing(store if listing is None else listing, view, part)
        inventory = Inventory.of(database, objects, progress)
        recorder.summary.objects_listed = len(inventory)
        counting = Counting(engine, view.stream.flow_id, database, active=pattern)
        job = Job(
            engine, store, scope, view, inventory, database, recorder, progress, restore, part,
            counting, dry_run, listing,
        )  # fmt: skip
        if part.doubt is not None:
            note_other_ledger(job, part.doubt)
        _compare_files(job, readers)
        recorder.summary.pattern = counting.result()
        note_waiting(job)
        compare_unknown(job)


def _listing(objects: ObjectStore | Listing, view: View, part: Part) -> Iterator[ObjectInfo]:
    prefix = view.stream.destination.prefix
    if part.reach == "nothing":
        return iter(())
    return objects.list(join(prefix, "") if prefix else "", start_after=part.start_after)


def _compare_files(job: Job, readers: Readers | None) -> None:
    view, part, summary = job.view, job.part, job.summary
    windows = part.windows(view.first_sequence, view.last_sequence)
    check_head(job, windows)
    total = sum(last - first + 1 for first, last in windows)
    done = 0
    for first, last in windows:
        window = replace(job, view=replace(view, first_sequence=first, last_sequence=last))
        here, ahead = tee(pages(window))
        rows = (row for page in ahead for row in page.rows)
        with cases(window, rows, readers) as decided:
            for row, (case, found) in zip(walk(window, here), decided, strict=True):
                if case.delivery is None:
                    note_undelivered(job, row)
                elif case.compares:
                    compare_file(job, case, case.delivery, found)
                done += 1
                job.progress.comparing(done, total, summary.bytes_read)


def _summary(view: View, scope: Scope, part: Part) -> Summary:
    stream = view.stream
    windows = part.windows(view.first_sequence, view.last_sequence)
    walked = [(first, last) for first, last in windows if first <= last]
    return Summary(
        stream_id=stream.stream_id,
        flow_id=stream.flow_id,
        url=stream.url,
        level=scope.level,
        intervals=view.intervals,
        first_sequence=walked[0][0] if walked else None,
        last_sequence=walked[-1][1] if walked else None,
        compared_at=view.now,
        head_sequence=stream.delivered_sequence,
        head_hash=stream.chain_hash.hex(),
        verified_before=part.compared,
    )
