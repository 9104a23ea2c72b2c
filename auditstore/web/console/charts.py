"""Small charts as SVG, drawn at the server; each says in words what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from markupsafe import Markup, escape

from auditstore.cli.wording import age, number

_SPARK: Final = (140, 32)
_BARS: Final = (720, 168)
_LINE: Final = (720, 200)
_FOOT: Final = 22
_LEFT: Final = 52


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
    width, height = _BARS
    base, top = height - _FOOT, 14
    highest = _round_up(max([per_day.get(day, 0) for day in days] + [1]))
    step = (width - _LEFT) / len(days)
    parts = [_rule(top, highest, base, width), _rule_at(base, "0", width)]
    for n, day in enumerate(days):
        count = per_day.get(day, 0)
        x = _LEFT + n * step
        bar = _bar(x + step * 0.14, step * 0.72, base, base - top, count / highest)
        parts.append(f"<g><title>{day:%d %b}: {number(count, 'event')}</title>{bar}</g>")
        if n % 2 == len(days) % 2 - 1 or len(days) < 9:
            parts.append(
                f'<text x="{x + step / 2:.1f}" y="{height - 5}" text-anchor="middle">'
                f"{day:%d %b}</text>"
            )
    total = sum(per_day.get(day, 0) for day in days)
    words = f"Events per day: {number(total)} in the last {len(days)} days"
    return _svg("chart", width, height, words, "".join(parts))


def lag(points: Sequence[tuple[datetime, float]], limit: float) -> Markup:
    """How long after its first event each file was delivered; ``limit`` is what is asked for."""
    width, height = _LINE
    base, top = height - _FOOT, 14
    highest = _round_up(max([seconds for _, seconds in points] + [limit, 0.1]))
    first, last = points[0][0], points[-1][0]
    span = max((last - first).total_seconds(), 1e-6)

    def place(at: datetime, seconds: float) -> str:
        x = _LEFT + (width - _LEFT - 6) * (at - first).total_seconds() / span
        return f"{x:.1f},{base - (base - top) * seconds / highest:.1f}"

    line = " ".join(place(*point) for point in points)
    if len(points) == 1:
        line += f" {width - 6:.1f},{line.partition(',')[2]}"
    right = line.rpartition(" ")[2].partition(",")[0]
    asked = base - (base - top) * limit / highest
    parts = [
        f'<line class="rule" x1="{_LEFT}" x2="{width}" y1="{top}" y2="{top}"/>',
        f'<text x="{_LEFT - 8}" y="{top + 4}" text-anchor="end">{escape(age(highest))}</text>',
        _rule_at(base, "0", width),
        f'<polygon class="area-mark" points="{_LEFT},{base} {line} {right},{base}"/>',
        f'<line class="limit" x1="{_LEFT}" x2="{width}" y1="{asked:.1f}" y2="{asked:.1f}"/>',
        f'<text class="limit-text" x="{width - 4}" y="{asked - 5:.1f}" text-anchor="end">'
        f"a file waits {escape(age(limit))} for more</text>",
        f'<polyline class="line-mark" points="{line}"/>',
        f'<text x="{_LEFT}" y="{height - 5}">{first:%d %b %H:%M:%S}</text>',
        f'<text x="{width - 4}" y="{height - 5}" text-anchor="end">{last:%d %b %H:%M:%S} UTC</text>',
    ]
    slowest = max(seconds for _, seconds in points)
    words = (
        f"Delay of the last {number(len(points), 'file')}: the newest {age(points[-1][1])}, "
        f"the slowest {age(slowest)}"
    )
    return _svg("chart", width, height, words, "".join(parts))


def _svg(kind: str, width: int, height: int, words: str, inside: str) -> Markup:
    return Markup(  # noqa: S704  # numbers, our own words, and what is escaped above
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


def _rule(y: float, value: float, base: float, width: float) -> str:
    half = _rule_at((y + base) / 2, f"{value / 2:,.0f}", width) if value >= 2 else ""
    return _rule_at(y, f"{value:,.0f}", width) + half


def _rule_at(y: float, words: str, width: float) -> str:
    return (
        f'<line class="rule" x1="{_LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'
    )


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 10, 20 and so on, so that a scale's end and middle read well."""
    size = 1.0
    while size * 10 < value:
        size *= 10
    while size > value * 10:
        size /= 10
    return next(size * step for step in (0.1, 0.2, 0.4, 0.5, 1, 2, 4, 5, 10) if size * step >= value)
