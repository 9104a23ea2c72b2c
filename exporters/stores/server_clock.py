"""A server's clock, from the Date header that every HTTP answer has."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# An answer that took longer tells too little about the moment in which it was made.
_LONGEST_S = 10.0
# The header has whole seconds, the rest cut off.
_CUT_OFF_S = 0.5


def clock_ahead(date: str | None, before: datetime, after: datetime) -> float | None:
    """Seconds that the server is ahead of our clock, which said ``before`` and ``after`` around
    the request; ``None`` where that cannot be told.
    """
    try:
        said = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    if said.tzinfo is None:
        said = said.replace(tzinfo=UTC)
    took = (after - before).total_seconds()
    if not 0 <= took <= _LONGEST_S:
        return None
    return (said - before).total_seconds() + _CUT_OFF_S - took / 2
