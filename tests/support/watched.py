"""Asking an exporter's port, as Prometheus and an orchestrator do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPMessage
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

from auditstore.database import create_engine
from auditstore.settings import ListenAddress
from exporters.daemon import Daemon, DaemonConfig
from exporters.monitor import Monitor
from support.site import QUICK, Site

ANYWHERE = ListenAddress("127.0.0.1", 0)


class Port:
    """``/metrics``, ``/healthz`` and ``/readyz`` at ``host:port``."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(
        self, path: str, *, method: str = "GET", **headers: str
    ) -> tuple[int, str, HTTPMessage]:
        """Status, body and headers of the answer."""
        connection = HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def alive(self) -> bool:
        """What an orchestrator restarts an exporter for."""
        return self.get("/healthz")[0] == 200

    def reasons(self) -> list[str]:
        """The codes of what keeps it from being ready; checks that all of the answer agrees."""
        status, body, _ = self.get("/readyz", Accept="application/json")
        told: dict[str, Any] = orjson.loads(body)
        codes = [each["code"] for each in told["reasons"]]
        assert told["ready"] == (not codes)
        assert status == (503 if codes else 200)
        return codes

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of one scrape by name and labels."""
        status, body, _ = self.get("/metrics")
        assert status == 200
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }

    def total(self, name: str, **labels: Any) -> float:
        """The sum over the series of this name that have these labels."""
        wanted = {(label, str(value)) for label, value in labels.items()}
        return sum(
            value
            for (found, has), value in self.samples().items()
            if found == f"auditstore_{name}" and wanted <= has
        )

    def names(self) -> Counter[str]:
        """How many series each name has."""
        return Counter(name for name, _ in self.samples())


class Watched:
    """A daemon of a site under watch."""

    def __init__(self, site: Site, monitor: Monitor) -> None:
        self.site = site
        self.monitor = monitor
        self.port = Port(str(monitor.address))
        self.daemon: Daemon | None = None

    def start(self, config: DaemonConfig = QUICK) -> Daemon:
        """Begin to work."""
        self.daemon = self.site.start(config, observer=self.monitor.observer)
        self.monitor.follow(self.daemon.pulse)
        return self.daemon


@contextmanager
def watching(site: Site, **options: Any) -> Iterator[Watched]:
    """A monitor on a free port; its daemon is the site's."""
    monitor = Monitor(ANYWHERE, create_engine(site.url, pool_size=1, max_overflow=0), **options)
    try:
        yield Watched(site, monitor)
    finally:
        monitor.close()
