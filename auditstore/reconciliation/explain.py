"""Why an object and the outbox differ: both sides in tables on disk, compared by SQL.

Only objects that were seen to differ come here, so nothing but damage pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, Self

from auditstore.events import Event, FieldRefused
from auditstore.ledger import LedgerFile
from auditstore.reconciliation.decoding import MAX_LINE_BYTES, Line
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.job import Job
from auditstore.sql import comparison as sql
from auditstore.sql.comparison import Entry

_BATCH: Final = 500
_SCHEMA: Final = """
DROP TABLE IF EXISTS entries;
DROP TABLE IF EXISTS lines;
CREATE TABLE entries (
    position INTEGER PRIMARY KEY, event_id TEXT NOT NULL, lead_id TEXT, sha256 BLOB NOT NULL
);
CREATE INDEX entries_event_id ON entries (event_id);
CREATE TABLE lines (
    number INTEGER PRIMARY KEY, event_id TEXT, sha256 BLOB NOT NULL, reason TEXT
);
CREATE INDEX lines_event_id ON lines (event_id);
"""
# The first line with an event's id and content is that event; others repeat it.
_MATCHES: Final = """
SELECT e.position AS position, min(l.number) AS number FROM entries e
JOIN lines l ON l.event_id = e.event_id AND l.sha256 = e.sha256 GROUP BY e.position
"""


def identify(flow_id: str, line: Line) -> tuple[str | None, str]:
    """The event id in a line, or ``None`` and why there is none."""
    if line.content is None:
        return None, f"it is longer than {MAX_LINE_BYTES} bytes"
    try:
        event = Event.from_json(line.content, flow_id=flow_id, max_bytes=MAX_LINE_BYTES)
    except FieldRefused as error:
        return error.event_id, str(error)
    return event.event_id, ""


class Explanation:
    """Takes the events and the lines of one object, then reports how they differ."""

    def __init__(self, job: Job, row: LedgerFile, *, key: str | None = None) -> None:
        self._job = job
        self._key = key or row.sealed.object_key
        self._sequence = row.sealed.sequence
        self._database = job.database

    def __enter__(self) -> Self:
        """Begin with empty tables."""
        for statement in _SCHEMA.split(";"):
            self._database.execute(statement)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the space back."""
        self._database.execute("DROP TABLE entries")
        self._database.execute("DROP TABLE lines")

    def take_entries(self, entries: Iterator[Entry]) -> None:
        """The outbox's side."""
        self._database.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?)",
            ((each.position, each.event_id, each.lead_id, each.sha256) for each in entries),
        )

    def take_lines(self, lines: Iterator[Line]) -> None:
        """The object's side."""
        flow_id = self._job.stream.flow_id
        self._database.executemany(
            "INSERT INTO lines VALUES (?, ?, ?, ?)",
            (
                (line.number, event_id, line.sha256, reason)
                for line in lines
                for event_id, reason in (identify(flow_id, line),)
            ),
        )

    def matched(self) -> int:
        """How many events the object holds as the outbox does."""
        return int(self._database.execute(f"SELECT count(*) FROM ({_MATCHES})").fetchone()[0])  # noqa: S608  # constant

    def is_disordered(self) -> bool:
        """Whether the events that match stand in another order than their positions."""
        found = self._database.execute(
            f"SELECT 1 FROM (SELECT number, lag(number) OVER (ORDER BY position) AS before"  # noqa: S608  # constant
            f" FROM ({_MATCHES})) WHERE number < before LIMIT 1"
        ).fetchone()
        return found is not None

    def report(self, *, side: str) -> None:
        """Report every event that is missing, changed, repeated or unknown, and odd lines.

        ``side`` is the clause that says which of the two was altered.
        """
        self._report_missing()
        self._report_changed(side)
        self._report_repeated()
        self._report_foreign()
        self._report_unreadable()

    def _report_missing(self) -> None:
        for position, event_id, lead_id, sha256 in self._database.execute(
            "SELECT position, event_id, lead_id, sha256 FROM entries e WHERE NOT EXISTS"
            " (SELECT 1 FROM lines l WHERE l.event_id = e.event_id) ORDER BY position"
        ):
            self._note(
                Kind.MISSING_EVENT, "the event is in the outbox and not in its file",
                position=position, event_id=event_id, lead_id=lead_id, expected=sha256.hex(),
            )  # fmt: skip

    def _report_changed(self, side: str) -> None:
        for number, position, event_id, lead_id, expected, found in self._database.execute(
            "SELECT l.number, e.position, e.event_id, e.lead_id, e.sha256, l.sha256"
            " FROM lines l JOIN entries e ON e.event_id = l.event_id AND e.sha256 <> l.sha256"
            " ORDER BY l.number"
        ):
            self._note(
                Kind.CHANGED_EVENT, f"line {number} has the event's id and other content; {side}",
                position=position, event_id=event_id, lead_id=lead_id,
                expected=expected.hex(), found=found.hex(),
            )  # fmt: skip

    def _report_repeated(self) -> None:
        for number, position, event_id, lead_id, sha256 in self._database.execute(
            "SELECT l.number, e.position, e.event_id, e.lead_id, e.sha256"  # noqa: S608  # constant
            " FROM lines l JOIN entries e ON e.event_id = l.event_id AND e.sha256 = l.sha256"
            f" JOIN ({_MATCHES}) m ON m.position = e.position WHERE l.number > m.number"
            " ORDER BY l.number"
        ):
            self._note(
                Kind.DUPLICATE_EVENT, f"line {number} repeats an event of the same file",
                position=position, event_id=event_id, lead_id=lead_id, found=sha256.hex(),
            )  # fmt: skip

    def _report_foreign(self) -> None:
        rows = self._database.execute(
            "SELECT number, event_id, sha256 FROM lines l WHERE event_id IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM entries e WHERE e.event_id = l.event_id) ORDER BY number"
        )
        while batch := list(islice(rows, _BATCH)):
            report_foreign(self._job, batch, key=self._key, sequence=self._sequence)

    def _report_unreadable(self) -> None:
        for number, sha256, reason in self._database.execute(
            "SELECT number, sha256, reason FROM lines WHERE event_id IS NULL ORDER BY number"
        ):
            self._note(
                Kind.UNREADABLE_LINE, f"line {number} is no event: {reason}", found=sha256.hex()
            )

    def _note(self, kind: Kind, detail: str, **fields: Any) -> None:
        self._job.recorder.note(
            kind, detail, sequence=self._sequence, object_key=self._key, **fields
        )


