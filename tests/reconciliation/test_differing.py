"""The fields in which two snapshots differ, by path."""

from __future__ import annotations

import json

import pytest

from auditstore.reconciliation.differing import SHOWN, differences


def told(expected: bytes, found: bytes, *, values: bool = False) -> str:
    """The differences in words."""
    return str(differences(expected, found, values=values))


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        (b'{"a":{"b":1}}', b'{"a":{"b":2}}', "a.b changed (number to number)"),
        (b'{"a":1}', b'{"a":1,"b":null}', "b added (null)"),
        (b'{"a":[1,{"b":[]}]}', b'{"a":[1]}', "a[1] removed (object)"),
        (b'{"a":[1,{"b":"x"}]}', b'{"a":[1,{"b":{}}]}', "a[1].b changed (text to object)"),
        (b'{"a":1}', b'{"a":true}', "a changed (number to boolean)"),
        (b'{"a":1}', b'{"a":1.0}', "a changed (number to number)"),
        (b'{"a.b":{"":1}}', b'{"a.b":{"":2}}', '["a.b"][""] changed (number to number)'),
        (b"{}", b"[]", "(the whole snapshot) changed (object to array)"),
        (b'{"a":1}', b'{ "a": 1 }', "only the spelling differs"),
        (b'{"a":"\\ud800"}', b'{"a":"\\ud801"}', "a changed (text to text)"),
        (b'{"a":1}', b"{oops", "cannot be taken apart"),
    ],
)  # fmt: skip
def test_each_smallest_part_is_named(expected: bytes, found: bytes, words: str) -> None:
    """By its path, with what became of it, and what kind of value stands on each side."""
    assert words in told(expected, found)


def test_values_are_masked_unless_asked_for() -> None:
    """Without asking nothing of a value is told, whichever side it is on; with it, both are."""
    one, other = b'{"email":"ann@example.com","x":1}', b'{"email":"bob@example.com","y":"secret"}'

    masked = differences(one, other)
    shown = differences(one, other, values=True)

    assert "example.com" not in repr(masked)
    assert "secret" not in repr(masked)
    assert 'email changed ("ann@example.com" to "bob@example.com")' in str(shown)
    assert shown.masked() == masked


def test_deep_and_wide_snapshots_are_bounded() -> None:
    """Depth beyond Python's own limit is walked; beyond the first fields the others are counted."""
    deep = b'{"a":' * 1000 + b"%d" + b"}" * 1000
    assert "a.a.a" in told(deep % 1, deep % 2)
    wide = [json.dumps({f"f{n}": side for n in range(200)}).encode() for side in (1, 2)]
    found = differences(*wide)
    assert (len(found.changes), found.left_out) == (SHOWN, 200 - SHOWN)


def test_what_cannot_be_written_is_escaped() -> None:
    """A lone surrogate, in a name or a value, becomes an escape: reports are UTF-8."""
    found = told(b'{"\\ud800":"\\ud800"}', b'{"\\ud800":"\\udfff"}', values=True)
    found.encode()
    assert "ud800" in found
