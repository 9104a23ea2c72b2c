"""Decompressing and splitting, in pieces of any size."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstore.reconciliation.decoding import Lines, Undecodable, gunzip


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(1, 50))
def test_members_in_pieces(members: list[bytes], size: int) -> None:
    """Any number of members in chunks of any size give their content, one after the other."""
    stored = b"".join(gzip.compress(member) for member in members)
    assert b"".join(gunzip(_pieces(stored, size))) == b"".join(members)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 50), st.data())
def test_cut_anywhere(content: bytes, size: int, data: st.DataObject) -> None:
    """A file cut anywhere is undecodable, wherever its chunks end."""
    stored = gzip.compress(content)
    cut = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(Undecodable):
        list(gunzip(_pieces(stored[:cut], size)))


def test_bomb_comes_in_pieces() -> None:
    """Content that is a thousand times its stored size is never held at once."""
    stored = gzip.compress(bytes(64 * 1024 * 1024))
    sizes = [len(piece) for piece in gunzip([stored])]
    assert sum(sizes) == 64 * 1024 * 1024
    assert max(sizes) <= 256 * 1024


@given(st.binary(max_size=300), st.integers(1, 50))
def test_lines(content: bytes, size: int) -> None:
    """Lines end at line feeds only, and their hashes are those of their bytes."""
    splitter = Lines(keep=True)
    lines = [line for piece in _pieces(content, size) for line in splitter.feed(piece)]
    assert splitter.unended == bool(content.split(b"\n")[-1])
    lines += splitter.rest()
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line.content for line in lines] == expected
    assert [line.sha256 for line in lines] == [hashlib.sha256(each).digest() for each in expected]
    assert [line.number for line in lines] == list(range(1, len(expected) + 1))
