"""What a sealed range becomes: reproducible bytes, checked against what was sealed."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditstore.errors import LedgerMismatch
from auditstore.ledger import SealedFile
from exporters.encoding import ENCODERS, decompress, render_events, render_file

AT = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
#: A snapshot is JSON in one line: any bytes but a line feed.
SNAPSHOT = st.binary(min_size=2, max_size=300).map(lambda raw: raw.replace(b"\n", b" "))
SNAPSHOTS = st.lists(SNAPSHOT, min_size=1, max_size=40)


def sealed_for(snapshots: Sequence[bytes], format_: str = "ndjson.gz") -> SealedFile:
    """The ledger row that sealing makes for these snapshots."""
    return SealedFile(
        stream_id=3, sequence=7, first_position=100, last_position=100 + 2 * len(snapshots),
        event_count=len(snapshots), content_bytes=sum(len(each) + 1 for each in snapshots),
        first_recorded_at=AT, last_recorded_at=AT, format=format_, encoder="1",
        object_key="a/key.ndjson.gz", sealed_at=AT,
    )  # fmt: skip


def chunked(body: bytes, size: int) -> Iterator[bytes]:
    """The body as a store's reader sends it."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def rows_of(snapshots: Sequence[bytes]) -> list[tuple[int, bytes, str, str | None]]:
    """What the outbox gives for the layout of one object an event; every third has no lead."""
    return [
        (100 + number, snapshot, f"{number:024x}", f"lead {number}" if number % 3 else None)
        for number, snapshot in enumerate(snapshots)
    ]


@given(SNAPSHOTS, st.integers(1, 5000))
@settings(deadline=None)
def test_a_file_gives_back_every_byte(snapshots: list[bytes], chunk: int) -> None:
    """Python's own gzip and our reader both find each snapshot on a line, byte for byte."""
    (new,) = render_file(snapshots, sealed_for(snapshots)).objects
    content = b"".join(snapshot + b"\n" for snapshot in snapshots)
    assert gzip.decompress(new.body) == content
    assert b"".join(decompress(chunked(new.body, chunk))) == content


def test_a_file_of_many_blocks_gives_back_every_byte() -> None:
    """Content far over one block, with lines larger than a block, survives too."""
    snapshots = [bytes([65 + number % 26]) * (number * 977 % 400_000 + 2) for number in range(40)]
    rendering = render_file(snapshots, sealed_for(snapshots))
    content = b"".join(snapshot + b"\n" for snapshot in snapshots)
    assert gzip.decompress(rendering.objects[0].body) == content
    assert rendering.content_sha256 == hashlib.sha256(content).digest()


@given(SNAPSHOTS)
@settings(deadline=None)
def test_the_same_events_are_the_same_bytes(snapshots: list[bytes]) -> None:
    """A list, a generator and a second rendering give identical objects and digests."""
    sealed = sealed_for(snapshots)
    first = render_file(snapshots, sealed)
    assert render_file(iter(snapshots), sealed) == first
    assert render_file((memoryview(each).tobytes() for each in snapshots), sealed) == first


def test_a_file_carries_no_time_of_its_making() -> None:
    """The gzip header's time is zero and it names no file, so bytes never depend on the day."""
    (new,) = render_file([b"{}"], sealed_for([b"{}"])).objects
    assert new.body[:4] == b"\x1f\x8b\x08\x00"
    assert new.body[4:8] == bytes(4)


def test_a_file_says_what_it_is() -> None:
    """Type, encoding, digests and metadata describe the object and its range."""
    snapshots = [b'{"a":1}', b'{"b":2}']
    sealed = sealed_for(snapshots)
    rendering = render_file(snapshots, sealed)
    (new,) = rendering.objects
    assert (new.key, new.content_type, new.content_encoding) == (
        "a/key.ndjson.gz", "application/x-ndjson", "gzip",
    )  # fmt: skip
    content_sha256 = hashlib.sha256(b'{"a":1}\n{"b":2}\n')
    assert new.metadata == {
        "content-sha256": content_sha256.hexdigest(), "event-count": "2",
        "first-position": "100", "last-position": "104", "format-version": "1",
    }  # fmt: skip
    assert new.sha256 == rendering.object_sha256 == hashlib.sha256(new.body).digest()
    assert rendering.object_bytes == len(new.body)
    assert rendering.content_sha256 == content_sha256.digest()
    assert all(encoder.split()[0] == "1" for encoder in ENCODERS.values())


