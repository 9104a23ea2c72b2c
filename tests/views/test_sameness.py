"""One content in many spellings, and the names of what differs."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditstore.reconciliation.views import sameness

SAME = [
    (b'{"a": 1, "b": 2}', b'{"b":2,"a":1}'), (b'{"a": 1}', b'{"a": 1.0}'),
    (b'{"a": 100}', b'{"a": 1e2}'), (b'{"a": "\\u00e9"}', '{"a": "\u00e9"}'.encode()),
    (b'{"a": 0}', b'{"a": -0.0}'), (b'{"a": "\\ud800"}', b'{ "a":"\\uD800" }'),
]  # fmt: skip
OTHER = [
    (b'{"a": 1}', b'{"a": "1"}', ["a"]), (b'{"a": null}', b"{}", ["a"]),
    (b'{"a": true}', b'{"a": 1}', ["a"]), (b'{"a": [1, 2]}', b'{"a": [2, 1]}', ["a[0]", "a[1]"]),
    (b'{"a": [1]}', b'{"a": [1, 2]}', ["a"]),
    (b'{"n": 123456789012345678901}', b'{"n": 123456789012345678902}', ["n"]),
    (b'{"n": 0.1}', b'{"n": 0.10000000000000000001}', ["n"]),
    (b'{"a": 1, "a": 2}', b'{"a": 2}', [""]), (b'{"a": {"#": "1e0"}}', b'{"a": 1}', ["a"]),
    (b'{"v": {"l": {"x": 1, "y": 2}}}', b'{"v": {"l": {"x": 1, "y": 3}, "z": 1}}',
     ["v.l.y", "v.z"]),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings(one: bytes, other: bytes) -> None:
    """Order of names, escapes, spaces and the spelling of a number's value make no difference."""
    assert sameness.digest(one) == sameness.digest(other) is not None
    assert sameness.differing_fields(one, other) == []


@pytest.mark.parametrize(("one", "other", "fields"), OTHER)
def test_differences(one: bytes, other: bytes, fields: list[str]) -> None:
    """Types, digits, order in lists and repeated names do, and are named by their paths."""
    assert sameness.digest(one) != sameness.digest(other)
    assert sameness.differing_fields(one, other) == fields


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=4)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", "#", "##", ".a", ""]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=2), VALUES), st.dictionaries(st.text(max_size=2), VALUES))
def test_digest_and_differences_agree(one: dict[str, object], other: dict[str, object]) -> None:
    """Equal digests exactly where no field differs; another spelling of itself is equal."""
    left, right = json.dumps(one).encode(), json.dumps(other).encode()
    assert (sameness.digest(left) == sameness.digest(right)) == (
        sameness.differing_fields(left, right) == []
    )
    respelled = json.dumps(one, indent=1, sort_keys=True, ensure_ascii=False)
    assert sameness.digest(left) == sameness.digest(respelled.encode(errors="surrogatepass"))


def test_what_cannot_be_taken_apart() -> None:
    """Deeper than the parser goes nobody says that it is equal."""
    deep = b"[" * 5000 + b"]" * 5000
    assert sameness.digest(deep) is None
    assert sameness.differing_fields(deep, b"[]") is None
    assert "cannot be taken apart" in sameness.in_words(None)


def test_columns() -> None:
    """A cell tells no type; empty stands for nothing, and a dotted path may be a name itself."""
    whole = orjson.dumps({
        "type": "source", "ms": 12, "cap_reached": False, "gone": None, "list": [1, {"b": "x"}],
        "vars": {"lead": {"email": "a@b.c", "a.b": 1}},
    })  # fmt: skip
    row = {
        "type": "source", "ms": "12.0", "cap_reached": "False", "gone": "", "absent": "",
        "list": '[1.0, {"b":"x"}]', "list.1.b": "x", "vars.lead.email": "a@b.c",
        "vars.lead.a.b": "1",
    }  # fmt: skip
    assert sameness.differing_columns(orjson.dumps(row), whole) == []
    wrong = dict.fromkeys(row, "other")
    assert sameness.differing_columns(orjson.dumps(wrong), whole) == sorted(row)


def test_many_fields_are_cut_short() -> None:
    """A sentence names the first of them and counts the rest."""
    words = sameness.in_words([f"f{number:02}" for number in range(25)])
    assert words.endswith("f19 and 5 more")
