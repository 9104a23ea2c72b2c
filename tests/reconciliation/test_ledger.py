"""Damage to the database's side, lateness, time filters and locations that are shared."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from support.ledger_builder import FLOW, Scene, kinds
from support.stores import Place

from auditstore import streams
from auditstore.errors import NotFound, StoreRefused
from auditstore.layout import event_key, join
from auditstore.ledger import row_hash
from auditstore.reconciliation import Kind

DAY = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A scene in a folder."""
    return Scene(engine, folder_place)


# --- the outbox -----------------------------------------------------------------------


def test_event_gone_from_the_outbox(scene: Scene) -> None:
    """An event removed behind the guards: the outbox differs, and its file holds one unknown."""
    stream = scene.stream()
    ids = scene.append(8)
    scene.deliver(stream)
    scene.tamper("DELETE FROM auditstore.events WHERE event_id = :id", id=ids[5])

    (found,), _ = scene.compare(stream, level="files")
    assert (found.kind, found.sequence) == (Kind.OUTBOX_DIFFERS, 2)
    findings, summary = scene.compare(stream)
    assert kinds(findings) == [Kind.UNKNOWN_EVENT, Kind.OUTBOX_DIFFERS]
    assert findings[1].event_id == ids[5]
    assert summary.files_matched == 2


def test_event_altered_in_the_outbox(scene: Scene) -> None:
    """A payload altered with its hash: the file is as delivered, and the event differs."""
    stream = scene.stream()
    ids = scene.append(4)
    scene.deliver(stream)
    scene.tamper(
        "UPDATE auditstore.events SET payload = replace(payload::text, 'success', 'failure')::json,"
        " sha256 = sha256(convert_to(replace(payload::text, 'success', 'failure'), 'UTF8'))"
        " WHERE event_id = :id",
        id=ids[0],
    )

    (found,), _ = scene.compare(stream)
    assert (found.kind, found.event_id) == (Kind.CHANGED_EVENT, ids[0])
    assert "outbox was altered" in found.detail


@pytest.mark.parametrize("form", ["ndjson.gz", "json"])
def test_payload_altered_without_its_hash(scene: Scene, form: str) -> None:
    """A payload that is not what its own hash says shows at the level events."""
    stream = scene.stream(format=form)
    ids = scene.append(4)
    scene.deliver(stream)
    scene.tamper(
        "UPDATE auditstore.events SET payload = replace(payload::text, 'success', 'failure')::json"
        " WHERE event_id = :id",
        id=ids[3],
    )

    (found,), _ = scene.compare(stream)
    assert (found.kind, found.event_id) == (Kind.OUTBOX_DIFFERS, ids[3])


@pytest.mark.parametrize("body", [None, b"no gzip"], ids=["missing", "unreadable"])
def test_payload_altered_beside_a_lost_file(scene: Scene, body: bytes | None) -> None:
    """What was altered in the outbox is found though its file has nothing to say about it."""
    stream = scene.stream()
    ids = scene.append(4)
    (file,) = scene.deliver(stream)
    _alter_payload(scene, ids[3])
    if body is None:
        scene.vandal.delete(file.sealed.object_key)
    else:
        scene.vandal.write(file.sealed.object_key, body)

    findings, _ = scene.compare(stream)
    lost = Kind.MISSING_FILE if body is None else Kind.CHANGED_FILE
    assert kinds(findings) == [lost, Kind.OUTBOX_DIFFERS]
    assert ids[3] in {each.event_id for each in findings}


def test_payload_altered_in_no_file(scene: Scene) -> None:
    """An event whose ledger row is gone is missing, and its altered payload is told too."""
    stream = scene.stream(max_events=2)
    ids = scene.append(4)
    scene.deliver(stream)
    _alter_payload(scene, ids[0])
    scene.tamper("DELETE FROM auditstore.files WHERE sequence = 1")

    findings, _ = scene.compare(stream)
    of_it = [each.kind for each in findings if each.event_id == ids[0] and not each.object_key]
    assert sorted(of_it) == [Kind.MISSING_EVENT, Kind.OUTBOX_DIFFERS]


