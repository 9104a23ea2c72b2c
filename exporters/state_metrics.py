"""The part of the metrics that is asked for at each scrape: the exporter and its streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from exporters.observer import Pulse
from exporters.readiness import Readiness
from exporters.reconciliation_metrics import reconciliations
from exporters.standing import Standing, StandingReader

STREAM_LABELS: Final = ("stream", "flow")
#: What a stream can be in; after a failed try in one of the last three.
STATES: Final = ("streaming", "retrying", "blocked", "halted")


class StateCollector:
    """What is asked at each scrape."""

    def __init__(
        self, pulse: Callable[[], Pulse | None], standing: StandingReader, readiness: Readiness
    ) -> None:
        self._pulse = pulse
        self._standing = standing
        self._readiness = readiness

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must ask nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric of the state."""
        yield InfoMetricFamily(
            "auditstore_build", "The exporter's release.", {"version": version("auditstore")}
        )
        standing = self._standing.latest()
        yield _gauge("ready", "Whether /readyz says yes.", not self._readiness.judge(standing))
        yield _gauge("database_up", "Whether the database answers.", standing.reachable)
        if standing.last_position is not None:
            yield _gauge(
                "last_position",
                "The position handed out last, the same from every exporter. Appends that were"
                " rolled back took positions too.",
                standing.last_position,
            )
        yield from self._daemon()
        yield from _streams(standing)

    def _daemon(self) -> Iterator[Metric]:
        pulse = self._pulse()
        if pulse is None:
            return
        yield _gauge("tick_age_seconds", "Since the scheduler's last tick began.", pulse.tick_age)
        yield _gauge(
            "fence_position", "The position up to which it may read.", pulse.fence_position
        )
        if pulse.fence_age is not None:
            yield _gauge(
                "fence_age_seconds",
                "Since the fence's position was the newest one. It grows while a transaction"
                " that appended stays open.",
                pulse.fence_age,
            )


def _gauge(name: str, says: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"auditstore_{name}", says, float(value))


def _streams(standing: Standing) -> Iterator[Metric]:
    appended = CounterMetricFamily(
        "auditstore_appended_events",
        "Events seen to be appended for a stream while this exporter had it.", labels=STREAM_LABELS,
    )  # fmt: skip
    for stream_id, seen in standing.appended.items():
        appended.add_metric((str(stream_id), seen.flow_id), seen.events)
    yield appended
    if not standing.reachable:
        return
    yield _gauge("leased_streams", "Streams that this exporter has.", len(standing.streams))
    families = {
        name: GaugeMetricFamily(f"auditstore_stream_{name}", says, labels=STREAM_LABELS)
        for name, says in (
            ("lag_events", "Events appended and not in the store yet."),
            ("lag_seconds", "For how long the oldest of those events waits; 0 when none does."),
            ("bound_seconds", "How long an event may wait before the stream counts as overdue."),
        )
    }
    state = GaugeMetricFamily(
        "auditstore_stream_state", "1 for the state that the stream is in.",
        labels=(*STREAM_LABELS, "state"),
    )  # fmt: skip
    for each in standing.streams:
        labels = (str(each.stream_id), each.flow_id)
        families["lag_events"].add_metric(labels, each.lag_events)
        families["lag_seconds"].add_metric(labels, each.lag_seconds)
        families["bound_seconds"].add_metric(labels, each.bound)
        for name in STATES:
            state.add_metric((*labels, name), float(name == each.state))
    yield from (*families.values(), state)
    yield from reconciliations(standing.schedules)
