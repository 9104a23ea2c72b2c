"""Counts events by hour, type and outcome while files are compared; on disk, so memory is flat."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from auditstore.ledger import LedgerFile
from auditstore.reconciliation import patterns
from auditstore.reconciliation.patterns import Pattern, Tally
from auditstore.reconciliation.tallies import Key, Tallies
from auditstore.sql import patterns as sql

_BATCH: Final = 200


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
        self._waiting: list[_Waiting] = []
        self._delays: Counter[int] = Counter()
        self._worst = 0
        self._tallies = Tallies(database) if active else None

    def expect(self, row: LedgerFile) -> None:
        """The events of a delivered file should be there."""
        if self._tallies is not None:
            if len(self._waiting) == _BATCH:
                self._flush()
            self._waiting.append(_Waiting(row))

    def whole(self, *, matched: bool) -> None:
        """The file that was expected last is there, with all its events if it ``matched``."""
        if self._tallies is not None:
            self._waiting[-1].found = True
            self._waiting[-1].matched = matched

    def add(self, tallies: Mapping[Key, Tally]) -> None:
        """Events that were seen one by one."""
        if self._tallies is not None:
            self._tallies.add(tallies)

    def result(self) -> Pattern | None:
        """What all of it came to."""
        if self._tallies is None:
            return None
        self._flush()
        return self._tallies.pattern(patterns.delay(self._delays, self._worst))

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
