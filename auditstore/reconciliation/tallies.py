"""Counts of events by hour, type and outcome, in the temporary database, so that memory is flat."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from auditstore.reconciliation import patterns
from auditstore.reconciliation.patterns import Delay, Pattern, Period, Sort, Step, Tally

#: How many rows each table of a report has at most.
MOST_PERIODS: Final = 2208  # 92 days by hour: what LeadConduit keeps itself
MOST_SORTS: Final = 100
MOST_DIFFERING: Final = 500
_SCHEMA: Final = """
CREATE TABLE tallies (
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


class Tallies:
    """The counts of one comparison; a second one in the same database begins with none."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("DROP TABLE IF EXISTS tallies")
        database.execute(_SCHEMA)

    def add(self, tallies: Mapping[Key, Tally]) -> None:
        """Add these to what was counted."""
        self._database.executemany(
            _ADD,
            (
                (hour, kind or "", outcome or "", each.expected, each.found, each.matched)
                for (hour, kind, outcome), each in tallies.items()
            ),
        )

    def pattern(self, delay: Delay | None = None) -> Pattern:
        """What all of it came to."""
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
        return Pattern(step, periods, sorts, sorts_left_out, differing, differing_left_out, delay)

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
