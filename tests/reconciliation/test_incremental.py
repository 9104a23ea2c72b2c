"""A comparison of what is new: what it costs, and that nothing gets past it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from support.ledger_builder import Scene, kinds
from support.stores import Place

from auditstore.layout import event_key
from auditstore.objects import NewObject, ObjectInfo, ObjectStore, PutResult
from auditstore.reconciliation import Finding, Kind, Summary, compare_increment, incremental
from auditstore.reconciliation.incremental import Sample
from auditstore.sql import verified
from auditstore.sql.verified import Mark

NONE = Sample(files=0, runs=0)


@dataclass
class Counted:
    """A real store that tells what was asked of it."""

    store: ObjectStore
    read_keys: list[str] = field(default_factory=list)
    asked_keys: list[str] = field(default_factory=list)
    listed_keys: list[str] = field(default_factory=list)
    listings: list[str | None] = field(default_factory=list)

    def put_if_absent(self, new: NewObject) -> PutResult:
        """As the store does."""
        return self.store.put_if_absent(new)

    def head(self, key: str) -> ObjectInfo | None:
        """Counted."""
        self.asked_keys.append(key)
        return self.store.head(key)

    def read(self, key: str) -> Iterator[bytes] | None:
        """Counted."""
        self.read_keys.append(key)
        return self.store.read(key)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Counted."""
        self.listings.append(start_after)
        for info in self.store.list(prefix, start_after=start_after):
            self.listed_keys.append(info.key)
            yield info

    def close(self) -> None:
        """As the store does."""
        self.store.close()


class Runs:
    """Incremental runs of a scene's first stream, one after the other."""

    def __init__(self, scene: Scene, level: Any) -> None:
        self.scene = scene
        self.level = level

    def run(self, sample: Sample = NONE, **options: Any) -> tuple[list[Finding], Summary, Counted]:
        """One run: its findings, its summary, and what it asked of the store."""
        findings: list[Finding] = []
        counted = Counted(self.scene.place.open())
        summary = compare_increment(
            self.scene.engine, 1, lambda: counted, self.level,
            report=findings.append, sample=sample, **options,
        )  # fmt: skip
        return findings, summary, counted

    def mark(self) -> Mark | None:
        """What is remembered."""
        with self.scene.engine.connect() as connection:
            return verified.read_mark(connection, 1, self.level)


@pytest.fixture
def scene(engine: sa.Engine, place: Place) -> Scene:
    """An empty scene on each kind of store in turn."""
    return Scene(engine, place)


@pytest.fixture
def folder(engine: sa.Engine, folder_place: Place) -> Scene:
    """An empty scene on a folder."""
    return Scene(engine, folder_place)


def keys(scene: Scene) -> list[str]:
    """The keys of the first stream's files."""
    return [each.sealed.object_key for each in scene.files(1)]


@pytest.mark.parametrize("level", ["files", "events"])
def test_a_run_costs_what_is_new(scene: Scene, level: str) -> None:
    """After the first run only new files are listed and read, and the mark names the head."""
    scene.stream()
    scene.append(12)
    scene.deliver(1)
    runs = Runs(scene, level)
    assert runs.run()[0] == []
    mark = runs.mark()
    assert mark is not None
    assert (mark.sequence, mark.row_hash) == (3, scene.files(1)[-1].row_hash)

    _, summary, nothing = runs.run()
    assert (nothing.listings, nothing.asked_keys, nothing.read_keys) == ([], [], [])
    assert (summary.files_expected, summary.verified_before) == (0, 3)

    scene.append(8)
    new = scene.deliver(1)[3:]
    findings, summary, counted = runs.run()

    assert findings == []
    assert (summary.files_expected, summary.files_matched, summary.events_matched) == (2, 2, 8)
    assert (summary.first_sequence, summary.last_sequence) == (4, 5)
    assert counted.listed_keys == [each.sealed.object_key for each in new]
    assert counted.asked_keys == []
    reads = level == "events" or scene.place.kind == "file"
    assert counted.read_keys == ([each.sealed.object_key for each in new] if reads else [])
    assert runs.mark().sequence == 5  # type: ignore[union-attr]  # there was one before


