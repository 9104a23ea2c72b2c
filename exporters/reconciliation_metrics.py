"""What came of the reconciliations on schedule, whichever exporter ran them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from auditstore.sql.schedules import Schedule

RESULTS: Final = ("reconciled", "differences", "not compared")
_LABELS: Final = ("stream", "flow", "level")


def reconciliations(schedules: Iterable[Schedule]) -> Iterator[Metric]:
    """The last run and the next of each stream and level; nothing for what is off."""
    families = {
        name: GaugeMetricFamily(f"auditstore_reconciliation_{name}", says, labels=_LABELS)
        for name, says in (
            ("next_run_timestamp_seconds", "When the next run is due."),
            ("last_run_timestamp_seconds", "When the last run ended."),
            ("seconds", "What the last run took."),
            ("files", "How many files it compared."),
        )
    }
    result = GaugeMetricFamily(
        "auditstore_reconciliation_result", "1 for what came of the last run.",
        labels=(*_LABELS, "result"),
    )  # fmt: skip
    differences = GaugeMetricFamily(
        "auditstore_reconciliation_differences",
        "The differences that the last run found, by kind; a kind that it found none of is absent.",
        labels=(*_LABELS, "kind"),
    )
    for each in schedules:
        if each.next_run_at is None:
            continue
        labels = (str(each.stream_id), each.flow_id, each.level)
        families["next_run_timestamp_seconds"].add_metric(labels, each.next_run_at.timestamp())
        if each.ended_at is None:
            continue
        families["last_run_timestamp_seconds"].add_metric(labels, each.ended_at.timestamp())
        families["seconds"].add_metric(labels, each.seconds or 0.0)
        families["files"].add_metric(labels, float(each.files or 0))
        for name in RESULTS:
            result.add_metric((*labels, name), float(name == each.result))
        for kind, count in each.differences.items():
            differences.add_metric((*labels, kind), float(count))
    yield from (*families.values(), result, differences)
