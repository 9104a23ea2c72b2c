"""From a sealed row to the bucket and back to the ledger: repeated, interrupted, contested."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from support.ledger_builder import Scene
from support.stores import Place

from auditstore import streams
from auditstore.errors import LedgerMismatch, ObjectConflict
from auditstore.ledger import Delivery, LedgerFile, SealedFile
from auditstore.objects import VERIFICATION_PREFIX, ObjectStore
from exporters import delivery, encoding
from exporters.encoding import Rendering

DAMAGES = ("no gzip", "other lines", "cut short", "more behind", "raw deflate", "empty")
#: For what happens in the database alone.
on_a_folder = pytest.mark.parametrize("scene", ["folder"], indirect=True)


class OpenScene(Scene):
    """A scene that keeps one store open: making a client takes longer than a test."""

    store: ObjectStore

    @contextmanager
    def opened(self) -> Iterator[ObjectStore]:
        """The store, for whoever asks."""
        yield self.store


@pytest.fixture(params=["folder", "s3"])
def scene(request: pytest.FixtureRequest, engine: sa.Engine) -> Iterator[Scene]:
    """A database and an empty place, on a folder and on S3."""
    place = request.getfixturevalue(f"{request.param}_place")
    assert isinstance(place, Place)
    made = OpenScene(engine, place)
    made.store = place.open()
    yield made
    made.store.close()


def sealed_files(scene: Scene, stream_id: int, events: int) -> list[SealedFile]:
    """Files that are sealed and not delivered."""
    scene.append(events)
    scene.seal(stream_id)
    return [file.sealed for file in scene.files(stream_id)]


def rendered(scene: Scene, sealed: SealedFile) -> Rendering:
    """The sealed file's objects."""
    with scene.engine.connect() as connection:
        return delivery.render(connection, streams.get(connection, sealed.stream_id), sealed)


def put(scene: Scene, sealed: SealedFile) -> Delivery:
    """Render and put, as a worker does."""
    with scene.opened() as store:
        return delivery.put(rendered(scene, sealed), sealed, store)


def record(scene: Scene, sealed: SealedFile, delivered: Delivery) -> bool:
    """Record in a transaction of its own."""
    with scene.engine.begin() as connection:
        return delivery.record(connection, sealed, delivered)


def restore(scene: Scene, stream_id: int, file: LedgerFile) -> bool:
    """Put back what is missing."""
    with scene.opened() as store, scene.engine.connect() as connection:
        return delivery.restore(connection, streams.get(connection, stream_id), file, store)


def contents(scene: Scene) -> dict[str, bytes]:
    """All that lies in the place."""
    with scene.opened() as store:
        keys = [info.key for info in store.list("") if VERIFICATION_PREFIX not in info.key]
        return {key: b"".join(store.read(key) or ()) for key in keys}