@pytest.mark.parametrize("level", ["files", "events"])
def test_event_altered_in_the_outbox_beside_its_object(scene: Scene, level: str) -> None:
    """The ledger proves that the objects are what was delivered: none of them was changed."""
    stream = scene.stream(format="json")
    ids = scene.append(4)
    scene.deliver(stream)
    _alter_event(scene, ids[1])

    (found,), summary = scene.compare(stream, level=level)
    assert found.kind is (Kind.CHANGED_EVENT if level == "events" else Kind.OUTBOX_DIFFERS)
    assert (found.event_id, found.sequence) == (ids[1], 1)
    assert "the outbox was altered since" in found.detail
    assert (summary.files_matched, summary.events_matched) == (1, 3)


def test_recompressed_beside_an_altered_outbox(scene: Scene) -> None:
    """That a file was compressed anew is told though the outbox differs from it."""
    stream = scene.stream()
    ids = scene.append(4)
    (file,) = scene.deliver(stream)
    scene.rewrite(file, scene.lines(file))
    _alter_event(scene, ids[1])

    assert kinds(scene.compare(stream)[0]) == [Kind.CHANGED_EVENT, Kind.RECOMPRESSED]


def test_altered_size_in_the_ledger(scene: Scene) -> None:
    """A row that tells another size than its objects have is a broken chain, and nothing else."""
    stream = scene.stream(format="json")
    scene.append(4)
    scene.deliver(stream)
    scene.tamper("UPDATE auditstore.files SET object_bytes = object_bytes + 1")

    assert kinds(scene.compare(stream)[0]) == [Kind.BROKEN_CHAIN]


def _alter_payload(scene: Scene, event_id: str) -> None:
    scene.tamper(
        "UPDATE auditstore.events SET payload = replace(payload::text, 'success', 'failure')::json"
        " WHERE event_id = :id",
        id=event_id,
    )


def _alter_event(scene: Scene, event_id: str) -> None:
    _alter_payload(scene, event_id)
    scene.tamper(
        "UPDATE auditstore.events SET sha256 = sha256(convert_to(payload::text, 'UTF8'))"
        " WHERE event_id = :id",
        id=event_id,
    )


def test_repair_refuses_altered_content(scene: Scene) -> None:
    """A missing file that the outbox can no longer give is reported with the reason."""
    stream = scene.stream()
    ids = scene.append(4)
    (file,) = scene.deliver(stream)
    scene.vandal.delete(file.sealed.object_key)
    scene.tamper(
        "UPDATE auditstore.events SET payload = replace(payload::text, 'success', 'failure')::json"
        " WHERE event_id = :id",
        id=ids[0],
    )

    (found,), summary = scene.compare(stream, level="files", repair=True)

    assert found.kind is Kind.MISSING_FILE
    assert not found.repaired
    assert "could not be put back" in found.detail
    assert summary.repaired == 0


# --- the ledger -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE auditstore.files SET etag = 'other' WHERE sequence = 2",
        "UPDATE auditstore.files SET encoder = 'other' WHERE sequence = 2",
        "UPDATE auditstore.files SET sealed_at = sealed_at + interval '1 s' WHERE sequence = 2",
    ],
)
def test_altered_row(scene: Scene, statement: str) -> None:
    """A ledger row that was altered is not what its hash says."""
    stream = scene.stream()
    scene.append(12)
    scene.deliver(stream)
    scene.tamper(statement)

    (found,), _ = scene.compare(stream)
    assert (found.kind, found.sequence) == (Kind.BROKEN_CHAIN, 2)


