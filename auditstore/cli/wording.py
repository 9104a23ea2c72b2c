"""Times, ages, sizes and counts in words, and times as operators write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_AGO: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_KIB: Final = 1024


def utc(moment: datetime | None) -> str | None:
    """``2026-11-24 09:05:07Z``."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def age(seconds: float) -> str:
    """A length of time in its two leading units: ``0.4 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    for size, unit, smaller, small_unit in (
        (86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"),
    ):  # fmt: skip
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def ago(moment: datetime, now: datetime) -> str:
    """How long before the server's ``now``."""
    return f"{age((now - moment).total_seconds())} ago"


def size(count: float) -> str:
    """Bytes in binary units: ``512 B``, ``8 MiB``, ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= _KIB
    return f"{count:.3g} GiB"


def number(count: int, noun: str = "", plural: str = "") -> str:
    """``1 event``, ``1,234 events``."""
    text = f"{count:,}"
    if not noun:
        return text
    return f"{text} {noun if count == 1 else plural or noun + 's'}"


class Moment(click.ParamType[datetime]):
    """A time: ISO 8601 (UTC unless it says otherwise), or an age such as ``2h``, ``7d``."""

    name = "TIME"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """An aware datetime."""
        if isinstance(value, datetime):
            return value
        if found := _AGO.fullmatch(value):
            return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time; write 2026-11-24, 2026-11-24T09:00:00Z or an age like 2h",
                param, ctx,
            )  # fmt: skip
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


MOMENT: Final = Moment()
