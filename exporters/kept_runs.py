"""Keeps the reports of scheduled runs in the database, beside those that somebody asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from sqlalchemy import Connection, Engine

from auditstore.errors import AuditStoreError
from auditstore.reconciliation import Finding, Summary, kept
from auditstore.reconciliation.document import Document
from auditstore.reconciliation.reports import exit_code
from auditstore.reconciliation.results import Run
from auditstore.sql import server
from auditstore.sql.failures import translated

log = structlog.get_logger("reconciling")

# Less than a day: of what runs nightly each report is kept, also when it begins a little sooner.
_DAILY_S: Final = 23 * 3600.0

#: What a report says, in short: its result, its differences by kind, and why it broke off.
_Said = tuple[str, frozenset[tuple[str, int]], str | None]


class KeptRuns:
    """A sink that keeps what says something new, and for each stream and level one report a day.

    A thousand streams that are compared each hour would else make nine million reports a year
    which say the same. What was said last is known as long as the exporter runs.
    """

    def __init__(self, engine: Engine, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._open: dict[Run, Document] = {}
        self._last: dict[tuple[int, str], tuple[_Said, float]] = {}

    def finding(self, run: Run, finding: Finding) -> None:
        """It stands in the report, or is counted there."""
        with self._lock:
            document = self._open.get(run)
        if document is None:
            with translated(), self._engine.connect() as connection:
                document = _begun(connection, run)
            with self._lock:
                self._open[run] = document
        document.finding(finding, 1)

    def done(self, run: Run, summary: Summary) -> None:
        """Keep the report, if it is to be kept; a failure is logged."""
        with self._lock:
            document = self._open.pop(run, None)
            if not self._is_wanted(run, summary):
                return
        try:
            with translated(), self._engine.begin() as connection:
                document = document or _begun(connection, run)
                document.stream(summary, 1)
                document.close(exit_code([summary]), server.clock(connection))
                number = kept.keep(connection, document.values())
        except AuditStoreError as error:
            log.warning(
                "report not kept", stream=run.stream_id, comparison=run.level,
                cause=error.message, hint=error.hint,
            )  # fmt: skip
            return
        with self._lock:
            self._last[run.stream_id, run.level] = _said(summary), self._monotonic()
        log.info("report kept", stream=run.stream_id, comparison=run.level, report=number)

    def dropped(self, run: Run) -> None:
        """Whoever begins it anew reports it."""
        with self._lock:
            self._open.pop(run, None)

    def _is_wanted(self, run: Run, summary: Summary) -> bool:
        said, at = self._last.get((run.stream_id, run.level), (None, 0.0))
        return said != _said(summary) or self._monotonic() - at >= _DAILY_S


def _begun(connection: Connection, run: Run) -> Document:
    about = kept.about(
        connection, actor=f"schedule of {run.by}", level=run.level, flow=run.flow_id,
        stream=run.stream_id,
    )  # fmt: skip
    return Document(replace(about, started_at=run.began_at))


def _said(summary: Summary) -> _Said:
    counts = frozenset(
        (kind.value, count) for kind, count in summary.counts.items() if kind.is_difference
    )
    return summary.result, counts, None if summary.error is None else summary.error.code
