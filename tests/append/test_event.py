"""What is taken as an event, byte for byte, and what is refused with field and reason."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.snapshots import event_id, fields, snapshot

from auditstore.events import Event, FieldRefused, first_id_at, id_time

ID = "6924f1c0a1b2c3d4e5f60718"


def raw(text: str) -> bytes:
    """A valid event with ``text`` as the raw JSON of one unknown field."""
    return b'{"id":"%s","vars":{"flow":{"id":"f"}},"x":%s}' % (ID.encode(), text.encode())


def test_files_an_event_under_its_own_fields() -> None:
    """Id, flow, lead, type, outcome, reason, step and times come from where they are documented."""
    event = Event.from_json(snapshot(id=ID, reason="no budget"))

    assert (event.event_id, event.flow_id, event.lead_id) == (ID, "flow-1", "lead-1")
    assert (event.type, event.outcome, event.reason) == ("recipient", "success", "no budget")
    assert event.step_id == "step-1"
    assert event.started_at == datetime(2025, 11, 24, 16, 0, 0, 123000, tzinfo=UTC)
    assert event.ended_at == datetime(2025, 11, 24, 16, 0, 0, 456000, tzinfo=UTC)
    assert event.created_at == datetime.fromtimestamp(int(ID[:8], 16), UTC)


@pytest.mark.parametrize(
    "text",
    [
        '"plain"', '"\\u0000"', '"\\ud83d"', '"\\ud83d\\ude00"', '"ü\u2028"', "1e999", "-0.0",
        "123456789012345678901234567890", '{"a":1,"a":2}', "  [ 1 ,2 ]  ", "0.1000000000000000055",
        "9" * 5000,
    ],
)  # fmt: skip
def test_keeps_odd_but_valid_json_byte_for_byte(text: str) -> None:
    """Whatever JSON allows survives unaltered, a lone surrogate escape and 1e999 included."""
    payload = raw(text)

    event = Event.from_json(payload)

    assert event.payload == payload
    assert event.sha256 == hashlib.sha256(payload).digest()


def test_makes_raw_line_breaks_spaces_before_hashing() -> None:
    """Pretty-printed JSON becomes one line of the same length and meaning."""
    pretty = json.dumps(fields(), indent=2).replace("\n", "\r\n").encode()

    event = Event.from_json(pretty)

    assert len(event.payload) == len(pretty)
    assert b"\n" not in event.payload
    assert b"\r" not in event.payload
    assert json.loads(event.payload) == json.loads(pretty)
    assert event.sha256 == hashlib.sha256(event.payload).digest()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_bytes(kind: type) -> None:
    """bytes, bytearray and memoryview are the same event."""
    payload = snapshot()

    assert Event.from_json(kind(payload)).payload == payload


def test_serialises_mappings_compactly_and_nested_ones_too() -> None:
    """A mapping that is no dict, at any depth, is written as an object."""
    event = Event.from_mapping(
        MappingProxyType(fields(extra=MappingProxyType({"a": [1, None, 2.5]})))
    )

    assert json.loads(event.payload)["extra"] == {"a": [1, None, 2.5]}
    assert b": " not in event.payload


@pytest.mark.parametrize(
    ("payload", "field", "reason"),
    [
        (b"", "payload", "not JSON"),
        (b"{", "payload", "not JSON"),
        (b"[]", "payload", "not a JSON object"),
        (b'"x"', "payload", "not a JSON object"),
        (b"\xff{}", "payload", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "payload", "not JSON"),
        (raw('"\xff"').replace("ÿ".encode(), b"\xff"), "payload", "not UTF-8"),
        (raw("NaN"), "payload", "NaN is not JSON"),
        (raw("-Infinity"), "payload", "-Infinity is not JSON"),
        (raw('"a\nb"'), "payload", "not JSON"),
        (raw("[" * 100_000 + "]" * 100_000), "payload", "nested too deeply"),
        (raw("1") + b"x", "payload", "not JSON"),
        (snapshot(id=None), "id", "missing"),
        (snapshot(id=7), "id", "24 hex digits"),
        (snapshot(id="abc"), "id", "24 hex digits"),
        (snapshot(id=ID + "0"), "id", "24 hex digits"),
        (snapshot(id="z" * 24), "id", "24 hex digits"),
        (snapshot(id="\u0661" * 24), "id", "24 hex digits"),
        (snapshot(flow=None), "vars.flow.id", "missing"),
        (snapshot(flow=""), "vars.flow.id", "missing"),
        (snapshot(vars="x"), "vars.flow.id", "missing"),
        (snapshot(vars={"flow": {"id": 5}}), "vars.flow.id", "missing"),
        (snapshot(flow="a\0b"), "vars.flow.id", "NUL"),
        (snapshot(flow="x" * 256), "vars.flow.id", "256 bytes"),
        (snapshot(lead="é" * 128), "vars.lead.id", "256 bytes"),
        (snapshot(lead="\ud800"), "vars.lead.id", "not UTF-8"),
    ],
    # Not by the payload: ids in it differ from run to run.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_what_cannot_be_stored(payload: bytes, field: str, reason: str) -> None:
    """The refusal names the field and the reason."""
    with pytest.raises(FieldRefused) as refused:
        Event.from_json(payload)

    assert refused.value.field == field
    assert reason in refused.value.reason


@dataclass
class Hidden:
    """A type that a serialiser might take apart by itself."""

    x: float


@pytest.mark.parametrize(
    "value",
    [
        Hidden(float("nan")),
        float("nan"),
        float("inf"),
        {"deep": [None, float("nan")]},
        {1: 2},
        b"x",
        2**70,
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refuses_mappings_that_json_cannot_say(value: object) -> None:
    """NaN is not written as null, and no type is guessed."""
    with pytest.raises(FieldRefused, match="payload"):
        Event.from_mapping(fields(x=value))


def test_refuses_an_event_over_the_limit() -> None:
    """The limit counts the snapshot's bytes, and one at the limit passes."""
    payload = snapshot()

    assert Event.from_json(payload, max_bytes=len(payload)).payload == payload
    with pytest.raises(FieldRefused, match=f"over the limit of {len(payload) - 1} bytes"):
        Event.from_json(payload, max_bytes=len(payload) - 1)