def test_forged_row(scene: Scene) -> None:
    """A row altered together with its own hash is no longer what the next is chained to."""
    stream = scene.stream()
    scene.append(12)
    second = scene.deliver(stream)[1]
    sealed = replace(second.sealed, encoder="other")
    forged = row_hash(second.previous_hash, sealed, second.delivery, second.delivered_at)
    scene.tamper(
        "UPDATE auditstore.files SET encoder = 'other', row_hash = :forged WHERE sequence = 2",
        forged=forged,
    )

    (found,), _ = scene.compare(stream)
    assert (found.kind, found.sequence) == (Kind.BROKEN_CHAIN, 3)
    assert "not chained" in found.detail


def test_row_gone(scene: Scene) -> None:
    """A row taken out of the ledger: a gap, its file unknown, its events in no file."""
    stream = scene.stream(max_events=2)
    ids = scene.append(6)
    scene.deliver(stream)
    scene.tamper("DELETE FROM auditstore.files WHERE sequence = 2")

    findings, _ = scene.compare(stream, level="files")

    assert kinds(findings) == [
        Kind.UNKNOWN_FILE, Kind.MISSING_EVENT, Kind.MISSING_EVENT, Kind.BROKEN_CHAIN,
    ]  # fmt: skip
    assert {each.event_id for each in findings if each.event_id} == set(ids[2:4])


def test_tail_of_the_ledger_gone(scene: Scene) -> None:
    """Rows cut off the end are missed, since the stream's own mark names them."""
    stream = scene.stream(max_events=2)
    scene.append(6)
    scene.deliver(stream)
    scene.tamper("DELETE FROM auditstore.files WHERE sequence > 1")

    findings, _ = scene.compare(stream, level="files")

    assert kinds(findings) == (
        [Kind.UNKNOWN_FILE] * 2 + [Kind.MISSING_EVENT] * 4 + [Kind.BROKEN_CHAIN]
    )
    assert findings[0].detail == "rows 2 to 3 are missing from the ledger"


def test_forged_head(scene: Scene) -> None:
    """A head that is not the newest row's hash is a broken chain."""
    stream = scene.stream()
    scene.append(4)
    scene.deliver(stream)
    scene.tamper("UPDATE auditstore.streams SET chain_hash = sha256('x')")

    assert kinds(scene.compare(stream)[0]) == [Kind.BROKEN_CHAIN]


def test_event_in_no_range(scene: Scene) -> None:
    """A covered event that the sealed mark has passed, and that no file holds, is missing."""
    stream = scene.stream(max_events=2)
    scene.append(2)
    scene.deliver(stream)
    (skipped,) = scene.append(1)
    scene.tamper("UPDATE auditstore.streams SET sealed_position = auditstore.last_position()")
    scene.append(2)
    scene.deliver(stream)

    (found,), _ = scene.compare(stream)
    assert (found.kind, found.event_id) == (Kind.MISSING_EVENT, skipped)


def test_events_while_disabled_are_not_expected(scene: Scene) -> None:
    """What was appended before, between and after the covered intervals is nobody's loss."""
    scene.append(3)
    stream = scene.stream()
    scene.append(3)
    scene.deliver(stream)
    with scene.engine.begin() as connection:
        streams.disable(connection, stream, actor="test")
    scene.append(3)
    with scene.engine.begin() as connection:
        streams.enable(connection, stream, actor="test")
    scene.append(3)
    scene.deliver(stream)
    with scene.engine.begin() as connection:
        streams.disable(connection, stream, actor="test")
    scene.append(3)

    findings, summary = scene.compare(stream)
    assert findings == []
    assert summary.events_matched == 6
    assert len(summary.intervals) == 2


# --- lateness -------------------------------------------------------------------------


def test_not_yet_due(scene: Scene) -> None:
    """What waits within its time is told, and is no difference."""
    stream = scene.stream()
    scene.append(4)
    scene.seal(stream)
    scene.append(3)

    findings, summary = scene.compare(stream)

    assert kinds(findings) == [Kind.NOT_YET_DUE, Kind.NOT_YET_DUE]
    assert [each.expected for each in findings] == ["4 events", "3 events"]
    assert summary.result == "reconciled"


