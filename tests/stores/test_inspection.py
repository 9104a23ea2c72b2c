"""What a store says of itself, and what it does not say to a credential without the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from support.fake_http_store import Answer, FakeStore, running_fake_store
from support.stores import S3_SECRET, Place, make_bucket

from auditstore.destinations import Destination
from auditstore.errors import StoreRefused, StoreUnavailable
from auditstore.objects import Inspectable, Inspection
from exporters.stores import open_store
from exporters.stores.server_clock import clock_ahead


def inspect(place: Place, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Inspection:
    """Ask the place's store."""
    store = place.open()
    assert isinstance(store, Inspectable)
    try:
        return store.inspect(now)
    finally:
        store.close()


def facts(found: Inspection) -> dict[str, str | None]:
    """The facts by name."""
    return {fact.name: fact.value for fact in found.facts}


def test_every_store_can_be_asked(place: Place) -> None:
    """A store on this machine has this machine's clock; a folder has none of its own."""
    found = inspect(place)
    if place.kind == "file":
        assert found.clock_ahead is None
    else:
        assert found.clock_ahead is not None
        assert abs(found.clock_ahead) < 6
    expected: dict[str, dict[str, str | None]] = {
        "s3": {"versioning": "off", "object lock": "off"},
        "azure": {"versioning": None, "immutability": "off"},
    }
    assert facts(found) == expected.get(place.kind, facts(found))
    assert place.kind != "file" or str(facts(found)["free space"]).endswith(" GiB")


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_host_whose_clock_is_off_is_told_by_how_much(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """From the Date header of any answer."""
    place = request.getfixturevalue(f"{kind}_place")
    found = inspect(place, lambda: datetime.now(UTC) - timedelta(hours=1))
    assert found.clock_ahead is not None
    assert 3590 < found.clock_ahead < 3610


def test_versions_and_a_lock_are_seen(moto_server: str) -> None:
    """With the retention that new objects get."""
    bucket = make_bucket(moto_server)
    client = boto3.client("s3", endpoint_url=moto_server, region_name="us-east-1",
                          aws_access_key_id="x", aws_secret_access_key="y")  # fmt: skip
    locked = f"{bucket}-locked"
    client.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    client.put_object_lock_configuration(
        Bucket=locked,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    client.close()
    for name, expected in (
        (bucket, {"versioning": "suspended", "object lock": "off"}),
        (locked, {"versioning": "on", "object lock": "on, compliance for 30 days"}),
    ):
        place = Place("s3", Destination("s3", name, "", moto_server), S3_SECRET,
                      Destination("s3", name), "")  # fmt: skip
        assert facts(inspect(place)) == expected


@pytest.fixture
def s3_server() -> Iterator[FakeStore]:
    """A server that answers as it is told."""
    with running_fake_store("s3") as server:
        yield server


def ask(server: FakeStore, answer: Answer, *, times: int = 2) -> Inspection:
    """Inspect a bucket on it; every question gets this answer."""
    server.script = [answer] * times
    destination = Destination("s3", "some-bucket", "", server.url)
    store = open_store(destination, region="us-east-1", secret=S3_SECRET)
    assert isinstance(store, Inspectable)
    try:
        return store.inspect(lambda: datetime.now(UTC))
    finally:
        store.close()


def test_what_may_not_be_asked_is_not_known(s3_server: FakeStore) -> None:
    """The permission that would tell is named, and the refusal's date is good enough."""
    found = ask(s3_server, Answer(403, "AccessDenied"))
    assert [(fact.value, fact.needs) for fact in found.facts] == [
        (None, "s3:GetBucketVersioning"), (None, "s3:GetBucketObjectLockConfiguration"),
    ]  # fmt: skip
    assert found.clock_ahead is not None


def test_a_server_without_the_feature_says_so(s3_server: FakeStore) -> None:
    """Many S3 servers have no Object Lock."""
    found = ask(s3_server, Answer(501, "NotImplemented"))
    assert set(facts(found).values()) == {"not offered by this server"}


def test_trouble_is_trouble_here_too(s3_server: FakeStore) -> None:
    """A missing bucket and a server that is away are no facts about protection."""
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        ask(s3_server, Answer(404, "NoSuchBucket"))
    with pytest.raises(StoreUnavailable):
        ask(s3_server, Answer(503, "SlowDown"), times=4)


def test_a_date_that_says_nothing_gives_no_clock() -> None:
    """None, or one that came after so long that it might be of any moment."""
    start = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
    said = "Tue, 24 Nov 2026 12:00:05 GMT"
    assert clock_ahead(said, start, start + timedelta(seconds=1)) == 5.0
    assert clock_ahead(said, start, start + timedelta(seconds=11)) is None
    assert clock_ahead(None, start, start) is None
    assert clock_ahead("yesterday", start, start) is None
