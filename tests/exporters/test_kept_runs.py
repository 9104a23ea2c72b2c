"""Reports of scheduled runs, kept where they say something new."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from auditstore.errors import StoreUnavailable
from auditstore.reconciliation import Finding, Kind, Summary, kept
from auditstore.reconciliation.document import check_seal
from auditstore.reconciliation.results import Run
from auditstore.sql import reconciliations as sql
from exporters.kept_runs import KeptRuns

DAY = 86_400.0
BEGAN = datetime(2026, 11, 25, 3, 6, tzinfo=UTC)
MISSING = Finding(Kind.MISSING_FILE, 7, "flow-1", "is not there", sequence=4, object_key="a/b")


class Schedule:
    """Runs of stream 7, one after the other; the clock is ``now``."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.now = 1000.0
        self.sink = KeptRuns(engine, monotonic=lambda: self.now)

    def run(self, *findings: Finding, level: Any = "files", **summary: Any) -> None:
        """One with these findings; an hour goes by."""
        run = Run(7, "flow-1", level, BEGAN, "host-1")
        made = Summary(7, "flow-1", "s3://bucket/", level, **summary)
        for finding in findings:
            made.counts[finding.kind] += 1
            self.sink.finding(run, finding)
        self.sink.done(run, made)
        self.now += 3600

    @property
    def results(self) -> list[str]:
        """What was kept, the oldest first."""
        with self.engine.connect() as connection:
            return [each.result for each in reversed(sql.find(connection, limit=100))]


@pytest.fixture
def schedule(engine: sa.Engine) -> Schedule:
    """Nothing kept yet."""
    return Schedule(engine)


def test_a_report_is_kept_as_if_somebody_had_asked(schedule: Schedule) -> None:
    """It says which exporter ran it, when and over what, has its findings and its own hash."""
    schedule.run(MISSING, files_expected=4)
    with schedule.engine.connect() as connection:
        (row,) = sql.find(connection, limit=10, flow_id="flow-1", stream_id=7)
        values = kept.read(connection, row.number).values
    check_seal(values)
    assert (row.actor, row.started_at) == ("schedule of host-1", BEGAN)
    assert (row.result, row.counts) == ("differences", {"missing-file": 1})
    assert (values["level"], values["stream"], values["flow"]) == ("files", 7, "flow-1")
    assert [each["object_key"] for each in values["findings"]] == ["a/b"]
    assert values["totals"][0]["files_expected"] == 4


def test_what_says_the_same_is_kept_once_a_day(schedule: Schedule) -> None:
    """Whether clean or not; events that are not due yet make no difference."""
    young = Finding(Kind.NOT_YET_DUE, 7, "flow-1", "waits for its file", event_id="a" * 24)
    for hour in range(48):
        schedule.run(*[young] * (hour % 3))
    assert schedule.results == ["reconciled"] * 3
    schedule.run(MISSING)
    schedule.run(MISSING)
    assert schedule.results == [*["reconciled"] * 3, "differences"]


def test_what_says_something_new_is_kept_at_once(schedule: Schedule) -> None:
    """One more difference, a run that could not compare, another level, and being whole again."""
    schedule.run(MISSING)
    schedule.run(MISSING, MISSING)
    schedule.run(error=StoreUnavailable("away", hint="wait"))
    schedule.run()
    schedule.run(level="events")
    assert schedule.results == [
        "differences", "differences", "not compared", "reconciled", "reconciled",
    ]  # fmt: skip


def test_a_run_that_is_broken_off_leaves_nothing(schedule: Schedule) -> None:
    """Its findings are not in the report of the one that is begun anew."""
    run = Run(7, "flow-1", "files", BEGAN, "host-1")
    schedule.sink.finding(run, MISSING)
    schedule.sink.dropped(run)
    schedule.sink.done(run, Summary(7, "flow-1", "s3://bucket/", "files"))
    assert schedule.results == ["reconciled"]


def test_what_cannot_be_kept_is_logged_and_tried_next_time(schedule: Schedule) -> None:
    """The run itself goes on; the log says what to do."""
    with schedule.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE auditstore.reconciliations RENAME TO away"))
    with capture_logs() as log:
        schedule.run()
    assert [(each["event"], each["stream"]) for each in log] == [("report not kept", 7)]
    assert "auditstore migrate" in log[0]["hint"]
    with schedule.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE auditstore.away RENAME TO reconciliations"))
    schedule.run()
    assert schedule.results == ["reconciled"]