def test_a_run_of_single_objects_costs_what_is_new(scene: Scene) -> None:
    """One object an event: the new events' objects are read, and nothing is listed."""
    scene.stream(format="json")
    scene.append(6)
    scene.deliver(1)
    runs = Runs(scene, "files")
    runs.run()
    ids = scene.append(3)
    scene.deliver(1)

    findings, summary, counted = runs.run()

    prefix = scene.place.destination.prefix
    expected = [
        event_key(prefix=prefix, lead_id=f"lead {number}", event_id=each)
        for number, each in enumerate(ids)
    ]
    assert findings == []
    assert (summary.events_expected, summary.events_matched) == (3, 3)
    assert (counted.listings, counted.read_keys) == ([], expected)

    scene.vandal.delete(expected[1])
    runs.run(anew=True)
    assert runs.mark().unclean == (3,)  # type: ignore[union-attr]  # it was made just now


@pytest.mark.parametrize("level", ["files", "events"])
def test_what_was_not_clean_is_compared_again(scene: Scene, level: str) -> None:
    """A finding is found again at every run until it is mended, and costs that file alone."""
    scene.stream()
    scene.append(16)
    key = scene.deliver(1)[1].sealed.object_key
    body = scene.vandal.read(key)
    scene.vandal.delete(key)
    runs = Runs(scene, level)
    for _ in range(2):
        (found,), _, _ = runs.run()
        assert (found.kind, found.sequence) == (Kind.MISSING_FILE, 2)
        mark = runs.mark()
        assert mark is not None
        assert (mark.sequence, mark.unclean, mark.clean_sequence) == (4, (2,), 1)
    (found,), summary, counted = runs.run()
    assert summary.files_expected == 1
    assert counted.asked_keys == [key]

    scene.vandal.write(key, body)
    assert runs.run()[0] == []
    assert runs.mark().clean_sequence == 4  # type: ignore[union-attr]  # there was one before
    _, summary, _ = runs.run()
    assert summary.files_expected == 0


@pytest.mark.parametrize("level", ["files", "events"])
def test_the_sample_comes_round(scene: Scene, level: str) -> None:
    """Every old file is read in full within so many runs, and damage in one is found then."""
    scene.stream()
    scene.append(20)
    files = scene.deliver(1)
    runs = Runs(scene, level)
    runs.run()
    # Past the listing's word: one byte of the same object, with its size.
    damaged = files[3].sealed.object_key
    body = bytearray(scene.vandal.read(damaged))
    body[12] ^= 1
    scene.vandal.write(damaged, bytes(body))
    two = Sample(files=2, runs=0)
    read: list[str] = []
    found = []
    for _ in range(3):
        findings, _, counted = runs.run(two)
        read += [key for key in dict.fromkeys(counted.read_keys) if key not in read]
        found.append([(each.kind, each.sequence) for each in findings])
        assert counted.listings == []
    assert read == keys(scene)
    # Found in its turn, and again at the next run.
    assert [bool(each) for each in found] == [False, True, True]
    assert set(found[1]) == {(Kind.CHANGED_FILE, 4)}
    scene.vandal.delete(keys(scene)[0])
    fourth, _, _ = runs.run(two)
    assert (Kind.MISSING_FILE, 1) in [(each.kind, each.sequence) for each in fourth]


def test_the_sample_is_bounded(folder: Scene) -> None:
    """By bytes, but for one file; and it grows where files are many, so that all come round."""
    folder.stream()
    folder.append(40)
    folder.deliver(1)
    runs = Runs(folder, "files")
    runs.run()
    assert len(runs.run(Sample(files=8, bytes=1))[2].read_keys) == 1
    assert len(runs.run(Sample(files=1, runs=3))[2].read_keys) == 4
    mark = runs.mark()
    assert mark is not None
    assert mark.sampled_sequence == 5


