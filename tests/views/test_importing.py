"""Events of another view into the outbox: once each, marked, whatever else lies beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from support.fake_leadconduit import Answer, FakeLeadConduit
from support.snapshots import snapshot
from support.stores import Place
from support.vandal import Vandal
from support.views import append, compare, past

from auditstore import EventRepository
from auditstore.errors import LeadConduitRefused
from auditstore.layout import join
from auditstore.reconciliation import Finding, Kind
from auditstore.reconciliation.views import ImportResult, View, import_events
from auditstore.reconciliation.views.exports import ExportView
from auditstore.reconciliation.views.importing import Importer
from auditstore.reconciliation.views.leadconduit import LeadConduitView
from auditstore.reconciliation.views.objects import BucketView
from auditstore.reconciliation.views.records import Record, Window, record_of
from auditstore.repository import AppendResult


def taken(
    engine: sa.Engine, view: View, *, dry_run: bool = False
) -> tuple[ImportResult, list[Finding]]:
    """Import everything; what came of it."""
    findings: list[Finding] = []
    result = import_events(
        engine, view, Window(), actor="tester", report=findings.append, dry_run=dry_run
    )
    return result, findings


def rows(engine: sa.Engine, statement: str) -> list[Any]:
    """What the database says."""
    with engine.connect() as connection:
        return list(connection.execute(sa.text(statement)))


def test_a_bucket_into_the_outbox(engine: sa.Engine, place: Place) -> None:
    """Its events are appended byte for byte and recorded; bad objects are named and stop nothing;
    a second import appends nothing."""
    vandal = Vandal(place)
    made = [past(lead=f"lead-{number}") for number in range(6)]
    for number, each in enumerate(made):
        name = f"lead-{number}/{orjson.loads(each)['id']}.json"
        vandal.write(join(place.destination.prefix, name), each)
    vandal.write(join(place.destination.prefix, "lead-1/torn.json"), made[1][:40])
    vandal.write(join(place.destination.prefix, "foreign.bin"), b"\0")
    append(engine, made[0])
    store = place.open()
    view = BucketView(store, place.destination.prefix, name="the bucket")

    assert taken(engine, view, dry_run=True)[0].appended == 5
    assert rows(engine, "SELECT * FROM auditstore.imports") == []
    result, findings = taken(engine, view)
    again, _ = taken(engine, view)
    store.close()

    assert sorted(each.kind for each in findings) == [Kind.UNKNOWN_FILE, Kind.UNREADABLE_LINE]
    assert (result.offered, result.appended, result.existing, result.troubles) == (6, 5, 1, 2)
    assert (again.appended, again.existing) == (0, 6)
    with engine.connect() as connection:
        found = {each.event.payload for each in EventRepository().find(connection)}
    assert found == set(made)
    first, second = rows(engine, "SELECT * FROM auditstore.imports ORDER BY import_id")
    assert (first.kind, first.source, first.actor) == ("import", "the bucket", "tester")
    assert (first.offered, first.appended, first.existing, first.refused) == (6, 5, 1, 0)
    assert first.finished_at is not None
    assert second.appended == 0
    marked = rows(engine, "SELECT import_id, count(*) FROM auditstore.imported_events GROUP BY 1")
    assert marked == [(first.import_id, 5)]


def test_conflicts_are_named_and_the_rest_is_taken(engine: sa.Engine, tmp_path: Path) -> None:
    """Stored with other content is refused; with other bytes and the same content it is there."""
    one, two, new = past(), past(), past()
    append(engine, one, two)
    path = tmp_path / "export.ndjson"
    other = orjson.dumps(orjson.loads(one) | {"reason": "other"})
    path.write_bytes(b"\n".join([other, two.replace(b": ", b" : "), new, new, other]))
    result, findings = taken(engine, ExportView(path))
    assert [(each.kind, each.object_key) for each in findings] == [
        (Kind.CHANGED_EVENT, "export.ndjson: line 1"),
        (Kind.CHANGED_EVENT, "export.ndjson: line 5"),
    ]
    assert "differs in reason" in findings[0].detail
    assert (result.offered, result.appended, result.existing, result.refused) == (5, 1, 2, 2)
    assert result.rewritten == 1


def test_a_cut_import_goes_on(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Callable[..., LeadConduitView]
) -> None:
    """What came before the cut is appended, marked, and seen to be unfinished."""
    made = [past() for _ in range(1200)]
    leadconduit.add(*made)
    leadconduit.page = 600
    leadconduit.script = [Answer(), Answer(403)]
    with pytest.raises(LeadConduitRefused):
        taken(engine, api_view())
    (cut,) = rows(engine, "SELECT * FROM auditstore.imports")
    assert (cut.finished_at, cut.appended) == (None, 500)
    result, _ = taken(engine, api_view())
    assert (result.appended, result.existing) == (700, 500)
    assert rows(engine, "SELECT count(*) FROM auditstore.imported_events") == [(1200,)]
    assert compare(engine, api_view())[0] == []


def test_what_somebody_else_appends_meanwhile_is_not_imported(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow engine that wins the race keeps its event: it is existing, and not marked."""
    made = [past() for _ in range(4)]
    records = [each for each in (record_of(one, "place") for one in made)
               if isinstance(each, Record)]  # fmt: skip
    importer = Importer(engine, kind="import", source="test", actor="tester")
    append_really = EventRepository.append
    raced = threading.Event()

    def race(self: EventRepository, connection: Any, *given: Any) -> AppendResult:
        # Between the importer's look and its append.
        if not raced.is_set():
            raced.set()
            with engine.begin() as other:
                append_really(EventRepository(), other, made[:1])
        return append_really(self, connection, *given)

    monkeypatch.setattr(EventRepository, "append", race)
    assert importer.take(records) == []
    assert raced.is_set()
    assert (importer.result.appended, importer.result.existing) == (3, 1)
    assert rows(engine, "SELECT count(*) FROM auditstore.imported_events") == [(3,)]


def test_events_beyond_the_outboxs_limit(engine: sa.Engine, tmp_path: Path) -> None:
    """One that no append would take is a finding, and the next one is taken."""
    path = tmp_path / "export.ndjson"
    path.write_bytes(past(filler="x" * (17 * 1024 * 1024)) + b"\n" + past())
    result, findings = taken(engine, ExportView(path))
    assert [each.kind for each in findings] == [Kind.UNREADABLE_LINE]
    assert "over the limit" in findings[0].detail
    assert (result.appended, result.refused) == (1, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE auditstore.imports SET appended = 9", "UPDATE auditstore.imports SET actor = 'x'",
        "DELETE FROM auditstore.imports", "TRUNCATE auditstore.imports CASCADE",
        "UPDATE auditstore.imported_events SET import_id = 1",
        "DELETE FROM auditstore.imported_events", "TRUNCATE auditstore.imported_events",
    ],
)  # fmt: skip
def test_the_record_is_final(engine: sa.Engine, tmp_path: Path, statement: str) -> None:
    """Not even its owner changes who imported what."""
    path = tmp_path / "export.ndjson"
    path.write_bytes(snapshot())
    taken(engine, ExportView(path))
    with engine.connect() as connection, pytest.raises(DBAPIError, match=r"final|append-only"):
        connection.execute(sa.text(statement))