def test_overdue(scene: Scene) -> None:
    """What waits longer than the delay and the grace is a difference, sealed or not."""
    stream = scene.stream()
    late = datetime.now(UTC) - timedelta(seconds=70)
    scene.tamper("UPDATE auditstore.stream_intervals SET opened_at = :at", at=late)
    scene.append(4, at=late)
    scene.seal(stream)
    scene.append(2, at=late)
    scene.append(1)

    findings, summary = scene.compare(stream)

    assert kinds(findings) == [Kind.OVERDUE, Kind.OVERDUE, Kind.NOT_YET_DUE]
    assert summary.result == "differences"
    assert sorted(each.expected or "" for each in findings) == ["1 events", "2 events", "4 events"]


def test_catching_up_is_not_overdue_at_once(scene: Scene) -> None:
    """A stream enabled just now to catch up is not late for what it missed before."""
    stream = scene.stream()
    scene.append(3, at=datetime.now(UTC) - timedelta(hours=5))

    assert kinds(scene.compare(stream)[0]) == [Kind.NOT_YET_DUE]


def test_sealed_and_disabled(scene: Scene) -> None:
    """What a disabled stream never delivered is missing, with that as the reason."""
    stream = scene.stream()
    scene.append(4)
    scene.seal(stream)
    with scene.engine.begin() as connection:
        streams.disable(connection, stream, actor="test")

    (found,), _ = scene.compare(stream, repair=True)
    assert found.kind is Kind.MISSING_FILE
    assert "disabled" in found.detail
    assert not found.fixable


def test_delivered_while_comparing(scene: Scene) -> None:
    """A file delivered after we looked is neither missing nor unknown."""
    stream = scene.stream()
    scene.append(8)
    scene.seal(stream, count=1)

    class Delivering:
        """Reports progress, and delivers once the listing is over."""

        def listing(self, objects: int) -> None:  # noqa: ARG002  # the protocol's
            scene.deliver(stream)

        def comparing(self, done: int, total: int, bytes_read: int) -> None:
            pass

    findings, summary = scene.compare(stream, progress=Delivering())
    assert kinds(findings) == [Kind.NOT_YET_DUE] * 2
    assert summary.result == "reconciled"
    assert scene.compare(stream)[0] == []


# --- time filters ---------------------------------------------------------------------


def test_interval_of_time(scene: Scene) -> None:
    """Only the files that may hold an event of the interval are compared; bounds half open."""
    stream = scene.stream()
    for hour in range(4):
        scene.append(2, at=DAY + timedelta(hours=hour))
    files = scene.deliver(stream)
    assert len(files) == 4
    for file in files:
        scene.vandal.delete(file.sealed.object_key)

    def missing(since: datetime | None, until: datetime | None) -> list[int | None]:
        findings, _ = scene.compare(stream, level="files", since=since, until=until)
        assert {each.kind for each in findings} <= {Kind.MISSING_FILE}
        return [each.sequence for each in findings]

    hour = timedelta(hours=1)
    assert missing(None, None) == [1, 2, 3, 4]
    assert missing(DAY + hour, DAY + 2 * hour) == [2]
    assert missing(DAY + hour, None) == [2, 3, 4]
    assert missing(None, DAY + 2 * hour) == [1, 2]
    assert missing(DAY + hour / 2, DAY + hour) == []
    assert missing(DAY + 9 * hour, None) == []
    assert missing(None, DAY) == []


def test_unknown_files_with_an_interval(scene: Scene) -> None:
    """Files outside of the interval are known all the same; strangers are reported always."""
    stream = scene.stream()
    for hour in range(3):
        scene.append(2, at=DAY + timedelta(hours=hour))
    scene.deliver(stream)
    scene.vandal.write(join(scene.place.destination.prefix, "stray"), b"")

    findings, _ = scene.compare(
        stream, since=DAY + timedelta(hours=1), until=DAY + timedelta(hours=2)
    )
    assert kinds(findings) == [Kind.UNKNOWN_FILE]