def test_takes_flow_and_lead_from_the_caller_when_they_agree() -> None:
    """The caller's ids stand in for missing ones; contradicting ids are refused."""
    bare = snapshot(flow=None, lead=None)

    event = Event.from_json(bare, flow_id="mine", lead_id="its")
    assert (event.flow_id, event.lead_id) == ("mine", "its")
    assert Event.from_json(snapshot(), flow_id="flow-1").flow_id == "flow-1"
    with pytest.raises(FieldRefused, match="the caller says"):
        Event.from_json(snapshot(), flow_id="other")


def test_leaves_what_it_cannot_file_in_the_snapshot() -> None:
    """Unknown types are taken, and fields of another kind than documented are not filed."""
    event = Event.from_json(
        snapshot(
            type="a-future-type", outcome=5, reason="a\0b\ud800", step_id=None, lead=None,
            start_timestamp="yesterday", end_timestamp=10**17,
        )
    )  # fmt: skip

    assert (event.type, event.outcome, event.step_id) == ("a-future-type", None, None)
    assert (event.started_at, event.ended_at, event.lead_id) == (None, None, None)
    assert event.reason is not None
    assert event.reason.startswith("a\ufffdb\ufffd")


def test_one_spelling_of_an_id() -> None:
    """Upper-case hex is the same ObjectId, and sorts with the others."""
    assert Event.from_json(snapshot(id=ID.upper())).event_id == ID


@given(st.integers(0, 2**32 - 1), st.integers(0, 999_999))
def test_time_bounds_of_ids(seconds: int, micros: int) -> None:
    """An id lies at or after a moment exactly when its second does."""
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
    bound = first_id_at(moment)

    for other in (seconds - 1, seconds, seconds + 1):
        if 0 <= other < 2**32:
            made = event_id(at=other)
            assert (made >= bound) == (id_time(made) >= moment)


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
            | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=4,
    )
)  # fmt: skip
def test_any_unknown_fields_survive(extra: dict[str, object]) -> None:
    """Whatever fields an event carries besides, it reads back the same."""
    event = Event.from_mapping(extra | fields())

    assert json.loads(event.payload) == json.loads(json.dumps(extra | json.loads(event.payload)))
    assert Event.from_json(event.payload) == event
