"""The geometry of the page's charts: numbers in, rectangles and labels out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from auditstore.reconciliation.html.wording import number
from auditstore.reconciliation.patterns import Delay, Pattern, Period, Step, Tally
from auditstore.reconciliation.report_text import moment, seconds

WIDTH: Final = 720
HEIGHT: Final = 220
_LEFT: Final = 64
_RIGHT: Final = 12
_TOP: Final = 14
_BOTTOM: Final = 30
_DELAY_TOP: Final = 62
_COLUMNS: Final = 96
_DELAY_COLUMNS: Final = 48
_STEP_SECONDS: Final = {"hour": 3600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle with its class, and the words for it."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at a place on an axis."""

    at: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the chart with its label, ``y`` of which differs so that none overlaps."""

    x: float
    y: float
    label: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart; ``description`` says in words what it shows."""

    title: str
    description: str
    bars: tuple[Bar, ...]
    xs: tuple[Tick, ...]
    ys: tuple[Tick, ...]
    marks: tuple[Mark, ...] = ()
    top: int = _TOP
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


def over_time(pattern: Pattern, *, by: str) -> Chart | None:
    """Events by the time of ``by``: as they should be, not so, and more than expected."""
    if not pattern.periods:
        return None
    columns, width_in_steps = _columns(pattern.step, pattern.periods)
    count = max(columns) + 1
    highest = max(max(each.expected, each.found) for _, each in columns.values())
    ys, top = _scale(highest, HEIGHT - _TOP - _BOTTOM)
    # One column alone does not fill the page.
    slot = (WIDTH - _LEFT - _RIGHT) / max(count, 12)
    gap = min(2.0, slot * 0.15)
    bars = []
    for index, (start, tally) in sorted(columns.items()):
        x, base = _LEFT + index * slot + gap / 2, float(HEIGHT - _BOTTOM)
        wrong = max(tally.expected - tally.matched, 0)
        more = max(tally.found - tally.expected, 0)
        title = (
            f"{moment(start)}: {number(tally.expected)} expected, {number(tally.found)} found, "
            f"{number(tally.matched)} matched"
        )
        for kind, events in (("matched", tally.matched), ("wrong", wrong), ("more", more)):
            if events:
                # Whatever is wrong can be seen, however few events it is.
                height = max(events / top * (HEIGHT - _TOP - _BOTTOM), 2.5)
                base -= height
                bars.append(Bar(_round(x), _round(base), _round(slot - gap), _round(height), kind,
                                title))  # fmt: skip
    step = pattern.step if width_in_steps == 1 else f"{width_in_steps} {pattern.step}s"
    return Chart(
        f"Events by time of {by}",
        f"{count} columns of one {step} each, from {moment(pattern.periods[0].start)} on; the "
        f"highest has {number(highest)} events.",
        tuple(bars),
        _time_ticks(columns, slot, pattern.step),
        ys,
    )


def of_delays(delay: Delay) -> Chart:
    """How long deliveries took, on a logarithmic scale, with the percentiles."""
    lowest = max(min(delay.histogram)[0] / 2, 1)
    span = math.log(max(delay.worst, lowest * 10) * 1.1 / lowest)

    def place(milliseconds: float) -> float:
        share = math.log(max(milliseconds, lowest) / lowest) / span
        return min(max(share, 0.0), 1.0)

    columns = [0] * _DELAY_COLUMNS
    for upper, events in delay.histogram:
        columns[min(int(place(upper) * _DELAY_COLUMNS), _DELAY_COLUMNS - 1)] += events
    room = HEIGHT - _DELAY_TOP - _BOTTOM
    ys, top = _scale(max(columns), room)
    inner = WIDTH - _LEFT - _RIGHT
    slot = inner / _DELAY_COLUMNS
    bars = []
    for index, events in enumerate(columns):
        if events:
            upto = seconds(round(lowest * math.exp(span * (index + 1) / _DELAY_COLUMNS)))
            height = max(events / top * room, 1.5)
            bars.append(Bar(
                _round(_LEFT + index * slot + 0.75), _round(HEIGHT - _BOTTOM - height),
                _round(slot - 1.5), _round(height), "matched",
                f"{number(events)} events within {upto}",
            ))  # fmt: skip
    told = (("p50", delay.p50), ("p95", delay.p95), ("p99", delay.p99), ("worst", delay.worst))
    marks = tuple(
        Mark(
            _round(_LEFT + place(value) * inner), 12 + 13 * row, f"{name} {seconds(value)}",
            "end" if place(value) > 0.5 else "start",
        )
        for row, (name, value) in enumerate(told)
    )  # fmt: skip
    return Chart(
        "Delay of delivery",
        f"From recorded to delivered, {number(delay.events)} events, logarithmic scale: half "
        f"within {seconds(delay.p50)}, 95 % within {seconds(delay.p95)}, 99 % within "
        f"{seconds(delay.p99)}, the worst {seconds(delay.worst)}.",
        tuple(bars), _log_ticks(lowest, span, inner), ys, marks, top=_DELAY_TOP,
    )  # fmt: skip