@pytest.mark.parametrize("level", ["files", "events"])
def test_another_ledger_is_a_finding(folder: Scene, level: str) -> None:
    """A history that was rewritten consistently is found, all is compared, and the mark stays
    until an operator compares anew."""
    folder.stream()
    folder.append(12)
    folder.deliver(1)
    runs = Runs(folder, level)
    runs.run()
    before = runs.mark()
    rewrite(folder)
    assert folder.compare(1)[0] == []
    for _ in range(2):
        (found,), summary, _ = runs.run()
        assert (found.kind, found.sequence) == (Kind.BROKEN_CHAIN, 3)
        assert found.expected == before.row_hash.hex()  # type: ignore[union-attr]  # it was made
        assert found.found == folder.files(1)[2].row_hash.hex()  # type: ignore[union-attr]  # delivered
        assert (summary.files_expected, summary.verified_before) == (3, 0)
        assert runs.mark() == before
    assert runs.run(anew=True)[0] == []
    assert runs.run()[0] == []


def rewrite(scene: Scene) -> None:
    """Give the first row another time, and chain all rows anew, as a superuser can."""
    from datetime import timedelta  # noqa: PLC0415  # used here only

    from auditstore.ledger import GENESIS, row_hash  # noqa: PLC0415  # used here only

    previous = GENESIS
    for row in scene.files(1):
        assert row.delivery is not None
        assert row.delivered_at is not None
        at = row.delivered_at - timedelta(days=1)
        made = row_hash(previous, row.sealed, row.delivery, at)
        scene.tamper(
            "UPDATE auditstore.files SET delivered_at = :at, previous_hash = :previous,"
            " row_hash = :made WHERE stream_id = 1 AND sequence = :sequence",
            at=at, previous=previous, made=made, sequence=row.sealed.sequence,
        )  # fmt: skip
        previous = made
    scene.tamper("UPDATE auditstore.streams SET chain_hash = :made", made=previous)


def test_a_ledger_that_lost_its_end_is_a_finding(folder: Scene) -> None:
    """A database that came back from before the mark is noticed."""
    folder.stream()
    folder.append(12)
    files = folder.deliver(1)
    runs = Runs(folder, "files")
    runs.run()
    folder.tamper("DELETE FROM auditstore.files WHERE sequence = 3")
    folder.tamper(
        "UPDATE auditstore.streams SET delivered_sequence = 2, sealed_sequence = 2,"
        " chain_hash = :hash, sealed_position = :position",
        hash=files[1].row_hash, position=files[1].sealed.last_position,
    )  # fmt: skip

    findings, _, _ = runs.run()

    # The third object is one that no row names any more.
    assert kinds(findings) == [Kind.UNKNOWN_FILE, Kind.BROKEN_CHAIN, Kind.NOT_YET_DUE]
    assert runs.mark().sequence == 3  # type: ignore[union-attr]  # it stays


def test_foreign_objects(folder: Scene) -> None:
    """One among the new files is found at once, one among the old at the next look at all; and
    both at every run from then on until they are gone."""
    folder.stream()
    folder.append(4)
    folder.deliver(1)
    runs = Runs(folder, "files")
    runs.run()
    old = f"{keys(folder)[0]}.old"
    folder.vandal.write(old, b"?")
    assert runs.run()[0] == []
    folder.append(4)
    new = f"{folder.deliver(1)[-1].sealed.object_key}.new"
    folder.vandal.write(new, b"?")
    assert [each.object_key for each in runs.run()[0]] == [new]
    for _ in range(2):
        findings, _, counted = runs.run()
        assert counted.listings == [None]
        assert [each.object_key for each in findings] == [old, new]
    folder.vandal.delete(old)
    folder.vandal.delete(new)
    assert runs.run()[0] == []
    assert runs.run()[2].listings == []


def test_the_whole_listing_is_due_again(scene: Scene) -> None:
    """After its time all old files are looked at in one listing; what is gone or of another
    size is found, and what looks as it was is not read."""
    scene.stream()
    scene.append(20)
    files = scene.deliver(1)
    runs = Runs(scene, "events")
    runs.run()
    scene.tamper("UPDATE auditstore.verified SET looked_at = looked_at - interval '7 days'")
    scene.vandal.delete(files[1].sealed.object_key)
    scene.rewrite(files[2], scene.lines(files[2])[1:])

    findings, _, counted = runs.run()

    assert counted.listings == [None]
    assert [(each.kind, each.sequence) for each in findings] == [
        (Kind.MISSING_FILE, 2), (Kind.CHANGED_FILE, 3), (Kind.MISSING_EVENT, 3),
    ]  # fmt: skip
    assert set(counted.read_keys) == {files[2].sealed.object_key}
    assert runs.mark().unclean == (2, 3)  # type: ignore[union-attr]  # there was one before


