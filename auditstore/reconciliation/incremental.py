"""Compare what is new, what was not clean, and a rolling sample of the rest.

What was compared is remembered for each stream and level with the ledger's head, so a run
costs what came since. See ``docs/reference/reconciliation.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from auditstore.ledger import LedgerFile, row_hash
from auditstore.objects import ObjectStore
from auditstore.reconciliation.comparison import compare_stream
from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.job import Restore
from auditstore.reconciliation.parts import EVERYTHING, Doubt, Part, Window, joined
from auditstore.reconciliation.scope import Level, Progress, Scope, Silent
from auditstore.reconciliation.summary import Summary
from auditstore.reconciliation.view import View
from auditstore.reconciliation.workers import Readers
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import verified as sql
from auditstore.sql.failures import translated
from auditstore.sql.verified import Mark

_SILENT: Final = Silent()
#: So many files may be known as not clean; with more, what comes behind the first is compared anew.
MOST_UNCLEAN: Final = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """How many old files a run reads again: ``files``, or more if all are to come round in
    ``runs`` runs (0: however long it takes), and no more than ``bytes`` of them (one at least).

    ``look_every`` is when the whole listing is due again.
    """

    files: int = 100
    runs: int = 720
    bytes: int = 1024**3
    look_every: timedelta = timedelta(days=7)

    def size(self, old: int) -> int:
        """How many of ``old`` files are read again."""
        return max(self.files, -(-old // self.runs) if self.runs else 0)


#: An hourly and a daily run come round in a month.
SAMPLES: Final[dict[Level, Sample]] = {"files": Sample(), "events": Sample(runs=30)}


def compare_increment(
    engine: Engine,
    stream_id: int,
    open_store: Callable[[], ObjectStore],
    level: Level,
    *,
    report: Callable[[Finding], None],
    restore: Callable[[ObjectStore], Restore] | None = None,
    sample: Sample | None = None,
    anew: bool = False,
    progress: Progress = _SILENT,
    clock: Callable[[], float] = time.monotonic,
    values: bool = False,
    dry_run: bool = False,
    pattern: bool = False,
    readers: Readers | None = None,
) -> Summary:
    """As :func:`compare_stream`, for what is new since the last call at this level.

    A comparison that was not brought to its end leaves what is remembered as it was. ``anew``
    forgets what was remembered: the way on after a finding that the ledger is another one.
    """
    run = _Run(engine, stream_id, level, sample or SAMPLES[level], anew=anew)

    def take(finding: Finding) -> None:
        run.note(finding)
        report(finding)

    summary = compare_stream(
        engine, stream_id, open_store, Scope(level, values=values), report=take, restore=restore,
        progress=progress, clock=clock, choose=run.choose, dry_run=dry_run, pattern=pattern,
        readers=readers,
    )  # fmt: skip
    run.remember()
    return summary


@dataclass(slots=True)
class _Run:
    """One run: which part it is about, and what its findings leave to be compared again."""

    engine: Engine
    stream_id: int
    level: Level
    sample: Sample
    anew: bool
    before: Mark | None = None
    part: Part = EVERYTHING
    sampled: int = 0
    head: LedgerFile | None = None
    view: View | None = None
    unclean: set[int] = field(default_factory=set)
    first_unclean: int | None = None
    unplaced: bool = False

    def choose(self, view: View) -> Part:
        """The part to compare, from what is remembered."""
        self.view = view
        with translated(), self.engine.connect() as connection:
            self.before = sql.read_mark(connection, self.stream_id, self.level)
            delivered = view.stream.delivered_sequence
            self.head = ledger_sql.one_file(connection, self.stream_id, delivered)
            mark = self.before
            if mark is None or self.anew:
                return self.part
            there = ledger_sql.one_file(connection, self.stream_id, mark.sequence)
            if delivered < mark.sequence or not _is_same(there, mark.row_hash):
                found = None if there is None or there.row_hash is None else there.row_hash.hex()
                self.part = Part(
                    doubt=Doubt(mark.sequence, mark.verified_at, mark.row_hash.hex(), found)
                )
                return self.part
            again: list[Window] = [(each, each) for each in mark.unclean]
            following = sql.next_files(
                connection, self.stream_id,
                after=mark.sampled_sequence, upto=mark.sequence,
                limit=self.sample.size(mark.sequence),
            )  # fmt: skip
            if following:
                self.sampled = _within(following, self.sample.bytes)
                again.append((mark.sampled_sequence + 1, self.sampled))
            if self.sampled == mark.sequence:
                self.sampled = 0  # all came round
            looks = mark.looked_at is None or view.now - mark.looked_at >= self.sample.look_every
            key = sql.lowest_key(
                connection, self.stream_id, after=mark.sequence, upto=view.last_sequence
            )
        self.part = Part(mark.sequence, joined(again))
        if not looks:
            # Everything behind the start of the lowest key: it is in the listing itself then.
            self.part = replace(
                self.part,
                reach="nothing" if key is None else "behind",
                start_after=None if key is None else key[:-1],
            )
        return self.part

    def note(self, finding: Finding) -> None:
        """A difference is compared again the next time, wherever it lies."""
        if not finding.kind.is_difference or finding.kind is Kind.OVERDUE:
            return  # what is not delivered is behind every mark
        if finding.sequence is None:
            self.unplaced = True
            return
        self.first_unclean = min(finding.sequence, self.first_unclean or finding.sequence)
        if len(self.unclean) <= MOST_UNCLEAN:
            self.unclean.add(finding.sequence)

    def remember(self) -> None:
        """Move the mark, as far as the findings let it pass."""
        view, head = self.view, self.head
        if view is None or self.part.doubt is not None:
            return  # it stays until an operator says that the other ledger is the right one
        with translated(), self.engine.begin() as connection:
            now = sql.read_mark(connection, self.stream_id, self.level, lock=True)
            if (now and now.version) != (self.before and self.before.version):
                self._add_to(connection, now)
                return
            if head is None or head.row_hash is None or head.row_hash != view.stream.chain_hash:
                # The ledger's end is not what the stream says: nothing new is remembered.
                self._add_to(connection, now)
                return
            whole = self.part.reach == "all"
            kept = None if whole or self.before is None else self.before.looked_at
            mark = Mark(
                sequence=head.sealed.sequence,
                row_hash=head.row_hash,
                verified_at=view.now,
                unclean=tuple(
                    sorted(each for each in self.unclean if each <= head.sealed.sequence)
                ),
                sampled_sequence=self.sampled,
                looked_at=None if self.unplaced else (view.now if whole else kept),
                version=0 if self.before is None else self.before.version,
            )
            self._write(connection, mark)

    def _add_to(self, connection: Connection, now: Mark | None) -> None:
        """Leave another's mark where it is, and add to it what this run found."""
        if now is None:
            return  # all is compared the next time
        unclean = {*now.unclean, *(each for each in self.unclean if each <= now.sequence)}
        self._write(
            connection,
            replace(
                now,
                unclean=tuple(sorted(unclean)),
                looked_at=None if self.unplaced else now.looked_at,
            ),
        )

    def _write(self, connection: Connection, mark: Mark) -> None:
        if len(mark.unclean) <= MOST_UNCLEAN:
            sql.write_mark(connection, self.stream_id, self.level, mark)
            return
        # Too many to be remembered one by one: the mark goes no further than the first.
        first = min(mark.unclean if self.first_unclean is None
                    else (self.first_unclean, *mark.unclean))  # fmt: skip
        row = ledger_sql.one_file(connection, self.stream_id, first - 1)
        if row is None or row.row_hash is None:
            sql.forget_mark(connection, self.stream_id, self.level)
            return
        sql.write_mark(
            connection, self.stream_id, self.level,
            replace(
                mark, sequence=first - 1, row_hash=row.row_hash, unclean=(),
                sampled_sequence=min(mark.sampled_sequence, first - 1),
            ),
        )  # fmt: skip


def _is_same(row: LedgerFile | None, expected: bytes) -> bool:
    """Whether the ledger's row is still the one that was verified, in its hash and in itself."""
    if row is None or row.delivery is None or row.delivered_at is None or not row.previous_hash:
        return False
    computed = row_hash(row.previous_hash, row.sealed, row.delivery, row.delivered_at)
    return row.row_hash == computed == expected


def _within(following: list[tuple[int, int]], limit: int) -> int:
    """The last of the files that stay within so many bytes together; the first, in any case."""
    last, total = following[0][0], 0
    for sequence, size in following:
        total += size
        if total > limit:
            break
        last = sequence
    return last
