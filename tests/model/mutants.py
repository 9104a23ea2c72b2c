"""Every guard taken away, in a world that is large enough to show what then goes wrong.

A model that holds proves nothing until it is seen to fail.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from .settings import Guards, Settings

_ONE_WORKER: Final = Settings(workers=1)
_TWO_WORKERS: Final = Settings(appends=(1,), ticks_in_turns=False)
_TWO_FILES: Final = Settings(appends=(2,), ticks_in_turns=False)
_CRASH: Final = Settings(appends=(1,), workers=1, server_crashes=1, asynchronous=True)

_SKIPPED: Final = "SKIPPED: the stream is sealed up to"
_HALTED: Final = "halted though nobody else wrote"
_OTHER_CONTENT: Final = "has not the content that was sealed"
_NEVER: Final = "NEVER DELIVERED"


@dataclass(frozen=True)
class Mutant:
    """A world without some guards, and what becomes of it."""

    without: tuple[str, ...]
    world: Settings
    problem: str

    @property
    def settings(self) -> Settings:
        """The world without the guards."""
        return replace(self.world, guards=Guards().without(*self.without))


#: Guards that alone keep something from happening.
MUTANTS: Final = (
    Mutant(("lock_before_position",), _ONE_WORKER, _SKIPPED),
    Mutant(
        ("no_sequence_cache",),
        Settings(appends=(1, 1, 1), workers=1, ticks_in_turns=False),
        _SKIPPED,
    ),
    Mutant(("writers_waited_for",), _ONE_WORKER, _SKIPPED),
    Mutant(("position_before_writers",), _ONE_WORKER, _SKIPPED),
    Mutant(("prepared_are_writers",), replace(_ONE_WORKER, prepared=True), _SKIPPED),
    Mutant(("fresh_snapshot",), _ONE_WORKER, _SKIPPED),
    Mutant(
        ("fence_forgets_old_runs",),
        replace(_ONE_WORKER, prepared=True, server_crashes=1),
        _SKIPPED,
    ),
    Mutant(("run_checked",), replace(_ONE_WORKER, rolled_back=2, server_crashes=1), _SKIPPED),
    Mutant(("seal_row_lock",), _TWO_FILES, _HALTED),
    Mutant(("one_in_flight",), _TWO_FILES, _HALTED),
    Mutant(("seal_before_upload",), _ONE_WORKER, "is in no ledger row"),
    Mutant(("durable_seal",), _CRASH, "which is not committed"),
    Mutant(("mark_at_last_event",), _ONE_WORKER, _SKIPPED),
    Mutant(("upto_fence",), _ONE_WORKER, _SKIPPED),
    Mutant(("frozen_range",), _ONE_WORKER, _OTHER_CONTENT),
    Mutant(("same_bytes",), _ONE_WORKER, _OTHER_CONTENT),
    Mutant(("create_only",), _TWO_WORKERS, "was written 2 times"),
    Mutant(("content_compared",), replace(_TWO_WORKERS, foreign=True), "does not lie in the store"),
    Mutant(("same_is_delivered",), _TWO_WORKERS, _HALTED),
    Mutant(("recorded_once",), _TWO_WORKERS, _HALTED),
    Mutant(("durable_record",), _CRASH, "is not recorded any more"),
    Mutant(("lease_expires",), _TWO_WORKERS, _NEVER),
    Mutant(("lease_not_trusted",), _TWO_WORKERS, _HALTED),
)


@dataclass(frozen=True)
class SecondLine:
    """A guard behind another: its absence alone shows nowhere, but that of both does."""

    guard: str
    behind: tuple[str, ...]
    world: Settings
    problem: str


#: Guards whose work is done by others as long as those stand.
SECOND_LINES: Final = (
    SecondLine("sequence_unique", ("seal_row_lock",), _TWO_WORKERS, "the ledger's sequence is"),
    SecondLine("record_in_order", ("one_in_flight",), _TWO_FILES, "before the one ahead of it"),
    SecondLine("record_row_lock", ("delivered_is_final",), _TWO_FILES, "delivered mark is 1"),
    SecondLine("delivered_is_final", ("record_row_lock",), _TWO_FILES, "delivered mark is 1"),
)
