"""Events per day of flows, counted within a time limit and kept for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from auditstore.errors import AuditStoreError
from auditstore.sql import console as sql
from auditstore.sql.standing import limit_time

DAYS: Final = 14
_COUNTING_S: Final = 3.0
#: For how many seconds a count is shown again.
KEPT_S = 60.0


class DayCounts:
    """Counting reads the index of the days shown; a list that renews itself does not do so again
    and again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, date], tuple[float, Mapping[date, int]]] = {}

    def of(
        self,
        reading: Callable[[], AbstractContextManager[Connection]],
        flow_ids: Sequence[str],
        today: date,
    ) -> dict[str, Mapping[date, int]]:
        """The counts of each flow that could be counted in time."""
        moment = self._clock()
        self._kept = {key: each for key, each in self._kept.items() if moment - each[0] < KEPT_S}
        missing = [each for each in flow_ids if (each, today) not in self._kept]
        if missing:
            since = datetime.combine(today - timedelta(days=DAYS - 1), datetime.min.time(), UTC)
            try:
                with reading() as connection:
                    limit_time(connection, seconds=_COUNTING_S)
                    found = sql.events_per_day(connection, missing, since)
            except AuditStoreError:
                missing, found = [], {}
            self._kept |= {(each, today): (moment, found.get(each, {})) for each in missing}
        kept = self._kept
        return {each: kept[each, today][1] for each in flow_ids if (each, today) in kept}
