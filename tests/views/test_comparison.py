"""Any two views: what one lacks, what differs, what is late, what is not due, what is a repeat."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from support.fake_leadconduit import FakeLeadConduit
from support.ledger_builder import Scene
from support.snapshots import event_id, snapshot
from support.stores import Place
from support.vandal import Vandal
from support.views import append, compare, past

from auditstore.layout import join
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Finding, Kind
from auditstore.reconciliation.patterns import Tally
from auditstore.reconciliation.views import Pair, compare_views
from auditstore.reconciliation.views.exports import ExportView
from auditstore.reconciliation.views.importing import Importer
from auditstore.reconciliation.views.leadconduit import LeadConduitView
from auditstore.reconciliation.views.objects import BucketView
from auditstore.reconciliation.views.outbox import OutboxView
from auditstore.reconciliation.views.records import Window

Make = Callable[..., LeadConduitView]


def told(findings: list[Finding]) -> list[tuple[str, str | None]]:
    """Kind and event of each, in order."""
    return sorted((each.kind.value, each.event_id) for each in findings)


def id_of(snapshot: bytes) -> str:
    """Its event id."""
    return str(orjson.loads(snapshot)["id"])


# --- LeadConduit against the outbox ---------------------------------------------------


def test_the_same_on_both_sides(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """Nothing is found, and every event is accounted for."""
    made = [past() for _ in range(7)]
    leadconduit.add(*made)
    append(engine, *made)
    findings, summary = compare(engine, api_view())
    assert findings == []
    assert summary.result == "reconciled"
    assert (summary.events_expected, summary.events_found, summary.events_matched) == (7, 7, 7)


def test_each_difference_is_named(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """Missing, unknown, changed; equal content in other bytes is no difference."""
    both, lost, ours, changed, spelled = (past(lead=f"lead-{n}") for n in range(5))
    other = orjson.dumps(orjson.loads(changed) | {"outcome": "failure", "more": {"a": 1}})
    respelled = b" " + spelled.replace(b'"reason": ""', b'"reason" :  ""')
    leadconduit.add(both, lost, other, respelled)
    append(engine, both, ours, changed, spelled)

    findings, summary = compare(engine, api_view())

    assert told(findings) == [
        ("changed-event", id_of(changed)), ("missing-event", id_of(lost)), ("rewritten", None),
        ("unknown-event", id_of(ours)),
    ]  # fmt: skip
    found = {each.kind: each for each in findings}
    assert "differs in more, outcome" in found[Kind.CHANGED_EVENT].detail
    assert found[Kind.MISSING_EVENT].lead_id == "lead-1"
    assert (summary.events_expected, summary.events_matched, summary.events_rewritten) == (4, 2, 1)
    assert summary.differences == 3


def test_a_changed_event_names_its_fields(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """Each with what kind of value stands on either side; values only where asked for, and a
    number spelled otherwise is none."""
    ours = past(lead="lead-7", ms=1, cost=2)
    other = orjson.dumps(orjson.loads(ours) | {"outcome": "failure", "ms": 1.0, "cost": 3})
    leadconduit.add(other)
    append(engine, ours)

    (masked,), _ = compare(engine, api_view())
    assert (masked.type, masked.outcome, masked.lead_id) == ("recipient", "failure", "lead-7")
    assert (masked.flow_id, masked.position) == ("flow-1", 1)
    assert masked.object_key == f"event {id_of(ours)} of the API"
    assert masked.fields is not None
    changes = {each.path: each for each in masked.fields.changes}
    assert changes.keys() == {"outcome", "cost"}
    assert (changes["cost"].change, changes["cost"].expected_value) == ("changed", None)

    (shown,), _ = compare(engine, api_view(), values=True)
    assert shown.fields is not None
    cost = next(each for each in shown.fields.changes if each.path == "cost")
    assert (cost.expected, cost.expected_value, cost.found_value) == ("number", "3", "2")


def test_a_row_of_columns_names_those_that_differ(engine: sa.Engine, tmp_path: Path) -> None:
    """Also with the text of the cell, where values are asked for."""
    ours = past(lead="lead-7")
    append(engine, ours)
    export = tmp_path / "events.csv"
    export.write_text(
        f"id,type,vars.flow.id,outcome,more\n{id_of(ours)},recipient,flow-1,failure,1\n"
    )
    (found,), summary = compare(engine, ExportView(export), values=True)
    assert found.kind == Kind.CHANGED_EVENT
    assert found.fields is not None
    assert [(each.path, each.change, each.expected_value) for each in found.fields.changes] == [
        ("more", "removed", '"1"'), ("outcome", "changed", '"failure"'),
    ]  # fmt: skip
    assert summary.pattern is not None
    assert [sort.type for sort in summary.pattern.sorts] == ["recipient"]


def test_both_sides_are_counted_by_hour_type_and_outcome(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """What is equal, changed, missing and unknown shows in its hour; what is not due does not."""
    both, lost, changed = past(hours=50), past(hours=50, type="filter"), past(hours=30)
    ours, young = past(hours=30, outcome="error"), snapshot()
    other = orjson.dumps(orjson.loads(changed) | {"more": 1})
    leadconduit.add(both, lost, other, young)
    append(engine, both, changed, ours)

    _, summary = compare(engine, api_view())

    assert summary.pattern is not None
    tallies = {(each.type, each.outcome): each.tally for each in summary.pattern.sorts}
    assert tallies == {
        ("recipient", "success"): Tally(2, 2, 1), ("filter", "success"): Tally(1, 0, 0),
        ("recipient", "error"): Tally(0, 1, 0),
    }  # fmt: skip
    assert [each.tally for each in summary.pattern.periods] == [Tally(2, 1, 1), Tally(1, 2, 0)]
    assert summary.pattern.periods[0].start == int(id_of(both)[:8], 16) // 3600 * 3600
    assert summary.pattern.delay is None


def test_young_events_are_not_due(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """What was made a moment ago may be on its way to either side."""
    leadconduit.add(snapshot())
    append(engine, snapshot())
    findings, summary = compare(engine, api_view())
    assert [each.kind for each in findings] == [Kind.NOT_YET_DUE] * 2
    assert summary.result == "reconciled"


def test_what_leadconduit_forgot_is_no_difference(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """It keeps 90 days; an event of 89 days that only we have is unknown to it."""
    old, recent = past(hours=24 * 91), past(hours=24 * 89)
    append(engine, old, recent)
    assert leadconduit.events == {}
    findings, _ = compare(engine, api_view())
    assert told(findings) == [
        ("past-retention", id_of(old)), ("unknown-event", id_of(recent)),
    ]  # fmt: skip


def test_late_events_are_matched_to_their_lead(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """Feedback and retries of a known lead are told apart, also where only the recipient event
    names it, and where the lead lies before the interval."""
    first = past(hours=72, lead="lead-known")
    retry = past(hours=2, lead="lead-known", type="retry")
    feedback = past(hours=2, lead=None, type="feedback-received", recipient_event_id=id_of(first))
    later = past(hours=2, lead="lead-known", type="recipient")
    stranger = past(hours=2, lead="lead-strange", type="feedback-received")
    leadconduit.add(first, retry, feedback, later, stranger)
    append(engine, first)

    since = datetime.now(UTC) - timedelta(hours=5)
    for window in (Window(), Window(since=since)):
        findings, summary = compare(engine, api_view(), window=window)
        found = {each.event_id: each for each in findings}
        assert found.keys() == {id_of(each) for each in (retry, feedback, later, stranger)}
        for each in (retry, feedback, later):
            finding = found[id_of(each)]
            assert finding.kind == Kind.MISSING_LATE_EVENT
            assert finding.lead_id == "lead-known"
            assert "2 days, 22:00:00 after its first event" in finding.detail
        assert found[id_of(stranger)].kind == Kind.MISSING_EVENT
        assert summary.differences == 4


def test_one_flow_and_an_interval(
    engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """Events outside of either are not looked at, on both sides."""
    inside = past(hours=3)
    others = [past(hours=3, flow="flow-2"), past(hours=6), past(hours=1)]
    leadconduit.add(inside, *others[:2])
    append(engine, others[2])
    now = datetime.now(UTC)
    window = Window("flow-1", now - timedelta(hours=4), now - timedelta(hours=2))
    findings, summary = compare(engine, api_view(), window=window)
    assert told(findings) == [("missing-event", id_of(inside))]
    assert (summary.events_expected, summary.events_found) == (1, 0)


# --- adopting ---------------------------------------------------------------------------


def test_adopt(engine: sa.Engine, leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """Missing events are appended and marked; what is not due, or in conflict, is left."""
    there, lost, late, young = past(), past(), past(type="retry"), snapshot()
    changed = past()
    leadconduit.add(there, lost, late, young, orjson.dumps(orjson.loads(changed) | {"more": 1}))
    append(engine, there, changed)

    dry = Importer(engine, kind="adopt", source="LeadConduit", actor="tester", dry_run=True)
    findings, _ = compare(engine, api_view(), adopter=dry, adopt=False)
    assert dry.result.appended == 2
    assert sum("would be appended" in each.detail for each in findings) == 2
    assert _rows(engine, "SELECT * FROM auditstore.imports") == []

    adopter = Importer(engine, kind="adopt", source="LeadConduit", actor="tester")
    findings, summary = compare(engine, api_view(), adopter=adopter, adopt=True)
    adopter.finish()
    assert told(findings) == [
        ("changed-event", id_of(changed)), ("not-yet-due", id_of(young)),
    ]  # fmt: skip
    assert not any(each.repaired for each in findings)
    assert summary.differences == 1
    (row,) = _rows(engine, "SELECT * FROM auditstore.imports")
    assert (row.kind, row.source, row.actor, row.appended) == ("adopt", "LeadConduit", "tester", 2)
    assert row.finished_at is not None
    marked = _rows(
        engine,
        "SELECT event_id FROM auditstore.imported_events JOIN auditstore.events USING (position)",
    )
    assert {each.event_id for each in marked} == {id_of(lost), id_of(late)}


def _rows(engine: sa.Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(statement)))


# --- buckets ------------------------------------------------------------------------------


@pytest.fixture
def filled(place: Place) -> Vandal:
    """A bucket, as somebody else fills it."""
    return Vandal(place)


def bucket(place: Place, store: ObjectStore) -> BucketView:
    """The view of it."""
    return BucketView(store, place.destination.prefix, name="the bucket")


def put(vandal: Vandal, place: Place, body: bytes, *, lead: str = "lead-1", key: str = "") -> str:
    """One event in LeadConduit's layout; its key."""
    name = join(place.destination.prefix, key or f"{lead}/{id_of(body)}.json")
    vandal.write(name, body)
    return name


