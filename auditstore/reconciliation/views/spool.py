"""Both sides of a comparison on disk, so that memory stays flat whatever their order.

The temporary database holds ids, hashes and places of every event, and the snapshots of those
views that cannot be asked for them again.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.tallies import Key as Tallied
from auditstore.reconciliation.tallies import hour_of
from auditstore.reconciliation.views import sameness
from auditstore.reconciliation.views.records import Key, Record, Trouble

Side = Literal[0, 1]
SOURCE: Final[Side] = 0
AGAINST: Final[Side] = 1

_BATCH: Final = 500
#: Smaller, since these bring their snapshots.
_DIFFERENT_BATCH: Final = 50
_COLUMNS: Final = (
    "side, event_id, flow_id, lead_id, type, outcome, sha256, content, place, position, partial,"
    " recipient, payload"
)


def _of(table: str) -> str:
    """The columns of one of two tables that are joined."""
    return ", ".join(f"{table}.{name.strip()}" for name in _COLUMNS.split(","))


_SCHEMA: Final = """
CREATE TABLE records (
    side INTEGER NOT NULL, event_id TEXT NOT NULL, flow_id TEXT NOT NULL, lead_id TEXT,
    type TEXT, outcome TEXT, sha256 BLOB NOT NULL, content BLOB, place BLOB NOT NULL,
    position INTEGER, partial INTEGER NOT NULL, recipient TEXT, payload BLOB, hour INTEGER NOT NULL
);
CREATE UNIQUE INDEX records_key ON records (side, event_id, flow_id);
CREATE TABLE troubles (
    side INTEGER NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, place BLOB NOT NULL,
    event_id TEXT, lead_id TEXT, expected TEXT, found TEXT
);
CREATE INDEX records_lead ON records (side, lead_id, event_id) WHERE lead_id IS NOT NULL;
"""
_INSERT: Final = (
    f"INSERT OR IGNORE INTO records ({_COLUMNS}, hour)"  # noqa: S608  # constants
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# In the order of ids; the other side has none of the same flow and id.
_LONELY: Final = (
    f"SELECT {_COLUMNS} FROM records r WHERE side = ? AND event_id >= ? AND event_id < ?"  # noqa: S608  # constants
    " AND NOT EXISTS (SELECT 1 FROM records o WHERE o.side = ? AND o.event_id = r.event_id"
    " AND o.flow_id = r.flow_id) ORDER BY event_id, flow_id"
)
_DIFFERENT: Final = (
    f"SELECT {_of('s')}, {_of('a')} FROM records s JOIN records a ON a.side = 1"  # noqa: S608  # constants
    " AND a.event_id = s.event_id AND a.flow_id = s.flow_id"
    " WHERE s.side = 0 AND (s.sha256 <> a.sha256 OR s.partial <> a.partial)"
    " ORDER BY s.event_id, s.flow_id"
)


@dataclass(frozen=True, slots=True)
class Spooled:
    """A record as it lies in the spool; ``content`` is the hash of what it says, if taken."""

    record: Record
    content: bytes | None


class Spool:
    """The two sides; each event of a flow is there once a side."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        for statement in _SCHEMA.split(";"):
            database.execute(statement)

    def add(self, side: Side, record: Record) -> Spooled | None:
        """Keep a record; the one that is there already under its id, if one is."""
        content = payload = None
        if record.payload is not None and self._hash(1 - side, record.key) != record.sha256:
            # Equal bytes need no other look, which is most of what there is.
            content = None if record.partial else sameness.digest(record.payload)
            payload = zlib.compress(record.payload, 1) if record.keep else None
        done = self._database.execute(
            _INSERT,
            (
                side, record.event_id, record.flow_id, record.lead_id, record.type, record.outcome,
                record.sha256, content, record.place.encode(errors="surrogateescape"),
                record.position, record.partial, record.recipient_event_id, payload,
                hour_of(record.made_at),
            ),
        )  # fmt: skip
        return None if done.rowcount else self._at(side, record.key)

    def add_trouble(self, side: Side, trouble: Trouble) -> None:
        """Keep what is no event."""
        self._database.execute(
            "INSERT INTO troubles VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                side, trouble.kind.value, trouble.detail,
                trouble.place.encode(errors="surrogateescape"), trouble.event_id, trouble.lead_id,
                trouble.expected, trouble.found,
            ),
        )  # fmt: skip

    def troubles(self, side: Side) -> Iterator[Trouble]:
        """What a side has that is no event, in the order in which it was told."""
        for kind, detail, place, *rest in self._database.execute(
            "SELECT kind, detail, place, event_id, lead_id, expected, found FROM troubles"
            " WHERE side = ? ORDER BY rowid",
            (side,),
        ):
            yield Trouble(Kind(kind), detail, place.decode(errors="surrogateescape"), *rest)

    def clear(self, side: Side) -> None:
        """Forget a side."""
        self._database.execute("DELETE FROM records WHERE side = ?", (side,))
        self._database.execute("DELETE FROM troubles WHERE side = ?", (side,))

    def count(self, side: Side) -> int:
        """How many events a side has."""
        return int(self._one("SELECT count(*) FROM records WHERE side = ?", side)[0])

    def bounds(self, side: Side) -> tuple[str, str] | None:
        """The smallest and the greatest id of a side, if it has any."""
        first, last = self._one(
            "SELECT min(event_id), max(event_id) FROM records WHERE side = ?", side
        )
        return None if first is None else (first, last)

    def flows(self, side: Side) -> set[str]:
        """The flows that a side names."""
        return {
            row[0]
            for row in self._database.execute(
                "SELECT DISTINCT flow_id FROM records WHERE side = ?", (side,)
            )
        }

    def matched(self) -> int:
        """How many events both sides have, whatever their content."""
        return int(
            self._one(
                "SELECT count(*) FROM records s WHERE side = ? AND EXISTS (SELECT 1 FROM records a"
                " WHERE a.side = 1 AND a.event_id = s.event_id AND a.flow_id = s.flow_id)",
                SOURCE,
            )[0]
        )

    def shared_kinds(self) -> Iterator[tuple[Tallied, int]]:
        """How many events of each hour, type and outcome both sides have, whatever their content.

        A table of some columns may not say of which type an event is; the other side does.
        """
        for hour, kind, outcome, events in self._database.execute(
            "SELECT s.hour, coalesce(s.type, a.type), coalesce(s.outcome, a.outcome), count(*)"
            " FROM records s JOIN records a ON a.side = 1 AND a.event_id = s.event_id"
            " AND a.flow_id = s.flow_id WHERE s.side = 0 GROUP BY 1, 2, 3"
        ):
            yield (hour, kind, outcome), events

    def lonely(self, side: Side, *, first: str, end: str) -> Iterator[list[Record]]:
        """The events that only this side has, from ``first`` to before ``end``, in batches."""
        other = AGAINST if side == SOURCE else SOURCE
        rows = self._database.execute(_LONELY, (side, first, end, other))
        while batch := list(islice(rows, _BATCH)):
            yield [_record(row) for row in batch]

    def different(self) -> Iterator[list[tuple[Spooled, Spooled]]]:
        """The events that both sides have, and not in the same bytes, in batches."""
        rows = self._database.execute(_DIFFERENT)
        width = len(_COLUMNS.split(","))
        while batch := list(islice(rows, _DIFFERENT_BATCH)):
            yield [(_spooled(row[:width]), _spooled(row[width:])) for row in batch]

    def leads(self, side: Side, lead_ids: Iterable[str]) -> dict[str, str]:
        """Of these leads, those that the side knows, each with its first event."""
        found = {}
        for lead_id in lead_ids:
            first = self._one(
                "SELECT min(event_id) FROM records WHERE side = ? AND lead_id = ?", side, lead_id
            )[0]
            if first is not None:
                found[lead_id] = first
        return found

    def lead_of(self, event_id: str) -> str | None:
        """The lead of an event that either side has."""
        row = self._database.execute(
            "SELECT lead_id FROM records WHERE side IN (0, 1) AND event_id = ?"
            " AND lead_id IS NOT NULL LIMIT 1",
            (event_id,),
        ).fetchone()
        return None if row is None else str(row[0])

    def _hash(self, side: int, key: Key) -> bytes | None:
        flow_id, event_id = key
        row = self._database.execute(
            "SELECT sha256 FROM records WHERE side = ? AND event_id = ? AND flow_id = ?",
            (side, event_id, flow_id),
        ).fetchone()
        return None if row is None else row[0]

    def _at(self, side: Side, key: Key) -> Spooled:
        flow_id, event_id = key
        return _spooled(
            self._one(
                f"SELECT {_COLUMNS} FROM records WHERE side = ? AND event_id = ? AND flow_id = ?",  # noqa: S608  # constant
                side, event_id, flow_id,
            )
        )  # fmt: skip

    def _one(self, statement: str, *parameters: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._database.execute(statement, parameters).fetchone()
        return row


def _record(row: tuple[Any, ...]) -> Record:
    return _spooled(row).record


def _spooled(row: tuple[Any, ...]) -> Spooled:
    (
        _, event_id, flow_id, lead_id, type_, outcome, sha256, content, place, position, partial,
        recipient, payload,
    ) = row  # fmt: skip
    record = Record(
        event_id=event_id, flow_id=flow_id, lead_id=lead_id, type=type_, outcome=outcome,
        sha256=sha256, place=place.decode(errors="surrogateescape"),
        payload=None if payload is None else zlib.decompress(payload),
        partial=bool(partial), position=position, recipient_event_id=recipient,
    )  # fmt: skip
    return Spooled(record, content)
