"""Who holds the fence back: named in the log once it is for too long."""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy import Connection

from auditstore.sql import fence as sql

log = structlog.get_logger("exporter")

#: Seconds. Commits are much faster, and what is slower waits visibly.
HELD_TOO_LONG: Final = 10.0
_AGAIN: Final = 60.0


class Holders:
    """Tells the log of the writers behind which everything waits, and of the end of it.

    At first when they have held the fence back for ``HELD_TOO_LONG``, then every minute.
    """

    def __init__(self) -> None:
        self._next_at: float | None = None

    def look(self, connection: Connection, *, held_for: float, now: float) -> None:
        """See whether there is something to tell; ``now`` and ``held_for`` are monotonic."""
        if held_for < HELD_TOO_LONG:
            if self._next_at is not None:
                self._next_at = None
                log.info("held back no more")
            return
        if self._next_at is not None and now < self._next_at:
            return
        self._next_at = now + _AGAIN
        for writer in sql.open_writers(connection):
            # One whose age is hidden may be the oldest of all.
            if writer.age is None or writer.age >= HELD_TOO_LONG:
                _tell(writer)


def _tell(writer: sql.OpenWriter) -> None:
    # Not its query, which may hold a lead's data.
    log.warning(
        "held back by a writer that stays open",
        pid=writer.pid,
        user=writer.user_name,
        application=writer.application,
        state="prepared" if writer.prepared else writer.state,
        prepared=writer.prepared,
        open_for=writer.age and round(writer.age, 1),
        hint=_HINT_PREPARED if writer.prepared else _HINT_SESSION,
    )


_HINT_PREPARED: Final = (
    "End it with COMMIT PREPARED or ROLLBACK PREPARED; what was appended after it waits."
)
_HINT_SESSION: Final = (
    "What was appended after it began waits for its end. Where a writer may be forgotten, set"
    " idle_in_transaction_session_timeout for its database user."
)
