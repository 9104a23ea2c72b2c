"""One file, read where nobody knows the outbox."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.dying_stores import recipe_of
from support.memory_store import MemoryStore
from support.stores import Place

from auditstore.reconciliation.decoding import Undecodable, gunzip
from auditstore.reconciliation.reading import LineDigests, Order, Reading, read

CONTENT = b"".join(b"line %d\n" % number for number in range(100))


def sha256(data: bytes) -> bytes:
    """The digest."""
    return hashlib.sha256(data).digest()


def order_of(stored: bytes, content: bytes = CONTENT) -> Order:
    """What asks for the lines of a file that was delivered as ``stored``."""
    return Order(("key",), "lines", sha256(stored), content.count(b"\n"), len(content))


def reading_of(stored: bytes, order: Order) -> Reading:
    """Read one object that holds these bytes."""
    store = MemoryStore()
    store.objects["key"] = stored
    return read(lambda: store, order)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_digests_of_lines(content: bytes, size: int) -> None:
    """Cut anywhere, content gives its lines' digests, and says whether the last has an end."""
    found = LineDigests()
    for start in range(0, len(content), size):
        found.feed(content[start : start + size])
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert found.digests() == b"".join(map(sha256, lines))
    assert len(found) == len(lines)
    assert found.unended == bool(content and not content.endswith(b"\n"))
    assert (found.content(), found.size) == (sha256(content), len(content))


def test_lines() -> None:
    """A file's lines come as their digests, beside those of the file and of its content."""
    stored = gzip.compress(CONTENT)
    lines = b"".join(map(sha256, CONTENT.splitlines()))
    expected = Reading(sha256(stored), len(stored), sha256(CONTENT), 100, lines)
    assert reading_of(stored, order_of(stored)) == expected
    # Compressed by somebody else, it is read a second time, and the same comes of it.
    assert reading_of(stored, order_of(b"other bytes")) == expected


@pytest.mark.parametrize("flag", [0x20, 0x40, 0x80])
def test_what_is_quick_is_not_believed(flag: int) -> None:
    """A header that gzip refuses and the quick decoder takes is no file that could be read."""
    written = gzip.compress(CONTENT)
    damaged = bytearray(written)
    damaged[3] |= flag
    with pytest.raises(Undecodable):
        list(gunzip([bytes(damaged)]))
    assert reading_of(bytes(damaged), order_of(written)).trouble


@given(st.data())
def test_quick_content_is_the_content(data: st.DataObject) -> None:
    """Of what gzip takes, damaged or not, the quick decoder makes the same."""
    stored = bytearray(gzip.compress(data.draw(st.binary(max_size=300))))
    for _ in range(data.draw(st.integers(0, 2))):
        stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    size = data.draw(st.integers(1, 50))
    pieces = [bytes(stored[start : start + size]) for start in range(0, len(stored), size)]
    try:
        content = b"".join(gunzip(pieces))
    except Undecodable:
        return
    assert b"".join(gunzip(pieces, quick=True)) == content


def test_no_object_fills_the_memory() -> None:
    """What holds more lines or more bytes than were sealed is not read to its end."""
    for bomb in (b"\n" * 10_000_000, b"x" * 10_000_000 + b"\n"):
        stored = gzip.compress(bomb)
        found = reading_of(stored, order_of(stored))
        assert found == Reading(trouble="it holds more than was sealed")


def test_what_cannot_be_read_is_said() -> None:
    """Neither damage nor absence is an error of the reader."""
    stored = gzip.compress(CONTENT)
    assert "too early" in reading_of(stored[:-1], order_of(stored)).trouble
    store = MemoryStore()
    assert read(lambda: store, order_of(stored)).trouble == "it is not there"
    store.objects["key"] = stored
    assert read(lambda: store, order_of(stored), lambda: True).trouble


def test_objects_of_one_event_each() -> None:
    """Objects come as the digest of each, in order, and of all, with and without line ends."""
    store = MemoryStore()
    store.objects.update({"a": b"one", "b": b"two"})
    order = Order(("b", "a"), "objects", b"", 2, 8)
    found = read(lambda: store, order)
    assert found == Reading(
        sha256(b"twoone"), 6, sha256(b"two\none\n"), 2, sha256(b"two") + sha256(b"one")
    )
    assert read(lambda: store, replace(order, keys=("b", "c"))).trouble


def test_a_recipe_travels_and_shows_no_secret(s3_place: Place) -> None:
    """A recipe can be pickled, compared and hashed, and its words hold nothing secret."""
    recipe = recipe_of(s3_place)
    there = pickle.loads(pickle.dumps(recipe))  # noqa: S301  # our own
    assert {recipe: 1}[there] == 1
    secret = (s3_place.secret or {})["secret_access_key"]
    assert secret in dict(there.secret).values()
    assert secret not in repr(recipe)
    store = there()
    assert list(store.list("")) == []
    store.close()
