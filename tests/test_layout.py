"""Keys: nothing in the data leads out of its place, and no two files share one."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from auditstore.errors import ConfigurationError
from auditstore.layout import (
    DEFAULT_TEMPLATE,
    MAX_KEY_BYTES,
    NO_LEAD,
    check_template,
    encode_part,
    event_key,
    file_key,
    key_pattern,
    static_prefix,
)

AT = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
#: Any id that the store keeps: UTF-8 of 1 to 255 bytes, no NUL.
IDS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=255
).filter(lambda text: len(text.encode()) <= 255)
MOMENTS = st.datetimes(
    datetime(2000, 1, 1), datetime(2199, 12, 31),  # noqa: DTZ001  # hypothesis wants them naive
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-11)), timezone(timedelta(hours=5))]),
)  # fmt: skip
HOSTILE = [
    "..", ".", "../../etc/passwd", "/absolute", "a/b", "a\\b", "a b", "a%2Fb", "%no-lead",
    "tab\there",
    "line\nfeed", "\x7f", "\u202eevil", "\U0001f4a9", "e\u0301", "é", "a" * 255, "ü" * 127,
    "{sequence}", "?x=1#y", "~", "CON",
]  # fmt: skip
_FIELDS = ("flow", "date", "year", "month", "day", "hour", "stream", "sequence", "first", "last")


def key_of(template: str = DEFAULT_TEMPLATE, *, prefix: str = "", **changes: object) -> str:
    """The key of some file."""
    settings_: dict[str, object] = {
        "flow_id": "flow-1", "stream_id": 3, "sequence": 7, "first": 100, "last": 200,
        "recorded_at": AT,
    }  # fmt: skip
    return file_key(template, prefix=prefix, **(settings_ | changes))  # type: ignore[arg-type]  # checked by file_key


@st.composite
def templates(draw: st.DrawFn) -> str:
    """Templates that are accepted, the needed fields among any others, in any order."""
    names = draw(st.lists(st.sampled_from(_FIELDS), max_size=5))
    names = draw(st.permutations([*names, "stream", "sequence"]))
    literals = st.text(string.ascii_letters + string.digits + "._-=/+(*[^$", max_size=4)
    template = "".join(draw(literals) + "{" + name + "}" for name in names) + draw(literals)
    assume(not any(segment in {"", ".", ".."} for segment in template.split("/")))
    return template


# --- what data may do to a key --------------------------------------------------------


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_id_stays_one_path_segment(hostile: str) -> None:
    """No id adds a segment, leads upwards or brings a character that needs care."""
    for key in (
        key_of(prefix="some/prefix", flow_id=hostile),
        event_key(prefix="some/prefix", lead_id=hostile, event_id="0" * 24),
    ):
        assert key.startswith("some/prefix/")
        segments = key.split("/")
        assert len(segments) == (6 if "hour=" in key else 4)
        assert not {"", ".", ".."} & set(segments)
        assert set(key) <= set(string.ascii_letters + string.digits + "_.-~%=/")


@given(IDS, IDS)
def test_different_ids_never_share_a_segment(one: str, other: str) -> None:
    """Encoding is one to one, also where ids look like encodings."""
    assert (encode_part(one) == encode_part(other)) == (one == other)
    assert encode_part(encode_part(one)) == encode_part(one) or "%" in encode_part(one)


@given(IDS)
def test_no_lead_has_the_place_of_none(lead: str) -> None:
    """Events without a lead lie where no lead id can lead."""
    assert encode_part(lead) != NO_LEAD
    assert event_key(prefix="", lead_id=None, event_id="e") == f"{NO_LEAD}/e.json"
    assert event_key(prefix="", lead_id="", event_id="e") == f"{NO_LEAD}/e.json"


@given(IDS)
def test_the_longest_ids_fit_beside_the_longest_prefix_of_their_store(flow: str) -> None:
    """A flow id of 255 bytes leaves room for a short prefix; over the limit is refused."""
    longest = key_of(prefix="p", flow_id=flow, stream_id=10**9)
    assert len(longest.encode()) <= MAX_KEY_BYTES
    check_template(DEFAULT_TEMPLATE, prefix="p", flow_id=flow)


def test_a_key_over_the_limit_is_refused() -> None:
    """Exactly 1024 bytes are accepted, 1025 are not, and the error says how many."""
    template = "{stream}-{sequence}"
    own = len("/1000000000-0000000001")
    check_template(template, prefix="p" * (MAX_KEY_BYTES - own), flow_id="f")
    with pytest.raises(ConfigurationError, match="1025 bytes long, over 1024") as caught:
        check_template(template, prefix="p" * (MAX_KEY_BYTES - own + 1), flow_id="f")
    assert "Shorten" in caught.value.hint


# --- templates ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{stream}", "lacks {sequence}"),
        ("{sequence}", "lacks {stream}"),
        ("x", "lacks {stream} and {sequence}"),
        ("{stream}{sequence}{lead}", "unknown field {lead}"),
        ("{stream}{sequence}{}", "unknown field {}"),
        ("{stream}{sequence}{0}", "unknown field {0}"),
        ("{stream}{sequence}{flow.__class__}", "unknown field"),
        ("{stream}{sequence}{flow[0]}", "unknown field"),
        ("{stream!r}{sequence}", "unknown field"),
        ("{stream:>99999999}{sequence}", "unknown field"),
        ("{stream:}{sequence", "malformed"),
        ("{stream}}{sequence}", "malformed"),
        ("/{stream}{sequence}", "path segment"),
        ("{stream}//{sequence}", "path segment"),
        ("{stream}{sequence}/", "path segment"),
        ("../{stream}{sequence}", "path segment"),
        ("{stream}/./{sequence}", "path segment"),
        ("{stream}\\{sequence}", "printable ASCII"),
        ("{stream}\n{sequence}", "printable ASCII"),
        ("é{stream}{sequence}", "printable ASCII"),
    ],
)
def test_an_unsafe_template_is_refused(template: str, says: str) -> None:
    """By none of these could each file have a key of its own, in its own place."""
    with pytest.raises(ConfigurationError) as caught:
        check_template(template, prefix="", flow_id="flow-1")
    assert says in caught.value.message
    assert caught.value.hint


def test_the_default_template_says_all() -> None:
    """Flow, UTC date and hour, stream, sequence and positions are in every name."""
    check_template(DEFAULT_TEMPLATE, prefix="", flow_id="flow-1")
    late = datetime(2026, 5, 6, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    assert key_of(prefix="some/prefix", recorded_at=late) == (
        "some/prefix/flow_id=flow-1/date=2026-05-07/hour=01/"
        "000003-0000000007-0000000000000100-0000000000000200.ndjson.gz"
    )


@given(
    template=templates(), flow=IDS, prefix=st.sampled_from(["", "some/prefix", "a.b+c"]),
    stream=st.integers(1, 10**7), sequence=st.integers(1, 10**10 - 1),
    first=st.integers(1, 10**15), more=st.integers(0, 10**6), at=MOMENTS,
)  # fmt: skip
@settings(deadline=None)
def test_a_pattern_finds_the_number_in_every_key(
    *, template: str, flow: str, prefix: str, stream: int, sequence: int, first: int, more: int,
    at: datetime,
) -> None:  # fmt: skip
    """Whatever the template, a stream's pattern matches its keys and reads their sequence."""
    check_template(template, prefix=prefix, flow_id="f")
    key = key_of(
        template, prefix=prefix, flow_id=flow, stream_id=stream, sequence=sequence, first=first,
        last=first + more, recorded_at=at,
    )  # fmt: skip
    match = key_pattern(template, prefix=prefix, flow_id=flow, stream_id=stream).fullmatch(key)
    assert match
    assert int(match["sequence"]) == sequence
    assert key.startswith(static_prefix(template, prefix=prefix, flow_id=flow, stream_id=stream))