@pytest.mark.parametrize("format_", ["ndjson.gz", "json"])
def test_putting_again_changes_nothing(scene: Scene, format_: str) -> None:
    """The second put finds the same content: same delivery, same objects, nothing rewritten."""
    stream_id = scene.stream(format=format_, max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    first = put(scene, sealed)
    before = contents(scene)
    assert len(before) == (1 if format_ == "ndjson.gz" else 6)
    assert put(scene, sealed) == first
    assert contents(scene) == before


@on_a_folder
@pytest.mark.timeout(30)
@pytest.mark.parametrize("format_", ["ndjson.gz", "json"])
def test_a_failure_amid_reading_leaves_the_connection_free(
    scene: Scene, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory with half of a range read, the worker can go on; it once hung for ever."""
    stream_id = scene.stream(format=format_, max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(encoding._Counter, "add", no_memory)
        with pytest.raises(MemoryError):
            rendered(scene, sealed)
    assert put(scene, sealed).object_bytes


def test_an_interrupted_put_of_many_objects_is_finished(scene: Scene) -> None:
    """Single objects that are there already are kept, the rest is added."""
    stream_id = scene.stream(format="json", max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    objects = rendered(scene, sealed).objects
    for new in objects[::2]:
        scene.vandal.write(new.key, new.body)
    delivered = put(scene, sealed)
    assert contents(scene) == {new.key: new.body for new in objects}
    joined = b"".join(new.body for new in objects)
    assert delivered.object_sha256 == hashlib.sha256(joined).digest()
    assert delivered.object_bytes == len(joined)


@on_a_folder
def test_the_delivery_describes_the_object(scene: Scene) -> None:
    """Size and digests are those of the stored bytes and of the content in them."""
    stream_id = scene.stream(max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    delivered = put(scene, sealed)
    body = scene.vandal.read(sealed.object_key)
    assert (delivered.object_bytes, delivered.object_sha256) == (
        len(body), hashlib.sha256(body).digest(),
    )  # fmt: skip
    assert delivered.content_sha256 == hashlib.sha256(gzip.decompress(body)).digest()


@pytest.mark.parametrize(
    ("scene", "level"), [("folder", 0), ("folder", 1), ("folder", 9), ("s3", 9)],
    indirect=["scene"],
)  # fmt: skip
def test_another_compression_is_the_same_content(scene: Scene, level: int) -> None:
    """An object by another zlib counts as delivered, recorded as it lies there, untouched."""
    stream_id = scene.stream(max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    ours = rendered(scene, sealed)
    other = gzip.compress(gzip.decompress(ours.objects[0].body), level, mtime=1_700_000_000)
    assert other != ours.objects[0].body
    scene.vandal.write(sealed.object_key, other)
    delivered = put(scene, sealed)
    assert scene.vandal.read(sealed.object_key) == other
    assert delivered.content_sha256 == ours.content_sha256
    assert (delivered.object_bytes, delivered.object_sha256) == (
        len(other), hashlib.sha256(other).digest(),
    )  # fmt: skip
    assert record(scene, sealed, delivered)
    (file,) = scene.files(stream_id)
    assert file.delivery == delivered
    # And it may be gone and be put back, in our own compression.
    assert not restore(scene, stream_id, file)
    scene.vandal.delete(sealed.object_key)
    assert restore(scene, stream_id, file)
    assert gzip.decompress(scene.vandal.read(sealed.object_key)) == gzip.decompress(other)


@pytest.mark.parametrize(
    ("scene", "damage"),
    [("folder", damage) for damage in DAMAGES] + [("s3", "no gzip"), ("s3", "other lines")],
    indirect=["scene"],
)
def test_other_content_is_a_conflict(scene: Scene, damage: str) -> None:
    """Whatever else lies under the key is left as it is, and the error says what to do."""
    stream_id = scene.stream(max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    ours = rendered(scene, sealed).objects[0].body
    content = gzip.decompress(ours)
    other = {
        "no gzip": content,
        "other lines": gzip.compress(content + b"{}\n"),
        "cut short": ours[:-9],
        "more behind": ours + b"x",
        "raw deflate": zlib.compress(content),
        "empty": b"",
    }[damage]
    scene.vandal.write(sealed.object_key, other)
    with pytest.raises(ObjectConflict, match="with other content") as caught:
        put(scene, sealed)
    assert f"stream resume {stream_id}" in caught.value.hint
    assert sealed.object_key in caught.value.message
    assert contents(scene) == {sealed.object_key: other}


def test_other_content_of_a_single_object_is_a_conflict(scene: Scene) -> None:
    """One foreign object among many stops the file; it is not overwritten."""
    stream_id = scene.stream(format="json", max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    key = rendered(scene, sealed).objects[3].key
    scene.vandal.write(key, b'{"not":"ours"}')
    with pytest.raises(ObjectConflict):
        put(scene, sealed)
    assert scene.vandal.read(key) == b'{"not":"ours"}'


@on_a_folder
def test_recorded_in_order_and_once(scene: Scene) -> None:
    """A later file cannot be recorded first; recording again changes nothing."""
    stream_id = scene.stream(max_events=2)
    one, two = sealed_files(scene, stream_id, 4)
    delivered = [put(scene, one), put(scene, two)]
    with pytest.raises(LedgerMismatch, match="would be recorded after file 0"):
        record(scene, two, delivered[1])
    assert record(scene, one, delivered[0])
    before = scene.files(stream_id), scene.get(stream_id)
    assert not record(scene, one, replace(delivered[0], etag="another worker's"))
    assert (scene.files(stream_id), scene.get(stream_id)) == before
    assert record(scene, two, delivered[1])
    stream = scene.get(stream_id)
    assert (stream.delivered_sequence, stream.delivered_position) == (2, two.last_position)
    files = scene.files(stream_id)
    assert files[1].previous_hash == files[0].row_hash
    assert stream.chain_hash == files[1].row_hash


@on_a_folder
def test_a_rolled_back_record_never_was(scene: Scene) -> None:
    """Marks and chain move with the commit only, so a crash before it leaves the file sealed."""
    stream_id = scene.stream(max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    delivered = put(scene, sealed)
    before = scene.get(stream_id)
    with scene.engine.connect() as connection:
        assert delivery.record(connection, sealed, delivered)
        connection.rollback()
    assert scene.get(stream_id) == before
    assert record(scene, sealed, put(scene, sealed))


@pytest.mark.parametrize("format_", ["ndjson.gz", "json"])
def test_a_missing_object_is_put_back_identical(scene: Scene, format_: str) -> None:
    """Byte for byte as it was, and nothing is written where nothing is missing."""
    stream_id = scene.stream(format=format_, max_events=10)
    scene.append(6)
    (file,) = scene.deliver(stream_id)
    before = contents(scene)
    assert not restore(scene, stream_id, file)
    key = max(before)
    scene.vandal.delete(key)
    assert restore(scene, stream_id, file)
    assert contents(scene) == before
    assert scene.files(stream_id) == [file]


@pytest.mark.parametrize("format_", ["ndjson.gz", "json"])
def test_restoring_never_overwrites(scene: Scene, format_: str) -> None:
    """A changed object is a conflict and stays for somebody to look at."""
    stream_id = scene.stream(format=format_, max_events=10)
    scene.append(6)
    (file,) = scene.deliver(stream_id)
    key = max(contents(scene))
    scene.vandal.write(key, gzip.compress(b"{}\n"))
    changed = contents(scene)
    with pytest.raises(ObjectConflict):
        restore(scene, stream_id, file)
    assert contents(scene) == changed


@on_a_folder
def test_an_altered_outbox_restores_nothing(scene: Scene) -> None:
    """Same number and size of events but other bytes: the digest tells, nothing is written."""
    stream_id = scene.stream(max_events=10)
    scene.append(6)
    (file,) = scene.deliver(stream_id)
    scene.vandal.delete(file.sealed.object_key)
    scene.tamper(
        "UPDATE auditstore.events SET payload = "
        "replace(payload::text, 'success', 'failure')::json WHERE position = 1"
    )
    with pytest.raises(LedgerMismatch, match="was delivered with the content"):
        restore(scene, stream_id, file)
    assert contents(scene) == {}


@on_a_folder
def test_what_is_not_delivered_cannot_be_restored(scene: Scene) -> None:
    """A sealed file is the exporter's to deliver."""
    stream_id = scene.stream(max_events=10)
    sealed_files(scene, stream_id, 6)
    (file,) = scene.files(stream_id)
    with pytest.raises(LedgerMismatch, match="not delivered yet"):
        restore(scene, stream_id, file)
    assert contents(scene) == {}


@on_a_folder
def test_a_removed_event_is_a_mismatch(scene: Scene) -> None:
    """What was sealed and is no longer all there is never delivered short."""
    stream_id = scene.stream(max_events=10)
    (sealed,) = sealed_files(scene, stream_id, 6)
    scene.tamper("DELETE FROM auditstore.events WHERE position = 2")
    with pytest.raises(LedgerMismatch, match=r"sealed with 6 events .* now holds 5"):
        put(scene, sealed)
    assert contents(scene) == {}
