"""What a comparison can find, and what of it counts as a difference."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from auditstore.reconciliation.differing import Differences


class Kind(StrEnum):
    """The kinds of findings, in the order in which reports show them."""

    MISSING_FILE = "missing-file"
    CHANGED_FILE = "changed-file"
    UNKNOWN_FILE = "unknown-file"
    MISSING_EVENT = "missing-event"
    MISSING_LATE_EVENT = "missing-late-event"
    CHANGED_EVENT = "changed-event"
    DUPLICATE_EVENT = "duplicate-event"
    UNKNOWN_EVENT = "unknown-event"
    UNREADABLE_LINE = "unreadable-line"
    OUTBOX_DIFFERS = "outbox-differs"
    BROKEN_CHAIN = "broken-chain"
    OVERDUE = "overdue"
    NOT_YET_DUE = "not-yet-due"
    RECOMPRESSED = "recompressed"
    REWRITTEN = "rewritten"
    NOT_COVERED = "not-covered"
    PAST_RETENTION = "past-retention"

    @property
    def is_difference(self) -> bool:
        """Whether a stream with this finding is not reconciled."""
        return self not in INFORMATION

    @property
    def in_words(self) -> str:
        """The kind in words."""
        return self.value.replace("-", " ")


#: Findings that are worth saying, and no difference.
INFORMATION: Final = frozenset(
    {
        Kind.NOT_YET_DUE, Kind.RECOMPRESSED, Kind.REWRITTEN, Kind.NOT_COVERED, Kind.PAST_RETENTION,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: where, what was expected, what is there.

    ``detail`` is a sentence for an operator. ``fixable`` says that ``--repair`` can put it
    right, ``planned`` that a dry run has tried and it would, ``repaired`` that it just did.
    ``fields`` are those in which a changed event differs, and ``command`` is what shows the object.
    Fields that do not apply are ``None``.
    """

    kind: Kind
    stream_id: int
    flow_id: str
    detail: str
    sequence: int | None = None
    position: int | None = None
    event_id: str | None = None
    lead_id: str | None = None
    type: str | None = None
    outcome: str | None = None
    object_key: str | None = None
    expected: str | None = None
    found: str | None = None
    fields: Differences | None = None
    command: str | None = None
    fixable: bool = False
    planned: bool = False
    repaired: bool = False
