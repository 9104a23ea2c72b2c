"""Destinations: what a URL names, what is refused, and when two of them collide."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstore.destinations import Destination, parse_destination
from auditstore.errors import ConfigurationError

SEGMENT = (
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/?#\\"),
        min_size=1,
        max_size=12,
    )
    .filter(lambda text: text not in {".", ".."})
    .filter(lambda text: not text.endswith("."))
)
PREFIX = st.lists(SEGMENT, max_size=4).map("/".join)
NAME = st.text(string.ascii_lowercase + string.digits, min_size=3, max_size=63).filter(
    lambda name: not name.isdigit()
)
ENDPOINT = st.sampled_from(
    [None, "http://127.0.0.1:9000", "https://store.example", "https://s3.eu-west-1.amazonaws.com"]
)
CLOUD = st.builds(Destination, st.sampled_from(["s3", "azure"]), NAME, PREFIX, ENDPOINT)
FOLDER = st.lists(SEGMENT, min_size=1, max_size=4).map(
    lambda parts: Destination("file", "/" + "/".join(parts))
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://my.bucket/a/b", Destination("s3", "my.bucket", "a/b")),
        ("s3://bucket", Destination("s3", "bucket", "")),
        ("s3://bucket/", Destination("s3", "bucket", "")),
        ("azure://events/a/", Destination("azure", "events", "a")),
        ("file:///data/audit/", Destination("file", "/data/audit")),
        ("file://localhost/data", Destination("file", "/data")),
        ("file:///my%20data/%C3%A4", Destination("file", "/my data/ä")),
        ("s3://bucket/my%20data", Destination("s3", "bucket", "my%20data")),
    ],
)
def test_what_a_url_names(url: str, expected: Destination) -> None:
    """A URL names bucket and prefix, or a folder."""
    assert parse_destination(url) == expected


@given(st.one_of(CLOUD, FOLDER))
def test_a_url_names_its_destination_again(destination: Destination) -> None:
    """Every destination's URL parses to it."""
    assert parse_destination(destination.url, destination.endpoint_url) == destination


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket/prefix",
        "gs://bucket/prefix",
        "S3://bucket",
        "s3:/bucket",
        "s3://",
        "s3:///prefix",
        "s3://ab",
        "s3://" + "a" * 64,
        "s3://Bucket",
        "s3://my_bucket",
        "s3://-bucket",
        "s3://bucket.",
        "s3://my..bucket",
        "s3://192.168.1.1",
        "s3://bucket:9000/x",
        "azure://my.container",
        "azure://my--container",
        "azure://$root",
        "s3://bucket//x",
        "s3://bucket/a//b",
        "s3://bucket/a//",
        "s3://bucket/../x",
        "s3://bucket/a/./b",
        "s3://bucket/a\nb",
        "s3://bucket/a\x7fb",
        "s3://bucket/a\x85b",
        "s3://bucket/a\ud800",
        " s3://bucket/a\t",
        "s3://bucket/" + "ä" * 257,
        "azure://container/a./b",
        "azure://container/a\\b",
        "file://data",
        "file:///",
        "file://",
        "file://server/share",
        "file:///a/../b",
        "file:///a/%2e%2e/b",
        "file:///a//b",
        "file:///a%00b",
        "file:///a%FF",
    ],
)
def test_refused_urls(url: str) -> None:
    """What no store could hold, or what could leave its place, is refused with a hint."""
    with pytest.raises(ConfigurationError) as caught:
        parse_destination(url)
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/x",
        "s3://bucket/x?secret=hunter2",
        "s3://bucket/x#hunter2",
        "azure://container?sig=hunter2",
        "file:///folder?hunter2",
    ],
)
def test_secrets_do_not_belong_into_urls(url: str) -> None:
    """User, query and fragment are refused, and the message does not repeat them."""
    with pytest.raises(ConfigurationError) as caught:
        parse_destination(url)
    assert "hunter2" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "127.0.0.1:9000",
        "ftp://host",
        "http://",
        "http://user:hunter2@host",
        "http://host?x=hunter2",
        "http://host#",
        "http://host:port",
        "http://ho st",
        "http://[::1",
        "http://host\n",
    ],
)
def test_refused_endpoints(endpoint: str) -> None:
    """An endpoint URL is plain HTTP or HTTPS with a host, and holds no secret."""
    with pytest.raises(ConfigurationError) as caught:
        parse_destination("s3://bucket", endpoint)
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_folder_has_no_endpoint() -> None:
    """An endpoint URL for a folder is a mistake that is told."""
    with pytest.raises(ConfigurationError):
        parse_destination("file:///data", "http://host")