def _columns(step: Step, periods: Sequence[Period]) -> tuple[dict[int, tuple[int, Tally]], int]:
    """At most so many columns of equal width: index to start and tally; and steps a column."""
    first = _index(step, periods[0].start)
    wide = -(-(_index(step, periods[-1].start) - first + 1) // _COLUMNS)
    found: dict[int, tuple[int, Tally]] = {}
    for period in periods:
        index = (_index(step, period.start) - first) // wide
        start, tally = found.get(index, (period.start, Tally()))
        found[index] = (start, tally + period.tally)
    return found, wide


def _index(step: Step, start: int) -> int:
    if step == "month":
        day = datetime.fromtimestamp(start, UTC)
        return day.year * 12 + day.month
    return start // _STEP_SECONDS[step]


def _time_ticks(columns: dict[int, tuple[int, Tally]], slot: float, step: Step) -> tuple[Tick, ...]:
    form = {"hour": "%d %b %H:%M", "day": "%Y-%m-%d", "month": "%b %Y"}[step]
    ticks: list[Tick] = []
    for index, (start, _) in sorted(columns.items()):
        at = _LEFT + (index + 0.5) * slot
        # Far enough from the one before it, and whole within the picture.
        if (not ticks or at - ticks[-1].at > 110) and at < WIDTH - 40:
            label = f"{datetime.fromtimestamp(start, UTC):{form}}"
            ticks.append(Tick(_round(max(at, _LEFT + 34)), label))
    return tuple(ticks)


def _log_ticks(lowest: float, span: float, inner: float) -> tuple[Tick, ...]:
    units = (
        (1, "1 ms"), (2, "2 ms"), (5, "5 ms"), (10, "10 ms"), (20, "20 ms"), (50, "50 ms"),
        (100, "100 ms"), (200, "200 ms"), (500, "500 ms"), (1000, "1 s"), (2000, "2 s"),
        (5000, "5 s"), (10_000, "10 s"), (30_000, "30 s"), (60_000, "1 min"), (120_000, "2 min"),
        (300_000, "5 min"), (600_000, "10 min"), (1_800_000, "30 min"), (3_600_000, "1 h"),
        (7_200_000, "2 h"), (21_600_000, "6 h"), (43_200_000, "12 h"), (86_400_000, "1 day"),
        (172_800_000, "2 days"), (604_800_000, "7 days"), (2_592_000_000, "30 days"),
        (31_536_000_000, "1 year"), (315_360_000_000, "10 years"),
    )  # fmt: skip
    ticks: list[Tick] = []
    for value, label in units:
        share = math.log(value / lowest) / span
        at = _LEFT + share * inner
        if 0 <= share <= 0.97 and (not ticks or at - ticks[-1].at > 50):
            ticks.append(Tick(_round(at), label))
    return tuple(ticks)


def _scale(highest: int, room: float) -> tuple[tuple[Tick, ...], float]:
    """A few round figures up to at least ``highest``, and the figure at the top."""
    magnitude = 10 ** math.floor(math.log10(max(highest, 1)))
    step = next(each * magnitude / 4 for each in (1, 2, 4, 6, 8, 10) if each * magnitude >= highest)
    step = max(math.ceil(step), 1)
    top = step * math.ceil(max(highest, 1) / step)
    base = HEIGHT - _BOTTOM
    return tuple(
        Tick(_round(base - value / top * room), number(value), "end")
        for value in range(0, top + 1, step)
    ), float(top)


def _round(value: float) -> float:
    return round(value, 1)
