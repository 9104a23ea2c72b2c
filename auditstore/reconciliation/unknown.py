"""Objects that no row of any ledger names.

Also with a time filter the whole ledger is asked, and that of every stream whose location
overlaps: an object is unknown only if it can belong to none of their files.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from auditstore import streams
from auditstore.events import is_event_id
from auditstore.layout import event_key
from auditstore.objects import VERIFICATION_PREFIX, ObjectInfo
from auditstore.reconciliation import contents
from auditstore.reconciliation.decoding import Line, Undecodable
from auditstore.reconciliation.explain import Stray, identify, report_foreign
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.job import Job
from auditstore.sql import comparison as sql
from auditstore.streams import Stream

_BATCH: Final = 500
_EVENT_SUFFIX: Final = ".json"
_LINES_SUFFIX: Final = ".ndjson.gz"
_RANGES: Final = """
CREATE TABLE event_ranges (
    stream_id INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (stream_id, first)
) WITHOUT ROWID
"""


def compare_unknown(job: Job) -> None:
    """Report every listed object that nobody names; at the level *events* look into it."""
    # Asked after the listing: whatever was in it was sealed by then.
    with job.engine.connect() as connection:
        sharing = [
            stream for stream in streams.find(connection) if stream.overlaps(job.stream.destination)
        ]
    for number, page in enumerate(job.inventory.unknown_pages()):
        if number == 0:
            _spool_ranges(job, sharing)
        known = _known(job, sharing, [info.key for info in page])
        for info in page:
            if info.key.rpartition("/")[2].startswith(VERIFICATION_PREFIX):
                job.summary.verification_objects += 1
            elif info.key not in known and (there := job.as_it_is(info)) is not None:
                _report(job, there)


def _report(job: Job, info: ObjectInfo) -> None:
    batches: Iterator[list[Stray]] = iter(())
    if job.reads_events:
        batches = _events(job, info.key)
    job.recorder.note(
        Kind.UNKNOWN_FILE, "no row of the ledger names this object",
        object_key=info.key, found=f"{info.size} bytes",
    )  # fmt: skip
    for batch in batches:
        report_foreign(job, batch, key=info.key, sequence=None)


def _events(job: Job, key: str) -> Iterator[list[Stray]]:
    """The events in an unknown object, as far as it can be read as such."""
    if key.endswith(_LINES_SUFFIX):
        lines = contents.lines(job, key)
    elif key.endswith(_EVENT_SUFFIX):
        lines = contents.whole(job, key)
    else:
        return
    found = _identified(job.stream.flow_id, lines)
    while batch := list(islice(found, _BATCH)):
        yield batch


def _identified(flow_id: str, lines: Iterator[Line]) -> Iterator[Stray]:
    try:
        for line in lines:
            its = identify(flow_id, line)
            if its.event_id is not None:
                yield Stray(line.number, line.sha256, its)
    except Undecodable:
        return  # it is reported as unknown already, and nobody said what it should be


# --- who could know an object -------------------------------------------------------


def _known(job: Job, sharing: Sequence[Stream], keys: Sequence[str]) -> set[str]:
    """Those of ``keys`` that the ledger of one of the streams names."""
    # What the server cannot even be asked for cannot be the key of a file.
    askable = [key for key in keys if "\0" not in key and _is_utf8(key)]
    known: set[str] = set()
    with job.engine.connect() as connection:
        for stream in sharing:
            known |= sql.named_keys(connection, stream.stream_id, askable)
        ids = {key: key.rpartition("/")[2].removesuffix(_EVENT_SUFFIX) for key in askable}
        events = {key: each for key, each in ids.items() if is_event_id(each)}
        for stream in sharing if events else ():
            found = sql.entries_by_id(connection, stream.flow_id, sorted(set(events.values())))
            known |= {
                event_key(
                    prefix=stream.destination.prefix, lead_id=each.lead_id, event_id=each.event_id
                )
                for each in found
                if _in_ranges(job.database, stream.stream_id, each.position)
            }
    return known


def _spool_ranges(job: Job, sharing: Sequence[Stream]) -> None:
    """The ranges of the files that are one object an event, where they can be searched."""
    job.database.execute(_RANGES)
    for stream in sharing:
        after = 0
        while True:
            with job.engine.connect() as connection:
                page = sql.event_ranges(connection, stream.stream_id, after=after, limit=_BATCH)
            if not page:
                break
            after = page[-1][0]
            job.database.executemany(
                "INSERT OR REPLACE INTO event_ranges VALUES (?, ?, ?)",
                [(stream.stream_id, first, last) for _, first, last in page],
            )


def _in_ranges(database: sqlite3.Connection, stream_id: int, position: int) -> bool:
    row = database.execute(
        "SELECT last FROM event_ranges WHERE stream_id = ? AND first <= ?"
        " ORDER BY first DESC LIMIT 1",
        (stream_id, position),
    ).fetchone()
    return row is not None and position <= row[0]


def _is_utf8(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