@given(templates(), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**10 - 1),
       st.integers(1, 10**10 - 1))  # fmt: skip
@settings(deadline=None)
def test_two_files_never_share_a_key(
    template: str, stream: int, other_stream: int, sequence: int, other_sequence: int
) -> None:
    """Another stream or another number is another key, all else the same."""
    key = key_of(template, stream_id=stream, sequence=sequence)
    other = key_of(template, stream_id=other_stream, sequence=other_sequence)
    same = (stream, sequence) == (other_stream, other_sequence)
    assert (key == other) == same


@given(st.lists(st.tuples(st.integers(1, 10**6), st.timedeltas(timedelta(0), timedelta(days=40))),
                min_size=2, max_size=30))  # fmt: skip
def test_names_sort_by_sequence(steps: list[tuple[int, timedelta]]) -> None:
    """By the default template, keys in byte order are files in the order of time."""
    keys, position, at = [], 0, AT
    for sequence, (more, later) in enumerate(steps, start=1):
        at += later
        keys.append(
            key_of(sequence=sequence * 97, first=position + 1, last=position + more, recorded_at=at)
        )
        position += more
    assert keys == sorted(keys, key=str.encode)


def test_a_pattern_leaves_others_alone() -> None:
    """Another stream, another flow, another prefix or a foreign object never match."""
    pattern = key_pattern(DEFAULT_TEMPLATE, prefix="p", flow_id="flow-1", stream_id=3)
    assert pattern.fullmatch(key_of(prefix="p"))
    for other in (
        key_of(prefix="p", stream_id=4), key_of(prefix="p", flow_id="flow-2"),
        key_of(prefix="q"), key_of(), key_of(prefix="p") + ".bak", "p/notes.txt",
    ):  # fmt: skip
        assert not pattern.fullmatch(other)


def test_a_long_lead_id_keeps_a_name_that_a_file_system_takes() -> None:
    """Two ids that begin alike stay apart, and the name stays below 255 bytes."""
    one, other = (event_key(prefix="", lead_id="é" * 100 + end, event_id="e") for end in "ab")

    assert one != other
    assert max(len(key.partition("/")[0]) for key in (one, other)) < 255