def report_foreign(
    job: Job, found: Sequence[tuple[int, str, bytes]], *, key: str, sequence: int | None
) -> None:
    """Report events (line number, id, hash) in an object where none of them belongs.

    One that a file of this stream holds, or will hold, is a duplicate; any other is unknown.
    """
    flow_id = job.stream.flow_id
    with job.engine.connect() as connection:
        known = {
            entry.event_id: entry
            for entry in sql.entries_by_id(connection, flow_id, [each for _, each, _ in found])
        }
    for number, event_id, sha256 in found:
        entry = known.get(event_id)
        kind, detail = Kind.UNKNOWN_EVENT, "holds an event that the outbox does not know"
        if entry is not None and entry.sha256 != sha256:
            detail = "holds an event of the outbox, with other content"
        elif entry is not None and not job.view.covers(entry.position):
            detail = "holds an event of the outbox that the stream did not cover"
        elif entry is not None:
            kind, detail = Kind.DUPLICATE_EVENT, "repeats an event that belongs to another file"
        job.recorder.note(
            kind, f"line {number} {detail}",
            sequence=sequence, object_key=key, event_id=event_id,
            position=None if entry is None else entry.position,
            lead_id=None if entry is None else entry.lead_id,
            expected=None if entry is None else entry.sha256.hex(),
            found=sha256.hex(),
        )  # fmt: skip
