"""One exporter under watch: its metrics, its readiness, and the port that shows them."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine

from auditstore.settings import ListenAddress
from exporters.listener import Listener
from exporters.metrics import Metrics
from exporters.observer import Observer, Pulse
from exporters.readiness import STANDSTILL, Readiness
from exporters.standing import StandingReader


class Monitor:
    """Listens at once, before there is a daemon; ConfigurationError where it cannot.

    ``engine`` is its own, one connection wide. Without a tick for ``standstill`` seconds the
    daemon is not ready.
    """

    def __init__(
        self, address: ListenAddress, engine: Engine, *, standstill: float = STANDSTILL
    ) -> None:
        self._engine = engine
        self._pulse_of: Callable[[], Pulse] | None = None
        standing = StandingReader(engine, self._pulse)
        self._readiness = Readiness(self._pulse, standing, standstill=standstill)
        self._metrics = Metrics()
        self._metrics.watch(self._pulse, standing, self._readiness)
        self._listener = Listener(address, self._metrics.render, self._readiness.reasons)

    @property
    def observer(self) -> Observer:
        """What the daemon is to tell of its work."""
        return self._metrics

    @property
    def address(self) -> ListenAddress:
        """Where it listens."""
        return self._listener.address

    def follow(self, pulse: Callable[[], Pulse]) -> None:
        """Watch this daemon from now on."""
        self._pulse_of = pulse

    def stopping(self) -> None:
        """The daemon was told to leave: alive, and not ready."""
        self._readiness.stopping = True

    def close(self) -> None:
        """Listen no more, and leave the database."""
        self._listener.close()
        self._engine.dispose()

    def _pulse(self) -> Pulse | None:
        return None if self._pulse_of is None else self._pulse_of()