def test_a_bucket_that_leadconduit_filled(
    engine: sa.Engine, place: Place, filled: Vandal, store: ObjectStore
) -> None:
    """Each kind of damage is found and named; LeadConduit's own connection tests are not."""
    good, lost, unknown, changed, swapped, other, twice = (past() for _ in range(7))
    append(engine, good, lost, changed, swapped, other, twice)
    for each in (good, unknown, twice):
        put(filled, place, each)
    put(filled, place, orjson.dumps(orjson.loads(changed) | {"outcome": "error"}))
    swaps = [
        put(filled, place, swapped, key=f"lead-1/{id_of(other)}.json"),
        put(filled, place, other, key=f"lead-1/{id_of(swapped)}.json"),
    ]
    repeat = put(filled, place, twice, key="copies/of-one.json")
    half = put(filled, place, good[: len(good) // 2], key=f"lead-1/{event_id(at=1.7e9)}.json")
    empty = put(filled, place, b"", key=f"lead-1/{event_id(at=1.7e9)}.json")
    foreign = put(filled, place, b"?", key="README.txt")
    torn = put(filled, place, b"\x1f\x8b\x08 no gzip at all", key="files/torn.ndjson.gz")
    put(filled, place, b"ok", key="leadconduit_verification_flow-1_1.txt")

    findings, summary = compare(engine, OutboxView(engine), bucket(place, store))

    (repetition,) = (each for each in findings if each.kind == Kind.DUPLICATE_EVENT)
    assert repetition.object_key in {repeat, key_of(place, twice)}
    assert repetition.event_id == id_of(twice)
    rest = [each for each in findings if each is not repetition]
    where = {each: each.object_key or f"position {each.position}" for each in rest}
    assert sorted((each.kind.value, where[each]) for each in rest) == sorted([
        ("changed-event", key_of(place, changed)), ("changed-file", empty), ("changed-file", torn),
        *(("changed-file", each) for each in swaps), ("missing-event", position_of(engine, lost)),
        ("unknown-event", key_of(place, unknown)), ("unknown-file", foreign),
        ("unreadable-line", half),
    ])  # fmt: skip
    assert summary.events_matched == 4


def key_of(place: Place, body: bytes) -> str:
    """Where LeadConduit puts it."""
    return join(place.destination.prefix, f"lead-1/{id_of(body)}.json")


def position_of(engine: sa.Engine, body: bytes) -> str:
    """Where the outbox has it."""
    statement = f"SELECT position FROM auditstore.events WHERE event_id = '{id_of(body)}'"
    (row,) = _rows(engine, statement)
    return f"position {row.position}"


@pytest.mark.parametrize("form", ["ndjson.gz", "json"])
def test_both_layouts_of_this_store(
    engine: sa.Engine, place: Place, form: str, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """LeadConduit's view against a bucket that this store filled, as files or as objects."""
    scene = Scene(engine, place)
    stream = scene.stream(format=form)
    made = [past(lead=None if number == 3 else f"lead {number}") for number in range(6)]
    append(engine, *made)
    scene.deliver(stream)
    leadconduit.add(*made[:5])
    with scene.opened() as store:
        view = BucketView(
            store, place.destination.prefix, name="the bucket", kind="cloud", flow_id="flow-1"
        )
        findings, summary = compare(engine, api_view(), view, stream_id=stream)
    assert told(findings) == [("unknown-event", id_of(made[5]))]
    assert (summary.events_expected, summary.events_found, summary.events_matched) == (5, 6, 5)


def test_what_is_not_in_a_streams_bucket(
    engine: sa.Engine, folder_place: Place, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """Never appended, not covered, not sealed yet, delivered and gone: each is told apart."""
    scene = Scene(engine, folder_place)
    uncovered, gone, waiting, never = (past(lead=None) for _ in range(4))
    append(engine, uncovered)
    stream = scene.stream(format="json", enabled=True)
    append(engine, gone)
    scene.deliver(stream)
    append(engine, waiting)
    leadconduit.add(uncovered, gone, waiting, never)
    scene.vandal.delete(f"%no-lead/{id_of(gone)}.json")
    with scene.opened() as store:
        view = BucketView(store, "", name="the bucket", kind="cloud", flow_id="flow-1")
        findings, _ = compare(engine, api_view(), view, stream_id=stream)
    found = {each.event_id: each for each in findings}
    assert found[id_of(uncovered)].kind == Kind.NOT_COVERED
    assert found[id_of(waiting)].kind == Kind.NOT_YET_DUE
    assert found[id_of(gone)].kind == Kind.MISSING_EVENT
    assert "delivered, and not in the bucket any more" in found[id_of(gone)].detail
    assert found[id_of(never)].kind == Kind.MISSING_EVENT
    assert "neither the outbox nor the bucket" in found[id_of(never)].detail


def test_changed_lines_of_a_file_are_read_again(
    engine: sa.Engine, folder_place: Place, leadconduit: FakeLeadConduit, api_view: Make
) -> None:
    """Where LeadConduit's bytes differ from those of a file, content decides, line by line."""
    scene = Scene(engine, folder_place)
    stream = scene.stream()
    made = [past() for _ in range(6)]
    append(engine, *made)
    scene.deliver(stream)
    leadconduit.add(*(each.replace(b": ", b":  ") for each in made[:5]))
    leadconduit.add(orjson.dumps(orjson.loads(made[5]) | {"reason": "other"}))
    with scene.opened() as store:
        view = BucketView(store, "", name="the bucket", kind="cloud", flow_id="flow-1")
        findings, summary = compare(engine, api_view(), view, stream_id=stream)
    assert [each.kind for each in findings] == [Kind.CHANGED_EVENT, Kind.REWRITTEN]
    assert findings[0].event_id == id_of(made[5])
    assert "differs in reason" in findings[0].detail
    assert summary.events_rewritten == 5


def test_a_bucket_answers_for_its_own_time_and_flows(
    engine: sa.Engine, folder_place: Place
) -> None:
    """Streaming began some day, for some flow: what was before, or elsewhere, is not missing."""
    vandal = Vandal(folder_place)
    before, there = past(hours=9), past(hours=5)
    missing = past(hours=4, lead="lead-2")
    append(engine, before, there, missing, past(hours=4, flow="flow-2"))
    put(vandal, folder_place, there)
    store = folder_place.open()
    findings, summary = compare(engine, OutboxView(engine), bucket(folder_place, store))
    assert told(findings) == [("missing-event", id_of(missing))]
    assert "only flow flow-1" in summary.views


def test_an_empty_bucket_is_no_clean_report(engine: sa.Engine, folder_place: Place) -> None:
    """Where nothing is, everything is missing."""
    made = [past() for _ in range(3)]
    append(engine, *made)
    store = folder_place.open()
    findings, _ = compare(engine, OutboxView(engine), bucket(folder_place, store))
    assert [each.kind for each in findings] == [Kind.MISSING_EVENT] * 3


def test_objects_outside_of_the_interval_are_not_read(
    engine: sa.Engine, folder_place: Place
) -> None:
    """The name tells the time: what lies outside need not even be readable."""
    vandal = Vandal(folder_place)
    inside = past(hours=1)
    append(engine, inside)
    put(vandal, folder_place, inside)
    put(vandal, folder_place, b"not JSON", key=f"lead-1/{event_id(at=time.time() - 9e4)}.json")
    since = datetime.now(UTC) - timedelta(hours=3)
    store = folder_place.open()
    findings, summary = compare(
        engine, OutboxView(engine), bucket(folder_place, store), window=Window(since=since)
    )
    assert findings == []
    assert summary.events_matched == 1


def test_memory_is_flat(engine: sa.Engine, tmp_path: Path) -> None:
    """Five times the events, all of them findings, take no more memory."""

    def peak(count: int) -> int:
        path = tmp_path / f"{count}"
        path.write_bytes(b"\n".join(past(filler="x" * 1000) for _ in range(count)))
        found: Counter[Kind] = Counter()
        tracemalloc.start()
        try:
            compare_views(
                engine, Pair(ExportView(path), OutboxView(engine)), Window(),
                report=lambda finding, _: found.update([finding.kind]), done=lambda *_: None,
            )  # fmt: skip
            assert found.total() == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(4000) < peak(1200) + 1024 * 1024 / 2


def test_leads_with_odd_names(engine: sa.Engine, folder_place: Place) -> None:
    """A lead's id as LeadConduit spells it in a key, and as this store does, are both right."""
    vandal = Vandal(folder_place)
    made = [past(lead=lead) for lead in ("a b", "a+b", "\u00e9", "x" * 230)]
    append(engine, *made)
    for each, spelled in zip(made, ("a b", "a%2Bb", "\u00e9", "x" * 230), strict=True):
        put(vandal, folder_place, each, lead=spelled)
    store = folder_place.open()
    findings, _ = compare(engine, OutboxView(engine), bucket(folder_place, store))
    assert findings == []
