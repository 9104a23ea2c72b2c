"""Which exporters are alive, by the heartbeat that each leaves in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from auditstore.sql import leases
from auditstore.streams import Stream

#: A daemon that was not seen for so long counts as gone: the leases' time, as the exporter has it.
ALIVE_WITHIN_S: Final = 15.0


def any_alive(connection: Connection) -> bool:
    """Whether at least one exporter runs."""
    return leases.live_daemons(connection, ttl=ALIVE_WITHIN_S) > 0


def is_alive(daemon: Any) -> bool:
    """Whether this one runs."""
    return bool(daemon.silent_for <= ALIVE_WITHIN_S)


def keeper_of(stream: Stream, daemons: Sequence[Any], now: datetime) -> Any | None:
    """The living daemon that has the stream's lease at the server's time ``now``."""
    if stream.lease_until is None or stream.lease_until <= now:
        return None
    return next(
        (each for each in daemons if each.daemon_id == stream.lease_owner and is_alive(each)), None
    )