def test_event_in_no_range_with_an_interval(scene: Scene) -> None:
    """An event between two files is missed in its own time only, also where no file is."""
    stream = scene.stream()
    scene.append(2, at=DAY)
    scene.deliver(stream)
    scene.append(1, at=DAY + timedelta(hours=2))
    scene.tamper("UPDATE auditstore.streams SET sealed_position = auditstore.last_position()")
    scene.append(2, at=DAY + timedelta(hours=4))
    scene.deliver(stream)

    def compare(since: int, until: int) -> list[Kind]:
        hour = timedelta(hours=1)
        return kinds(scene.compare(stream, since=DAY + since * hour, until=DAY + until * hour)[0])

    assert compare(1, 3) == [Kind.MISSING_EVENT]
    assert compare(0, 2) == []
    assert compare(3, 5) == []


# --- shared locations -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ndjson.gz", "json"])
def test_files_of_an_older_stream(scene: Scene, form: str) -> None:
    """Objects of another stream at the same place are known, unless only their name fits."""
    older = scene.stream(format=form, flow_id="older")
    ids = scene.append(3, flow="older")
    scene.deliver(older)
    with scene.engine.begin() as connection:
        streams.disable(connection, older, actor="test")
    (late,) = scene.append(1, flow="older")
    stream = scene.stream(format="json")
    scene.append(3)
    scene.deliver(stream)
    assert scene.compare(stream)[0] == []
    assert scene.compare(older)[0] == []

    prefix = scene.place.destination.prefix
    scene.vandal.write(event_key(prefix=prefix, lead_id="lead 0", event_id=late), b"{}")
    scene.vandal.write(event_key(prefix=prefix, lead_id="wrong", event_id=ids[0]), b"{}")
    assert kinds(scene.compare(stream, level="files")[0]) == [Kind.UNKNOWN_FILE] * 2


def test_format_changed_in_between(scene: Scene) -> None:
    """Files keep the format in which they were sealed."""
    stream = scene.stream()
    scene.append(3)
    scene.deliver(stream)
    with scene.engine.begin() as connection:
        streams.change(connection, stream, {"format": "json"}, actor="test")
    scene.append(3)
    scene.deliver(stream)

    findings, summary = scene.compare(stream, until=datetime.now(UTC) + timedelta(days=1))
    assert findings == []
    assert summary.files_matched == 2


# --- what cannot be compared --------------------------------------------------------------


def test_least_privilege(scene: Scene) -> None:
    """The exporter's role is enough to compare and to repair, at the level of events."""
    stream = scene.stream()
    scene.append(4)
    (file,) = scene.deliver(stream)
    scene.vandal.delete(file.sealed.object_key)

    @sa.event.listens_for(scene.engine, "begin")
    def become_exporter(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL ROLE auditstore_exporter")

    findings, _ = scene.compare(stream, repair=True)
    assert kinds(findings) == [Kind.MISSING_FILE]
    assert scene.compare(stream)[0] == []


def test_never_enabled(scene: Scene) -> None:
    """A stream that never covered anything has nothing to compare, and no store is opened."""
    stream = scene.stream(enabled=False)
    scene.append(2, flow=FLOW)
    findings, summary = scene.compare(stream)
    assert findings == []
    assert summary.result == "reconciled"


def test_store_gone(engine: sa.Engine, folder_place: Place) -> None:
    """A store that cannot be listed is an error, not a wealth of missing files."""
    place = Place("file", folder_place.missing, None, folder_place.missing, "")
    scene = Scene(engine, place)
    stream = scene.stream()
    with pytest.raises(StoreRefused):
        scene.compare(stream)


def test_no_such_stream(scene: Scene) -> None:
    """A stream that is not there is an error."""
    with pytest.raises(NotFound):
        scene.compare(77)
