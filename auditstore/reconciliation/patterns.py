"""Where and when events differ, and how long deliveries took: what a report draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Step = Literal["hour", "day", "month"]
#: Delays are sorted into buckets, each 1 % wider than the one before: percentiles are that exact.
GROWTH: Final = 1.01
_HOUR_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Tally:
    """Events that should be there, that are there, and that are there as they should be."""

    expected: int = 0
    found: int = 0
    matched: int = 0

    @property
    def differs(self) -> bool:
        """Whether anything is missing, too much, or otherwise than it should be."""
        return not self.expected == self.found == self.matched

    def __add__(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.expected + other.expected,
            self.found + other.found,
            self.matched + other.matched,
        )


@dataclass(frozen=True, slots=True)
class Period:
    """A tally of the events recorded from ``start`` on, in seconds since the epoch, UTC."""

    start: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Sort:
    """A tally of the events of one type and outcome; of an hour too, where ``start`` is set."""

    type: str | None
    outcome: str | None
    tally: Tally
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """From recorded to delivered, in milliseconds; percentiles are at most 1 % too high.

    ``histogram`` has pairs of a bucket's upper bound and how many events were delivered within it.
    """

    events: int
    p50: int
    p95: int
    p99: int
    worst: int
    histogram: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Events by time, and by type and outcome; long spans are told by day or by month.

    ``differing`` are the first hours, types and outcomes that differ, whatever the step is.
    """

    step: Step = "hour"
    periods: tuple[Period, ...] = ()
    sorts: tuple[Sort, ...] = ()
    sorts_left_out: int = 0
    differing: tuple[Sort, ...] = ()
    differing_left_out: int = 0
    delay: Delay | None = None


def bound(bucket: int) -> int:
    """The longest delay in a bucket, in milliseconds."""
    return math.ceil(GROWTH**bucket)


def delay(histogram: Mapping[int, int], worst: int) -> Delay | None:
    """The percentiles of a histogram that maps upper bounds to counts."""
    events = sum(histogram.values())
    if not events:
        return None
    ordered = sorted(histogram.items())

    def within(percent: int) -> int:
        # The smallest delay that so many percent of the events do not exceed.
        rank = -(-events * percent // 100)
        for upper, count in ordered:
            rank -= count
            if rank <= 0:
                return min(upper, worst)
        return worst

    return Delay(events, within(50), within(95), within(99), worst, tuple(ordered))


def total(patterns: Iterable[Pattern]) -> Pattern | None:
    """Several streams' patterns as one, at the coarsest step among them."""
    found = list(patterns)
    if not found:
        return None
    steps: Sequence[Step] = ("hour", "day", "month")
    step = max((each.step for each in found), key=steps.index)
    periods: dict[int, Tally] = {}
    sorts: dict[tuple[str | None, str | None], Tally] = {}
    for each in found:
        for period in each.periods:
            start = begin(step, period.start)
            periods[start] = periods.get(start, Tally()) + period.tally
        for sort in each.sorts:
            kind = (sort.type, sort.outcome)
            sorts[kind] = sorts.get(kind, Tally()) + sort.tally
    histogram: Counter[int] = Counter()
    worst = 0
    for each in found:
        if each.delay is not None:
            histogram.update(dict(each.delay.histogram))
            worst = max(worst, each.delay.worst)
    return Pattern(
        step=step,
        periods=tuple(Period(start, tally) for start, tally in sorted(periods.items())),
        sorts=tuple(
            Sort(*kind, tally)
            for kind, tally in sorted(sorts.items(), key=lambda item: tuple(map(str, item[0])))
        ),
        sorts_left_out=sum(each.sorts_left_out for each in found),
        delay=delay(histogram, worst),
    )


def begin(step: Step, moment: int) -> int:
    """The start of the hour, day or month, in UTC, that a moment lies in."""
    if step == "hour":
        return moment - moment % _HOUR_SECONDS
    day = moment - moment % (24 * _HOUR_SECONDS)
    if step == "day":
        return day
    return day - (_day_of_month(day) - 1) * 24 * _HOUR_SECONDS


def _day_of_month(moment: int) -> int:
    return datetime.fromtimestamp(moment, UTC).day
