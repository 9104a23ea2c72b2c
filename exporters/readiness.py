"""Is this exporter doing its work? If not, why, in plain words.

The words name streams and seconds. What stores and servers said stays in the log: this is
shown to whoever can reach the port.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from exporters.observer import Pulse
from exporters.standing import Standing, StandingReader, StreamStanding

# Ticks come ten times a second; a slow database may make one long.
STANDSTILL: Final = 10.0
# A thousand streams can be overdue at once, for one reason.
_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong. ``code`` is a stable word for programs."""

    code: str
    text: str
    stream_id: int | None = None


class Readiness:
    """``stopping`` is set once the exporter was told to leave."""

    def __init__(
        self,
        pulse: Callable[[], Pulse | None],
        standing: StandingReader,
        *,
        standstill: float = STANDSTILL,
    ) -> None:
        self._pulse = pulse
        self._standing = standing
        self._standstill = standstill
        self.stopping = False

    def reasons(self) -> list[Reason]:
        """What keeps it from its work; empty when nothing does."""
        return self.judge(self._standing.latest())

    def judge(self, standing: Standing) -> list[Reason]:
        """The same, for a caller who has asked how the streams stand."""
        found = []
        if self.stopping:
            found.append(Reason("stopping", "the exporter is stopping"))
        pulse = self._pulse()
        if pulse is None:
            found.append(Reason("starting", "the exporter has not begun to work yet"))
        elif pulse.tick_age > self._standstill:
            found.append(Reason(
                "standstill",
                f"the scheduler stands still: its last tick began {_seconds(pulse.tick_age)} ago",
            ))  # fmt: skip
        if not standing.reachable:
            found.append(Reason(
                "database", "the database does not answer; the exporter's log says why"
            ))  # fmt: skip
        overdue = [each for each in standing.streams if each.overdue]
        if overdue and pulse is not None and (pulse.fence_age or 0.0) > self._standstill:
            found.append(Reason(
                "held-back",
                "an open transaction that appended holds every stream back, for"
                f" {_seconds(pulse.fence_age or 0.0)}; `auditstore status` names it",
            ))  # fmt: skip
        return found + _overdue(overdue)


def _overdue(streams: list[StreamStanding]) -> list[Reason]:
    worst = sorted(streams, key=lambda each: each.bound - each.lag_seconds)
    found = [
        Reason(
            "overdue",
            f"stream {each.stream_id} is overdue and {each.state}: its oldest event waits for"
            f" {_seconds(each.lag_seconds)}, {_seconds(each.bound)} are its bound;"
            " `auditstore status` says more",
            each.stream_id,
        )
        for each in worst[:_NAMED]
    ]
    if len(worst) > _NAMED:
        found.append(Reason("overdue", f"and {len(worst) - _NAMED} more streams are overdue"))
    return found


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
