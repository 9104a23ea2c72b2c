"""When a stream's reconciliations are due: cron expressions in UTC, spread over the streams."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final

from apscheduler.triggers.cron import CronTrigger

from auditstore.errors import ConfigurationError
from auditstore.streams import OFF

#: So far apart may be what an expression puts into one minute; less where it comes often.
SPREAD: Final = timedelta(minutes=10)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SOME_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)


def check_cron(expression: str) -> str:
    """The expression in the form in which it is kept; ConfigurationError for nonsense."""
    words = expression.lower().split()
    if words == [OFF]:
        return OFF
    _trigger(" ".join(words))
    return " ".join(words)


def next_run(expression: str, *, after: datetime, stream_id: int, level: str) -> datetime | None:
    """When the expression's next time behind ``after`` is for this stream; never for ``off``.

    Each stream and level has a place of its own in the spread, the same for every exporter.
    """
    if expression == OFF:
        return None
    trigger = _trigger(expression)
    share = zlib.crc32(f"{stream_id} {level}".encode()) / 2**32
    offset = timedelta(seconds=int(share * _spread(expression).total_seconds()))
    fire = _next(trigger, after - offset + timedelta(microseconds=1))
    return None if fire is None else fire + offset


@lru_cache(maxsize=1024)
def _spread(expression: str) -> timedelta:
    """Half of the shortest time between two of its times, and no more than the limit."""
    trigger = _trigger(expression)
    times = [_SOME_DAY]
    while len(times) < 6 and (at := _next(trigger, times[-1] + timedelta(microseconds=1))):
        times.append(at)
    gaps = [later - earlier for earlier, later in pairwise(times[1:])]
    return min([SPREAD, *(gap / 2 for gap in gaps)])


@lru_cache(maxsize=1024)
def _trigger(expression: str) -> CronTrigger:
    words = expression.split()
    hint = "Write five fields as `0 * * * *` (hourly) or `30 2 * * mon-fri`, in UTC, or `off`."
    if len(words) != 5:
        raise ConfigurationError(
            f"{expression!r} is no cron expression: it has {len(words)} fields, not five", hint=hint
        )
    if not words[2].startswith("*") and not words[4].startswith("*"):
        # cron means either of them, and the library both: nobody would get what he thinks.
        raise ConfigurationError(
            f"{expression!r} names both a day of the month and a weekday",
            hint="Name one of them, and write * for the other.",
        )
    try:
        words[4] = ",".join(_weekdays(part) for part in words[4].split(","))
        trigger = CronTrigger.from_crontab(" ".join(words), timezone=UTC)
    except (ValueError, IndexError) as error:
        raise ConfigurationError(
            f"{expression!r} is no cron expression: {error}", hint=hint
        ) from error
    if _next(trigger, _SOME_DAY) is None:
        raise ConfigurationError(
            f"{expression!r} is a time that never comes",
            hint="Choose a day that the month has.",
        )
    return trigger


def _weekdays(part: str) -> str:
    """A part of the weekday field by names: cron counts from Sunday, the library from Monday."""
    days, slash, step = part.partition("/")
    first, dash, last = days.partition("-")
    if days == "*" and not slash:
        return part
    start, end = (0, 6) if days == "*" else (_day(first), _day(last if dash else first))
    if slash and not dash and days != "*":
        end = 6
    if end < start:
        end += 7  # from Saturday to Monday
    every = int(step) if slash else 1
    if every < 1:
        raise ValueError(f"a step of {every}")
    return ",".join(_DAYS[day % 7] for day in range(start, end + 1, every))


def _day(word: str) -> int:
    if word in _DAYS:
        return _DAYS.index(word)
    if word.isascii() and word.isdigit() and int(word) <= 7:
        return int(word)
    raise ValueError(f"{word!r} is no weekday")


def _next(trigger: CronTrigger, after: datetime) -> datetime | None:
    found: datetime | None = trigger.get_next_fire_time(None, after)
    return found
