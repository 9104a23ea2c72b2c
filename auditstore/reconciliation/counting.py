"""Counts events by hour, type and outcome while files are compared; on disk, so memory is flat."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from auditstore.ledger import LedgerFile
from auditstore.reconciliation import patterns
from auditstore.reconciliation.patterns import Pattern, Period, Sort, Step, Tally
from auditstore.sql import patterns as sql

#: How many rows each table of a report has at most.
MOST_PERIODS: Final = 2208  # 92 days by hour: what LeadConduit keeps itself
MOST_SORTS: Final = 100
MOST_DIFFERING: Final = 500
_BATCH: Final = 200
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tallies (
    hour INTEGER NOT NULL, type TEXT NOT NULL, outcome TEXT NOT NULL,
    expected INTEGER NOT NULL, found INTEGER NOT NULL, matched INTEGER NOT NULL,
    PRIMARY KEY (hour, type, outcome)
) WITHOUT ROWID
"""
_ADD: Final = (
    "INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (hour, type, outcome) DO UPDATE SET expected = expected + excluded.expected,"
    " found = found + excluded.found, matched = matched + excluded.matched"
)

#: Hour since the epoch, type, outcome.
Key = tuple[int, str | None, str | None]


@dataclass(slots=True)
class _Waiting:
    row: LedgerFile
    found: bool = False
    matched: bool = False


class Counting:
    """The tallies of one stream. Nothing is counted, and nothing is asked, unless ``active``."""

    def __init__(
        self, engine: Engine, flow_id: str, database: sqlite3.Connection, *, active: bool
    ) -> None:
        self._engine = engine
        self._flow_id = flow_id
        self._database = database
        self._waiting: list[_Waiting] = []
        self._delays: Counter[int] = Counter()
        self._worst = 0
        self.active = active
        if active:
            database.execute(_SCHEMA)

    def expect(self, row: LedgerFile) -> None:
        """The events of a delivered file should be there."""
        if self.active:
            if len(self._waiting) == _BATCH:
                self._flush()
            self._waiting.append(_Waiting(row))

    def whole(self, *, matched: bool) -> None:
        """The file that was expected last is there, with all its events if it ``matched``."""
        if self.active:
            self._waiting[-1].found = True
            self._waiting[-1].matched = matched

    def add(self, tallies: Mapping[Key, Tally]) -> None:
        """Events that were seen one by one."""
        if self.active:
            self._database.executemany(
                _ADD,
                (
                    (hour, kind or "", outcome or "", each.expected, each.found, each.matched)
                    for (hour, kind, outcome), each in tallies.items()
                ),
            )

    def result(self) -> Pattern | None:
        """What all of it came to."""
        if not self.active:
            return None
        self._flush()
        sorts, sorts_left_out = self._sorts(
            "SELECT NULL, type, outcome, sum(expected), sum(found), sum(matched) FROM tallies"
            " GROUP BY type, outcome ORDER BY sum(expected) DESC, type, outcome",
            MOST_SORTS,
        )
        differing, differing_left_out = self._sorts(
            "SELECT hour, type, outcome, expected, found, matched FROM tallies"
            " WHERE expected <> found OR expected <> matched ORDER BY hour, type, outcome",
            MOST_DIFFERING,
        )
        step, periods = self._periods()
        return Pattern(
            step, periods, sorts, sorts_left_out, differing, differing_left_out,
            patterns.delay(self._delays, self._worst),
        )  # fmt: skip

    def _flush(self) -> None:
        """Ask for what the waiting files should hold, in two statements for all of them."""
        waiting, self._waiting = self._waiting, []
        ranges = [
            (each.row.sealed.first_position, each.row.sealed.last_position) for each in waiting
        ]
        moments = [each.row.delivered_at for each in waiting]
        with self._engine.connect() as connection:
            kinds = sql.range_kinds(connection, self._flow_id, ranges)
            delays = sql.range_delays(
                connection, self._flow_id, ranges, moments, growth=patterns.GROWTH
            )
        tallies: dict[Key, Tally] = {}
        for kind in kinds:
            key = (kind.hour, kind.type, kind.outcome)
            file = waiting[kind.number]
            tallies[key] = tallies.get(key, Tally()) + Tally(
                kind.events, kind.events * file.found, kind.events * file.matched
            )
        self.add(tallies)
        for bucket, events, worst in delays:
            self._delays[patterns.bound(bucket)] += events
            self._worst = max(self._worst, worst)

    def _sorts(self, statement: str, most: int) -> tuple[tuple[Sort, ...], int]:
        rows = self._database.execute(f"{statement} LIMIT {most}").fetchall()
        (count,) = self._database.execute(f"SELECT count(*) FROM ({statement})").fetchone()  # noqa: S608  # constant
        return tuple(
            Sort(
                kind or None, outcome or None, Tally(*tally), None if hour is None else hour * 3600
            )
            for hour, kind, outcome, *tally in rows
        ), count - len(rows)

    def _periods(self) -> tuple[Step, tuple[Period, ...]]:
        (hours,) = self._database.execute("SELECT count(DISTINCT hour) FROM tallies").fetchone()
        (days,) = self._database.execute("SELECT count(DISTINCT hour / 24) FROM tallies").fetchone()
        step: Step = "hour"
        if hours > MOST_PERIODS:
            step = "day" if days <= MOST_PERIODS else "month"
        found: dict[int, Tally] = {}
        for hour, *tally in self._database.execute(
            "SELECT hour, sum(expected), sum(found), sum(matched) FROM tallies"
            " GROUP BY hour ORDER BY hour"
        ):
            start = patterns.begin(step, hour * 3600)
            found[start] = found.get(start, Tally()) + Tally(*tally)
        return step, tuple(Period(start, tally) for start, tally in found.items())


def hour_of(moment: datetime) -> int:
    """The hour since the epoch."""
    return int(moment.timestamp()) // 3600
