"""Why an object and the outbox differ: both sides in tables on disk, compared by SQL.

Only objects that were seen to differ come here, so nothing but damage pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Self

from auditstore.events import Event, FieldRefused, id_time
from auditstore.ledger import LedgerFile
from auditstore.reconciliation.decoding import MAX_LINE_BYTES, Line
from auditstore.reconciliation.differing import Differences, differences
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.job import Job
from auditstore.reconciliation.patterns import Tally
from auditstore.reconciliation.tallies import hour_of
from auditstore.sql import comparison as sql
from auditstore.sql.comparison import Entry

_BATCH: Final = 500
_SCHEMA: Final = """
DROP TABLE IF EXISTS entries;
DROP TABLE IF EXISTS lines;
CREATE TABLE entries (
    position INTEGER PRIMARY KEY, event_id TEXT NOT NULL, lead_id TEXT, type TEXT, outcome TEXT,
    sha256 BLOB NOT NULL, hour INTEGER NOT NULL
);
CREATE INDEX entries_event_id ON entries (event_id);
CREATE TABLE lines (
    number INTEGER PRIMARY KEY, event_id TEXT, lead_id TEXT, type TEXT, outcome TEXT,
    sha256 BLOB NOT NULL, reason TEXT, content BLOB
);
CREATE INDEX lines_event_id ON lines (event_id);
"""
# The first line with an event's id and content is that event; others repeat it.
_MATCHES: Final = """
SELECT e.position AS position, min(l.number) AS number FROM entries e
JOIN lines l ON l.event_id = e.event_id AND l.sha256 = e.sha256 GROUP BY e.position
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a line says of itself; where it has no ``event_id``, ``reason`` says why."""

    event_id: str | None
    lead_id: str | None = None
    type: str | None = None
    outcome: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stray:
    """An event in an object where it does not belong."""

    number: int
    sha256: bytes
    identity: Identity


def identify(flow_id: str, line: Line) -> Identity:
    """Which event a line holds, as far as it says."""
    if line.content is None:
        return Identity(None, reason=f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        event = Event.from_json(line.content, flow_id=flow_id, max_bytes=MAX_LINE_BYTES)
    except FieldRefused as error:
        return Identity(error.event_id, reason=str(error))
    return Identity(event.event_id, event.lead_id, event.type, event.outcome)


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
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    each.position, each.event_id, each.lead_id, each.type, each.outcome,
                    each.sha256, hour_of(each.recorded_at),
                )
                for each in entries
            ),
        )  # fmt: skip

    def take_lines(self, lines: Iterator[Line]) -> None:
        """The object's side; the outbox's must have been taken."""
        flow_id = self._job.stream.flow_id
        for line in lines:
            its = identify(flow_id, line)
            # Kept to be compared field by field, where the outbox has the event otherwise.
            self._database.execute(
                "INSERT INTO lines SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, CASE WHEN EXISTS"
                " (SELECT 1 FROM entries WHERE event_id = ?2 AND sha256 <> ?6) THEN ?8 END",
                (
                    line.number, its.event_id, its.lead_id, its.type, its.outcome, line.sha256,
                    its.reason, line.content,
                ),
            )  # fmt: skip

    def matched(self) -> int:
        """How many events the object holds as the outbox does."""
        return int(self._database.execute(f"SELECT count(*) FROM ({_MATCHES})").fetchone()[0])  # noqa: S608  # constant

    def count(self) -> None:
        """Count what the object holds, by what each line says it is.

        An event that the outbox does not have in this file has the hour of its id.
        """
        for event_id, hour, kind, outcome, found, matched in self._database.execute(
            "SELECT min(l.event_id), e.hour,"  # noqa: S608  # constant
            # What the store would refuse says only which event it is.
            " CASE WHEN l.reason = '' THEN l.type ELSE e.type END AS kind,"
            " CASE WHEN l.reason = '' THEN l.outcome ELSE e.outcome END AS outcome,"
            " count(*), count(m.position)"
            " FROM lines l LEFT JOIN entries e ON e.event_id = l.event_id"
            f" LEFT JOIN ({_MATCHES}) m ON m.number = l.number"
            " WHERE l.event_id IS NOT NULL"
            " GROUP BY 3, 4, e.hour, CASE WHEN e.hour IS NULL THEN l.event_id END"
        ):
            when = hour_of(id_time(event_id)) if hour is None else hour
            self._job.counting.add({(when, kind, outcome): Tally(0, found, matched)})

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
        for sha256, *names in self._database.execute(
            "SELECT sha256, position, event_id, lead_id, type, outcome FROM entries e"
            " WHERE NOT EXISTS (SELECT 1 FROM lines l WHERE l.event_id = e.event_id)"
            " ORDER BY position"
        ):
            self._note(
                Kind.MISSING_EVENT, "the event is in the outbox and not in its file",
                expected=sha256.hex(), **_names(names),
            )  # fmt: skip

    def _report_changed(self, side: str) -> None:
        for number, expected, found, content, *names in self._database.execute(
            "SELECT l.number, e.sha256, l.sha256, l.content,"
            " e.position, e.event_id, e.lead_id, e.type, e.outcome"
            " FROM lines l JOIN entries e ON e.event_id = l.event_id AND e.sha256 <> l.sha256"
            " ORDER BY l.number"
        ):
            self._note(
                Kind.CHANGED_EVENT, f"line {number} has the event's id and other content; {side}",
                expected=expected.hex(), found=found.hex(),
                fields=self._fields(names[1], content), **_names(names),
            )  # fmt: skip

    def _fields(self, event_id: str, content: bytes | None) -> Differences | None:
        with self._job.engine.connect() as connection:
            payload = sql.payload(connection, self._job.stream.flow_id, event_id)
        if payload is None or content is None:
            return None
        return differences(payload, content, values=self._job.scope.values)

    def _report_repeated(self) -> None:
        for number, sha256, *names in self._database.execute(
            "SELECT l.number, e.sha256, e.position, e.event_id, e.lead_id, e.type, e.outcome"  # noqa: S608  # constant
            " FROM lines l JOIN entries e ON e.event_id = l.event_id AND e.sha256 = l.sha256"
            f" JOIN ({_MATCHES}) m ON m.position = e.position WHERE l.number > m.number"
            " ORDER BY l.number"
        ):
            self._note(
                Kind.DUPLICATE_EVENT, f"line {number} repeats an event of the same file",
                expected=sha256.hex(), found=sha256.hex(), **_names(names),
            )  # fmt: skip

    def _report_foreign(self) -> None:
        rows = self._database.execute(
            "SELECT number, sha256, event_id, lead_id, type, outcome FROM lines l"
            " WHERE event_id IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM entries e WHERE e.event_id = l.event_id) ORDER BY number"
        )
        while batch := list(islice(rows, _BATCH)):
            strays = [Stray(number, sha256, Identity(*its)) for number, sha256, *its in batch]
            report_foreign(self._job, strays, key=self._key, sequence=self._sequence)

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


def _names(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("position", "event_id", "lead_id", "type", "outcome"), values, strict=True))


def report_foreign(job: Job, found: Sequence[Stray], *, key: str, sequence: int | None) -> None:
    """Report events in an object where none of them belongs.

    One that a file of this stream holds, or will hold, is a duplicate; any other is unknown.
    """
    flow_id = job.stream.flow_id
    with job.engine.connect() as connection:
        known = {
            entry.event_id: entry
            for entry in sql.entries_by_id(
                connection, flow_id, [str(each.identity.event_id) for each in found]
            )
        }
    for stray in found:
        its, sha256 = stray.identity, stray.sha256
        entry = known.get(str(its.event_id))
        kind, detail = Kind.UNKNOWN_EVENT, "holds an event that the outbox does not know"
        if entry is not None and entry.sha256 != sha256:
            detail = "holds an event of the outbox, with other content"
        elif entry is not None and not job.view.covers(entry.position):
            detail = "holds an event of the outbox that the stream did not cover"
        elif entry is not None:
            kind, detail = Kind.DUPLICATE_EVENT, "repeats an event that belongs to another file"
        job.recorder.note(
            kind, f"line {stray.number} {detail}",
            sequence=sequence, object_key=key, event_id=its.event_id,
            position=None if entry is None else entry.position,
            lead_id=its.lead_id if entry is None else entry.lead_id,
            type=its.type if entry is None else entry.type,
            outcome=its.outcome if entry is None else entry.outcome,
            expected=None if entry is None else entry.sha256.hex(),
            found=sha256.hex(),
        )  # fmt: skip
