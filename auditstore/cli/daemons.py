"""Which exporters are alive, by the heartbeat that each leaves in the database."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from auditstore.sql import leases

#: A daemon that was not seen for so long counts as gone: the leases' time, as the exporter has it.
ALIVE_WITHIN_S: Final = 15.0


def any_alive(connection: Connection) -> bool:
    """Whether at least one exporter runs."""
    return leases.live_daemons(connection, ttl=ALIVE_WITHIN_S) > 0


def is_alive(daemon: Any) -> bool:
    """Whether this one runs."""
    return bool(daemon.silent_for <= ALIVE_WITHIN_S)
