"""What one comparison of one stream came to, and the desk that its findings pass over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from auditstore.destinations import Destination
from auditstore.errors import AuditStoreError
from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.patterns import Pattern
from auditstore.reconciliation.showing import LOOKED_AT, show_command


@dataclass(slots=True)
class Summary:
    """Counts of one comparison. ``seconds`` is ``None`` until it is over.

    Expected are the files that the ledger says are delivered and their events. At the level
    *files* the events of a file are counted as found and matched with it; at the level
    *events* each is read. ``intervals`` are the covered positions, from exclusive, to
    inclusive. Whoever keeps ``head_sequence`` and ``head_hash`` elsewhere can prove later that
    the ledger up to there is still the same. Of the files up to ``verified_before`` an earlier run
    compared all, and this one only some again; it is 0 where this one compared all.
    """

    stream_id: int
    flow_id: str
    url: str
    level: str
    intervals: tuple[tuple[int, int], ...] = ()
    first_sequence: int | None = None
    last_sequence: int | None = None
    compared_at: datetime | None = None
    head_sequence: int = 0
    head_hash: str = ""
    verified_before: int = 0
    files_expected: int = 0
    files_found: int = 0
    files_matched: int = 0
    events_expected: int = 0
    events_found: int = 0
    events_matched: int = 0
    objects_listed: int = 0
    verification_objects: int = 0
    bytes_read: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    planned: int = 0
    repaired: int = 0
    pattern: Pattern | None = None
    seconds: float | None = None
    # Of a comparison of two views: which, and how many events are equal but for their spelling.
    views: str = ""
    events_rewritten: int = 0
    # Which list of objects was gone by, where the store itself was not listed.
    listing: str = ""
    error: AuditStoreError | None = None

    @property
    def differences(self) -> int:
        """How many findings are differences; what was repaired meanwhile is among them."""
        return sum(count for kind, count in self.counts.items() if kind.is_difference)

    @property
    def result(self) -> str:
        """``reconciled``, ``differences`` or ``not compared``."""
        if self.error is not None:
            return "not compared"
        return "differences" if self.differences else "reconciled"


@dataclass(frozen=True, slots=True)
class Recorder:
    """Counts each finding of a stream and hands it on at once; it keeps none."""

    summary: Summary
    report: Callable[[Finding], None]
    destination: Destination | None = None

    def note(self, kind: Kind, detail: str, **fields: Any) -> None:
        """Record a finding; ``fields`` are the other ones of :class:`Finding`."""
        key = fields.get("object_key")
        if kind in LOOKED_AT and key is not None and self.destination is not None:
            fields["command"] = show_command(self.destination, key)
        finding = Finding(kind, self.summary.stream_id, self.summary.flow_id, detail, **fields)
        self.summary.counts[kind] += 1
        self.summary.planned += finding.planned
        self.summary.repaired += finding.repaired
        self.report(finding)