def test_endpoints_in_one_spelling() -> None:
    """Case, default port and a slash at the end make no other place."""
    one = parse_destination("s3://bucket/a", "HTTPS://Store.Example:443/")
    other = parse_destination("s3://bucket/a", "https://store.example")
    assert one == other
    assert one.endpoint_url == "https://store.example"
    assert parse_destination("s3://bucket", "http://[::1]:9000").endpoint_url == "http://[::1]:9000"


def test_amazons_endpoints_are_one_server() -> None:
    """A bucket is the same by Amazon's default, regional or dual-stack endpoint."""
    plain = parse_destination("s3://bucket/a")
    for endpoint in (
        "https://s3.eu-west-1.amazonaws.com",
        "https://s3.dualstack.eu-west-1.amazonaws.com",
    ):
        regional = parse_destination("s3://bucket/a", endpoint)
        assert regional.is_aws
        assert regional.location == plain.location
    elsewhere = parse_destination("s3://bucket/a", "https://amazonaws.com.example")
    assert not elsewhere.is_aws
    assert not elsewhere.overlaps(plain)
    china = parse_destination("s3://bucket/a", "https://s3.cn-north-1.amazonaws.com.cn")
    assert china.is_aws
    assert not china.overlaps(plain)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("s3://bucket/a", "s3://bucket/a", True),
        ("s3://bucket/a", "s3://bucket/a/b", True),
        ("s3://bucket", "s3://bucket/a", True),
        ("s3://bucket/a", "s3://bucket/ab", False),
        ("s3://bucket/a", "s3://other/a", False),
        ("s3://bucket/a", "azure://bucket/a", False),
        ("file:///data/a", "file:///data/a/", True),
        ("file:///data/a", "file:///data/a/b", True),
        ("file:///data/a", "file:///data/ab", False),
        ("file:///data/a", "s3://data/a", False),
    ],
)
def test_overlaps(one: str, other: str, *, expected: bool) -> None:
    """Places overlap when equal, or when one lies below the other at a slash."""
    first, second = parse_destination(one), parse_destination(other)
    assert first.overlaps(second) is expected
    assert second.overlaps(first) is expected


@given(st.one_of(CLOUD, FOLDER), st.one_of(CLOUD, FOLDER))
def test_overlapping_is_mutual(one: Destination, other: Destination) -> None:
    """Order does not matter; a place overlaps itself; one location always overlaps."""
    assert one.overlaps(one)
    assert one.overlaps(other) is other.overlaps(one)
    if one.location == other.location:
        assert one.overlaps(other)


@given(CLOUD, SEGMENT)
def test_what_lies_below_overlaps(one: Destination, segment: str) -> None:
    """Anything below a prefix overlaps it; a sibling that only begins alike does not."""
    below = Destination(
        one.scheme, one.bucket, f"{one.prefix}/{segment}".lstrip("/"), one.endpoint_url
    )
    assert one.overlaps(below)
    assert one.location != below.location
    if one.prefix:
        beside = Destination(one.scheme, one.bucket, one.prefix + "x", one.endpoint_url)
        assert not one.overlaps(beside)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Nothing but a destination or a configuration error comes of any text."""
    for url in (text, "s3://" + text, "s3://bucket/" + text, "file:///" + text):
        try:
            destination = parse_destination(url)
        except ConfigurationError:
            continue
        assert parse_destination(destination.url) == destination