@given(SNAPSHOTS)
@settings(deadline=None)
def test_single_objects_are_the_snapshots(snapshots: list[bytes]) -> None:
    """LeadConduit's layout: each object is a snapshot; digests cover them in order."""
    sealed = sealed_for(snapshots, "json")
    rendering = render_events(rows_of(snapshots), sealed, prefix="some/prefix")
    assert [new.body for new in rendering.objects] == snapshots
    assert len({new.key for new in rendering.objects}) == len(snapshots)
    assert rendering.objects[0].key == f"some/prefix/%no-lead/{0:024x}.json"
    for position, new in enumerate(rendering.objects, start=100):
        assert new.sha256 == hashlib.sha256(new.body).digest()
        assert (new.content_type, new.content_encoding) == ("application/json", None)
        assert new.metadata == {
            "content-sha256": new.sha256.hex(), "event-count": "1",
            "first-position": str(position), "last-position": str(position),
            "format-version": "1",
        }  # fmt: skip
    joined = b"".join(snapshots)
    assert rendering.object_sha256 == hashlib.sha256(joined).digest()
    assert rendering.object_bytes == len(joined)
    # The content's digest is the same in either format: it is of the events, not the objects.
    assert rendering.content_sha256 == render_file(snapshots, sealed).content_sha256


@given(SNAPSHOTS, st.sampled_from(["lost", "added", "longer"]), st.data())
@settings(deadline=None)
def test_other_events_than_sealed_are_refused(
    snapshots: list[bytes], damage: str, data: st.DataObject
) -> None:
    """One event less, one more or one byte more is a mismatch, in either format."""
    sealed = sealed_for(snapshots)
    at = data.draw(st.integers(0, len(snapshots) - 1))
    changed = list(snapshots)
    if damage == "lost":
        del changed[at]
    elif damage == "added":
        changed.insert(at, b"{}")
    else:
        changed[at] += b" "
    with pytest.raises(LedgerMismatch, match="was sealed with") as caught:
        render_file(changed, sealed)
    assert "stream resume 3" in caught.value.hint
    with pytest.raises(LedgerMismatch):
        render_events(rows_of(changed), replace(sealed, format="json"), prefix="")


@given(SNAPSHOTS, st.integers(1, 200), st.data())
@settings(deadline=None)
def test_a_cut_object_is_noticed(snapshots: list[bytes], chunk: int, data: st.DataObject) -> None:
    """Every proper beginning of a gzip object raises, however it is chunked."""
    body = render_file(snapshots, sealed_for(snapshots)).objects[0].body
    end = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(zlib.error):
        list(decompress(chunked(body[:end], chunk)))


@given(st.integers(1, 200), st.binary(min_size=1, max_size=50))
@settings(deadline=None)
def test_data_after_the_end_is_noticed(chunk: int, trailing: bytes) -> None:
    """Anything after the gzip stream raises, in the same chunk or in a later one."""
    body = render_file([b"{}"], sealed_for([b"{}"])).objects[0].body
    with pytest.raises(zlib.error, match="after the end"):
        list(decompress(chunked(body + trailing, chunk)))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_empty_chunks_change_nothing(place: int) -> None:
    """A reader may send nothing for a while, also after the last byte."""
    body = render_file([b"{}"], sealed_for([b"{}"])).objects[0].body
    chunks = [body[:5], body[5:]]
    chunks.insert(place, b"")
    assert b"".join(decompress(chunks)) == b"{}\n"


@given(SNAPSHOTS, st.integers(1, 255), st.data())
@settings(deadline=None)
def test_a_damaged_object_is_never_taken_for_whole(
    snapshots: list[bytes], flip: int, data: st.DataObject
) -> None:
    """A changed byte raises or, in the header's idle fields, leaves the content as it was."""
    body = bytearray(render_file(snapshots, sealed_for(snapshots)).objects[0].body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= flip
    try:
        content = b"".join(decompress(chunked(bytes(body), 64)))
    except zlib.error:
        return
    assert content == b"".join(snapshot + b"\n" for snapshot in snapshots)
