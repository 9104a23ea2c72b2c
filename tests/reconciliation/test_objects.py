"""Damage to objects, on each kind of store: exactly it is found, and nothing else."""

from __future__ import annotations

import gzip

import pytest
import sqlalchemy as sa
from support.ledger_builder import Scene, kinds
from support.stores import Place

from auditstore.layout import event_key, join
from auditstore.objects import VERIFICATION_PREFIX
from auditstore.reconciliation import Kind


@pytest.fixture
def scene(engine: sa.Engine, place: Place) -> Scene:
    """An empty scene on each kind of store in turn."""
    return Scene(engine, place)


@pytest.fixture(params=["ndjson.gz", "json"])
def form(request: pytest.FixtureRequest) -> str:
    """Each format in turn."""
    return str(request.param)


@pytest.mark.parametrize("level", ["files", "events"])
def test_undamaged(scene: Scene, form: str, level: str) -> None:
    """Without damage nothing is found, and every file and event is accounted for."""
    stream = scene.stream(format=form)
    scene.append(6)
    scene.append(3, flow="another")
    scene.append(4)
    files = scene.deliver(stream)

    findings, summary = scene.compare(stream, level=level)

    assert findings == []
    assert summary.result == "reconciled"
    assert (summary.files_expected, summary.files_found, summary.files_matched) == (3, 3, 3)
    assert (summary.events_expected, summary.events_found, summary.events_matched) == (10, 10, 10)
    # Some stores leave a connection test of their own behind.
    data_objects = summary.objects_listed - summary.verification_objects
    assert data_objects == (3 if form == "ndjson.gz" else 10)
    assert (summary.head_sequence, summary.head_hash) == (3, files[-1].row_hash.hex())


@pytest.mark.parametrize("level", ["files", "events"])
def test_missing_file_is_put_back(scene: Scene, level: str) -> None:
    """A file that is gone is found, put back identical by a repair, and then reconciled."""
    stream = scene.stream()
    scene.append(10)
    key = scene.deliver(stream)[1].sealed.object_key
    before = scene.vandal.read(key)
    scene.vandal.delete(key)

    (found,), _ = scene.compare(stream, level=level)
    assert (found.kind, found.sequence, found.object_key) == (Kind.MISSING_FILE, 2, key)
    assert found.fixable
    assert not found.repaired

    (repaired,), _ = scene.compare(stream, level=level, repair=True)
    assert repaired.repaired
    assert scene.vandal.read(key) == before
    assert scene.compare(stream, level=level)[0] == []


def test_missing_object_of_an_event(scene: Scene) -> None:
    """In one object an event, each missing object is a finding that names its event."""
    stream = scene.stream(format="json")
    ids = scene.append(6)
    scene.deliver(stream)
    prefix = scene.place.destination.prefix
    gone = [(ids[1], "lead 1"), (ids[4], None), (ids[5], "lead 5")]
    keys = [event_key(prefix=prefix, lead_id=lead, event_id=each) for each, lead in gone]
    for key in keys:
        scene.vandal.delete(key)

    findings, summary = scene.compare(stream, level="files", repair=True)

    assert [(each.kind, each.event_id, each.lead_id) for each in findings] == [
        (Kind.MISSING_FILE, *each) for each in gone
    ]
    assert all(each.repaired for each in findings)
    assert summary.repaired == 3
    assert scene.compare(stream, level="events")[0] == []


@pytest.mark.parametrize("level", ["files", "events"])
def test_changed_file(scene: Scene, level: str) -> None:
    """An object with other content is a changed file; a repair leaves it as it is."""
    stream = scene.stream()
    ids = scene.append(4)
    (file,) = scene.deliver(stream)
    lines = scene.lines(file)
    lines[2] = lines[2].replace(b"success", b"failure")
    scene.rewrite(file, lines)

    findings, summary = scene.compare(stream, level=level, repair=True)

    expected = [Kind.CHANGED_FILE] + [Kind.CHANGED_EVENT] * (level == "events")
    assert kinds(findings) == expected
    assert all(each.sequence == 1 for each in findings)
    assert summary.files_matched == 0
    if level == "events":
        assert findings[1].event_id == ids[2]
        assert (summary.events_found, summary.events_matched) == (4, 3)
    assert scene.lines(file) == lines


def test_changed_object_of_an_event(scene: Scene) -> None:
    """One object with other content is one changed file and one changed event."""
    stream = scene.stream(format="json")
    ids = scene.append(3)
    scene.deliver(stream)
    prefix = scene.place.destination.prefix
    key = event_key(prefix=prefix, lead_id="lead 1", event_id=ids[1])
    scene.vandal.write(key, scene.vandal.read(key) + b" ")

    assert kinds(scene.compare(stream, level="files")[0]) == [Kind.CHANGED_FILE]
    findings, _ = scene.compare(stream, level="events")
    assert kinds(findings) == [Kind.CHANGED_FILE, Kind.CHANGED_EVENT]
    assert {each.event_id for each in findings} == {ids[1]}


@pytest.mark.parametrize("level", ["files", "events"])
def test_recompressed_file(scene: Scene, level: str) -> None:
    """Other bytes with the same content are told, and are no difference."""
    stream = scene.stream()
    scene.append(4)
    (file,) = scene.deliver(stream)
    content = gzip.decompress(scene.vandal.read(file.sealed.object_key))
    # Two members: gzip files may be concatenated.
    body = gzip.compress(content[:100], 9) + gzip.compress(content[100:], 1)
    scene.vandal.write(file.sealed.object_key, body)

    findings, summary = scene.compare(stream, level=level)

    assert kinds(findings) == [Kind.RECOMPRESSED]
    assert summary.result == "reconciled"
    assert summary.files_matched == 1


def test_unknown_files(scene: Scene) -> None:
    """Only what no row names is unknown; a connection test is counted, a neighbour not seen."""
    stream = scene.stream()
    scene.append(4)
    scene.deliver(stream)
    _, before = scene.compare(stream)
    prefix = scene.place.destination.prefix
    scene.vandal.write(join(prefix, "stray.txt"), b"?")
    scene.vandal.write(join(prefix, f"{VERIFICATION_PREFIX}_1.txt"), b"test")
    if prefix:
        scene.vandal.write(f"{prefix}-beside/other.txt", b"not ours")

    findings, summary = scene.compare(stream)

    assert [(each.kind, each.object_key) for each in findings] == [
        (Kind.UNKNOWN_FILE, join(prefix, "stray.txt"))
    ]
    assert summary.verification_objects == before.verification_objects + 1
