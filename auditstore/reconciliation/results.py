"""Where the results of scheduled runs are handed over: hooks, and whatever else takes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from auditstore.reconciliation.findings import Finding
from auditstore.reconciliation.scope import Level
from auditstore.reconciliation.summary import Summary


@dataclass(frozen=True, slots=True)
class Run:
    """One scheduled run; ``by`` is the exporter that does it, ``began_at`` the server's time."""

    stream_id: int
    flow_id: str
    level: Level
    began_at: datetime
    by: str


class ResultSink(Protocol):
    """Takes each finding as it comes, and the summary at the end; from several threads.

    Nothing is handed over twice. A run that is broken off, since its exporter stops, gets
    ``dropped`` in place of ``done``. What a sink raises is logged, and hurts nothing.
    """

    def finding(self, run: Run, finding: Finding) -> None:
        """One finding of a run that goes on."""

    def done(self, run: Run, summary: Summary) -> None:
        """The run is over and recorded; ``summary.error`` says if it could not compare."""

    def dropped(self, run: Run) -> None:
        """The run was broken off; it is begun anew by somebody."""
