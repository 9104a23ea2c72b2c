"""Flows at work: each lead's events are appended in a transaction of their own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Engine

from auditstore.demo.flow_engine import FlowEngine
from auditstore.repository import EventRepository

#: How long after a lead its retry or feedback comes, in seconds. In life: minutes to days.
FOLLOW_UP_S: Final = 1.0
# Between two leads of a flow, so that leads arrive while files are on their way.
_PAUSE_S: Final = 0.035


@dataclass(slots=True)
class Tally:
    """What the flows did: leads by outcome, events in the transactions that appended them."""

    outcomes: Counter[str] = field(default_factory=Counter)
    events: int = 0
    later: int = 0
    transactions: int = 0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def leads(self) -> int:
        """How many leads were handled."""
        return self.outcomes.total()

    def add(self, *, appended: int, outcome: str | None = None) -> None:
        """Count one transaction; without an outcome its events came after their lead."""
        with self._lock:
            self.transactions += 1
            self.events += appended
            if outcome is None:
                self.later += appended
            else:
                self.outcomes[outcome] += 1


def handle_leads(
    engine: Engine, flows: Sequence[FlowEngine], count: int, *, watch: Callable[[Tally], None]
) -> Tally:
    """Let each flow handle ``count`` leads, and what comes after them, all at once.

    ``watch`` is called now and then from this thread, and may raise to stop it all.
    """
    tally, stop, began = Tally(), threading.Event(), time.monotonic()
    with ThreadPoolExecutor(len(flows), thread_name_prefix="flow") as pool:
        try:
            working = [pool.submit(_work, engine, flow, count, tally, stop) for flow in flows]
            while not all(each.done() for each in working):
                watch(tally)
                stop.wait(0.1)
            for each in working:
                each.result()
        finally:
            stop.set()
    tally.seconds = time.monotonic() - began
    return tally


def _work(
    engine: Engine, flow: FlowEngine, count: int, tally: Tally, stop: threading.Event
) -> None:
    repository = EventRepository()
    for _ in range(count):
        lead = flow.handle()
        with engine.begin() as connection:
            done = repository.append(connection, lead.events)
        tally.add(appended=done.appended, outcome=lead.outcome)
        _follow_up(engine, repository, flow, tally)
        if stop.wait(_PAUSE_S):
            return
    # The last lead's retry comes now, and that one's own if it failed again.
    until = time.monotonic() + 2.5 * FOLLOW_UP_S
    while time.monotonic() < until and not stop.wait(0.1):
        _follow_up(engine, repository, flow, tally)


def _follow_up(engine: Engine, repository: EventRepository, flow: FlowEngine, tally: Tally) -> None:
    events = flow.follow_ups()
    if events:
        with engine.begin() as connection:
            done = repository.append(connection, events)
        tally.add(appended=done.appended)
