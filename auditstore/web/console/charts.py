"""Small charts as SVG, drawn at the server; each says in words what it shows.

A chart is drawn twice, wide and narrow; the style sheet shows the one that fits, so that its
letters are as large as all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from markupsafe import Markup, escape

from auditstore.cli.wording import age, number

_SPARK: Final = (140, 32)
_TOP: Final = 16


@dataclass(frozen=True, slots=True)
class _Frame:
    """The room of a chart: from ``left`` to ``width``, from the top down to ``base``."""

    kind: str
    width: int
    height: int
    left: int = 56

    @property
    def base(self) -> int:
        return self.height - 24

    @property
    def room(self) -> int:
        return self.width - self.left


_FRAMES: Final = (_Frame("chart wide", 1120, 200), _Frame("chart narrow", 330, 190, 48))


def days_up_to(today: date, count: int) -> list[date]:
    """The last ``count`` days, oldest first."""
    return [today - timedelta(days=back) for back in range(count - 1, -1, -1)]


def spark(per_day: Mapping[date, int], days: Sequence[date]) -> Markup:
    """A row of bars as small as a word."""
    width, height = _SPARK
    highest = max([per_day.get(day, 0) for day in days] + [1])
    step = width / len(days)
    bars = "".join(
        _bar(n * step + 1, step - 2, height, height, per_day.get(day, 0) / highest)
        for n, day in enumerate(days)
    )
    total = sum(per_day.get(day, 0) for day in days)
    words = f"{number(total, 'event')} in {len(days)} days, at most {number(highest)} a day"
    if not total:
        words = f"No events in {len(days)} days"
    return _svg("spark", width, height, words, bars)


def events_per_day(per_day: Mapping[date, int], days: Sequence[date]) -> Markup:
    """Bars with a scale and the days below; each bar tells its number when pointed at."""
    total = sum(per_day.get(day, 0) for day in days)
    words = f"Events per day: {number(total)} in the last {len(days)} days"
    return _both(words, lambda frame: _days(frame, per_day, days))


def _days(frame: _Frame, per_day: Mapping[date, int], days: Sequence[date]) -> str:
    highest = _round_up(max([per_day.get(day, 0) for day in days] + [1]))
    step = frame.room / len(days)
    every = max(1, round(60 / step))
    parts = _scale(frame, f"{highest:,.0f}", f"{highest / 2:,.0f}" if highest >= 2 else "")
    for n, day in enumerate(days):
        count = per_day.get(day, 0)
        x = frame.left + n * step
        bar = _bar(x + step * 0.16, step * 0.68, frame.base, frame.base - _TOP, count / highest)
        parts.append(f"<g><title>{day:%d %b}: {number(count, 'event')}</title>{bar}</g>")
        if (len(days) - 1 - n) % every == 0:
            middle = min(x + step / 2, frame.width - 22)
            parts.append(_text(middle, frame.height - 6, f"{day:%d %b}", "middle"))
    return "".join(parts)


def lag(points: Sequence[tuple[datetime, float]], limit: float) -> Markup:
    """How long after its first event each file was delivered; ``limit`` is what is asked for."""
    slowest = max(seconds for _, seconds in points)
    words = (
        f"Delay of the last {number(len(points), 'file')}: the newest {age(points[-1][1])}, "
        f"the slowest {age(slowest)}; a file waits {age(limit)} for more events"
    )
    return _both(words, lambda frame: _line(frame, points, limit, max(slowest, limit, 0.1)))


def _line(
    frame: _Frame, points: Sequence[tuple[datetime, float]], limit: float, most: float
) -> str:
    highest = _round_up(most)
    first, last = points[0][0], points[-1][0]
    span = max((last - first).total_seconds(), 1e-6)
    right = frame.width - 4

    def y(seconds: float) -> float:
        return frame.base - (frame.base - _TOP) * seconds / highest

    places = [
        (frame.left + (right - frame.left) * (at - first).total_seconds() / span, y(seconds))
        for at, seconds in points
    ]
    if len(places) == 1:
        places.append((right, places[0][1]))
    line = " ".join(f"{x:.1f},{up:.1f}" for x, up in places)
    area = f"{frame.left},{frame.base} {line} {places[-1][0]:.1f},{frame.base}"
    asked = f"{y(limit):.1f}"
    shown = "%d %b %H:%M" if frame.width > frame.height * 2 else "%H:%M"
    return "".join([
        *_scale(frame, age(highest), age(highest / 2)),
        f'<polygon class="area-mark" points="{area}"/>',
        f'<line class="limit" x1="{frame.left}" x2="{frame.width}" y1="{asked}" y2="{asked}"/>',
        f'<polyline class="line-mark" points="{line}"/>',
        _text(frame.left, frame.height - 6, f"{first:{shown}}", "start"),
        _text(right, frame.height - 6, f"{last:{shown}} UTC", "end"),
    ])  # fmt: skip


# --- parts ----------------------------------------------------------------------------


def _both(words: str, inside: Callable[[_Frame], str]) -> Markup:
    return Markup("").join(
        _svg(frame.kind, frame.width, frame.height, words, inside(frame)) for frame in _FRAMES
    )


def _svg(kind: str, width: int, height: int, words: str, inside: str) -> Markup:
    return Markup(  # noqa: S704  # numbers, our own words, and what is escaped
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(words)}">{inside}</svg>'
    )


def _bar(x: float, width: float, base: float, height: float, share: float) -> str:
    tall = max(height * share, 2.0)
    kind = "bar-mark" if share > 0 else "bar-none"
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{base - tall:.1f}" width="{width:.1f}" '
        f'height="{tall:.1f}" rx="1.5"/>'
    )


def _scale(frame: _Frame, highest: str, middle: str) -> list[str]:
    """Lines across at the bottom, in the middle and at the top, with what they stand for."""
    marks = [(frame.base, "0"), ((frame.base + _TOP) / 2, middle), (_TOP, highest)]
    return [
        f'<line class="rule" x1="{frame.left}" x2="{frame.width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        + _text(frame.left - 8, y + 4, words, "end")
        for y, words in marks
        if words
    ]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 10, 20 and so on, so that a scale's end and middle read well."""
    size = 1.0
    while size * 10 < value:
        size *= 10
    while size > value * 10:
        size /= 10
    return next(
        size * step for step in (0.1, 0.2, 0.4, 0.5, 1, 2, 4, 5, 10) if size * step >= value
    )
