"""Views for tests: a clock that only sleeping moves, events of some time ago, a comparison."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from auditstore import EventRepository
from auditstore.reconciliation import Finding, Summary
from auditstore.reconciliation.views import Pair, compare_views
from auditstore.reconciliation.views.events_api import Access, EventsApi
from auditstore.reconciliation.views.outbox import OutboxView
from auditstore.reconciliation.views.records import View, Window
from support.snapshots import event_id, snapshot


@dataclass
class Waits:
    """Takes sleeps, and lets none pass."""

    slept: list[float] = field(default_factory=list)
    at: float = 1000.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    def clock(self) -> float:
        return self.at

    def open_api(self, access: Access) -> EventsApi:
        """A client on this clock."""
        return EventsApi(access, sleep=self.sleep, clock=self.clock)


def past(*, hours: float = 2.0, **more: Any) -> bytes:
    """A snapshot whose id was made some hours ago."""
    return snapshot(**{"id": event_id(at=time.time() - hours * 3600), **more})


def append(engine: sa.Engine, *snapshots: bytes) -> None:
    """Into the outbox, as a flow engine does."""
    with engine.begin() as connection:
        EventRepository().append(connection, list(snapshots))


def compare(
    engine: sa.Engine, source: View, against: View | None = None, *,
    window: Window | None = None, **more: Any,
) -> tuple[list[Finding], Summary]:  # fmt: skip
    """The findings of the last round, and its sum."""
    findings: list[tuple[int, Finding]] = []
    summary = compare_views(
        engine, Pair(source, against or OutboxView(engine), more.pop("stream_id", None)),
        window or Window(), report=lambda finding, number: findings.append((number, finding)),
        done=lambda *_: None, **more,
    )  # fmt: skip
    last = max((number for number, _ in findings), default=1)
    return [finding for number, finding in findings if number == last], summary