def test_an_event_in_no_file_is_found_again(folder: Scene) -> None:
    """What lies in a gap between files belongs to none, and is found until it is gone."""
    folder.stream()
    ids = folder.append(12)
    folder.deliver(1)
    folder.tamper(
        "UPDATE auditstore.files SET first_position = first_position + 1, event_count = 3"
        " WHERE sequence = 2"
    )
    runs = Runs(folder, "files")
    for _ in range(3):
        findings, _, _ = runs.run()
        assert Kind.MISSING_EVENT in kinds(findings)
        assert any(each.event_id == ids[4] for each in findings)


def test_an_unfinished_comparison_leaves_the_mark(folder: Scene) -> None:
    """A run that breaks off has verified nothing."""
    folder.stream()
    folder.append(4)
    folder.deliver(1)
    runs = Runs(folder, "files")
    runs.run()
    before = runs.mark()
    folder.append(4)
    folder.deliver(1)

    class Breaks:
        """Progress that ends the run."""

        def listing(self, objects: int) -> None:
            """Nothing."""

        def comparing(self, done: int, total: int, bytes_read: int) -> None:  # noqa: ARG002  # the protocol's
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(progress=Breaks())
    assert runs.mark() == before
    assert runs.run()[1].files_expected == 1


def test_what_is_not_delivered_is_not_passed(folder: Scene) -> None:
    """A file that is sealed and not delivered is compared once it is."""
    folder.stream()
    folder.append(4)
    folder.deliver(1)
    folder.append(4)
    folder.seal(1)
    runs = Runs(folder, "files")
    assert kinds(runs.run()[0]) == [Kind.NOT_YET_DUE]
    assert runs.mark().sequence == 1  # type: ignore[union-attr]  # it was made just now
    folder.deliver(1)
    assert runs.run()[1].files_expected == 1


def test_a_run_beside_another_undoes_nothing(folder: Scene) -> None:
    """Of two runs at once the later to end leaves the other's mark, and adds what it found."""
    folder.stream()
    folder.append(12)
    files = folder.deliver(1)
    runs = Runs(folder, "files")
    runs.run()

    class Meets:
        """Progress in whose midst another run begins and ends."""

        def __init__(self) -> None:
            self.met = False

        def listing(self, objects: int) -> None:
            """Nothing."""

        def comparing(self, done: int, total: int, bytes_read: int) -> None:  # noqa: ARG002  # the protocol's
            if not self.met:
                self.met = True
                folder.append(4)
                folder.deliver(1)
                runs.run()

    folder.vandal.delete(files[0].sealed.object_key)
    findings, _, _ = runs.run(Sample(files=3), progress=Meets())
    assert [each.sequence for each in findings] == [1]
    mark = runs.mark()
    assert mark is not None
    assert (mark.sequence, mark.unclean) == (4, (1,))


def test_too_many_unclean_files(folder: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than can be remembered: the mark goes back before the first, and nothing is missed."""
    monkeypatch.setattr(incremental, "MOST_UNCLEAN", 2)
    folder.stream()
    folder.append(24)
    files = folder.deliver(1)
    runs = Runs(folder, "files")
    runs.run()
    for file in files[1:5]:
        folder.vandal.delete(file.sealed.object_key)
    assert len(runs.run(Sample(files=6))[0]) == 4
    mark = runs.mark()
    assert mark is not None
    assert (mark.sequence, mark.unclean) == (1, ())
    assert [each.sequence for each in runs.run()[0]] == [2, 3, 4, 5]
    folder.vandal.delete(files[0].sealed.object_key)
    assert len(runs.run(anew=True)[0]) == 5
    assert runs.mark() is None
