"""Prometheus metrics of one exporter: counters of its own work, and how its streams stand.

Counters move after the commit that they count, so none is ahead of the ledger. They are summed
over exporters. State is shown for the streams that this exporter has leased and for no others, so
each stream is shown once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from auditstore.ledger import Delivery, SealedFile
from auditstore.streams import Stream
from exporters.observer import Pulse
from exporters.readiness import Readiness
from exporters.standing import Standing, StandingReader
from exporters.state_metrics import STATES, STREAM_LABELS, StateCollector

# As many as there are streams, and no label can take a value that a store or an event chose. Where
# a label would multiply buckets, the kind of store has to do.
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES: Final = tuple(4.0**power for power in range(5, 16))


class Metrics:
    """An ``Observer`` that counts, and renders what it counted."""

    def __init__(self) -> None:
        # When each series began doubles their number and is of no use with a start time.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._sealed_files = self._counter("sealed_files", "Files sealed by this exporter.")
        self._sealed_events = self._counter("sealed_events", "Events in the files it sealed.")
        self._delivered_files = self._counter(
            "delivered_files", "Files that it recorded as delivered."
        )
        self._delivered_events = self._counter(
            "delivered_events", "Events in the files that it recorded as delivered."
        )
        self._delivered_bytes = self._counter(
            "delivered_bytes", "Bytes stored of the files that it recorded as delivered."
        )
        self._failed_tries = self._counter(
            "failed_tries", "Tries that failed, by the state that the stream then had.", "state"
        )
        self._plain_counters = (
            self._sealed_files, self._sealed_events,
            self._delivered_files, self._delivered_events, self._delivered_bytes,
        )  # fmt: skip
        self._begun: set[int] = set()
        self._standing: StandingReader | None = None
        self._upload_seconds = Histogram(
            "auditstore_upload_seconds", "What putting a delivered file took.",
            ("store",), buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._file_bytes = Histogram(
            "auditstore_file_bytes", "Bytes stored of a delivered file.",
            ("store",), buckets=_BYTES, registry=self._registry,
        )  # fmt: skip

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(
            f"auditstore_{name}", says, (*STREAM_LABELS, *labels), registry=self._registry
        )

    # --- the observer -----------------------------------------------------------------

    def sealed(self, stream: Stream, file: SealedFile) -> None:
        """Count a sealed file."""
        labels = _labels(stream)
        self._sealed_files.labels(*labels).inc()
        self._sealed_events.labels(*labels).inc(file.event_count)

    def delivered(
        self, stream: Stream, file: SealedFile, delivery: Delivery, *, upload_seconds: float
    ) -> None:
        """Count a recorded file."""
        labels, store = _labels(stream), stream.destination.scheme
        self._delivered_files.labels(*labels).inc()
        self._delivered_events.labels(*labels).inc(file.event_count)
        self._delivered_bytes.labels(*labels).inc(delivery.object_bytes)
        self._upload_seconds.labels(store).observe(upload_seconds)
        self._file_bytes.labels(store).observe(delivery.object_bytes)

    def failed(self, stream: Stream, state: str) -> None:
        """Count a failed try."""
        self._failed_tries.labels(*_labels(stream), state).inc()

    # --- showing it -------------------------------------------------------------------

    def watch(
        self, pulse: Callable[[], Pulse | None], standing: StandingReader, readiness: Readiness
    ) -> None:
        """Show this state too, as it is at each scrape."""
        self._standing = standing
        self._registry.register(StateCollector(pulse, standing, readiness))

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page in the form that a scraper accepts, with its content type."""
        if self._standing is not None:
            self._begin_at_nothing(self._standing.latest())
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _begin_at_nothing(self, standing: Standing) -> None:
        """Show a stream's counters before they move: a rate needs a sample to begin from."""
        for each in standing.streams:
            if each.stream_id in self._begun:
                continue
            labels = (str(each.stream_id), each.flow_id)
            for counter in self._plain_counters:
                counter.labels(*labels)
            for state in STATES[1:]:
                self._failed_tries.labels(*labels, state)
            self._begun.add(each.stream_id)


def _labels(stream: Stream) -> tuple[str, str]:
    return str(stream.stream_id), stream.flow_id
