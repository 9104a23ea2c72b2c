"""Streams with one credential and one server share one client, for as long as any needs it."""

from __future__ import annotations

from dataclasses import replace

from support.stores import S3_SECRET, Place, new_object, read_all

from exporters.stores import open_store
from exporters.stores.s3 import S3Store


def opened(place: Place, prefix: str = "p", **changes: str) -> S3Store:
    """A store on the place, with its secret changed if asked."""
    store = open_store(
        replace(place.destination, prefix=prefix), region="us-east-1",
        secret={**S3_SECRET, **changes},
    )  # fmt: skip
    assert isinstance(store, S3Store)
    return store


def test_the_client_is_shared_and_closed_by_the_last(s3_place: Place) -> None:
    """One that closes, also twice, takes nothing from another."""
    one, two = opened(s3_place, "one"), opened(s3_place, "two")
    assert one._client is two._client
    one.close()
    one.close()
    assert two.put_if_absent(new_object("two/key")).created
    assert read_all(two, "two/key") == b"hello\n"
    first = two._client
    two.close()
    three = opened(s3_place)
    assert three._client is not first
    assert read_all(three, "two/key") == b"hello\n"
    three.close()


def test_another_secret_or_role_has_a_client_of_its_own(s3_place: Place) -> None:
    """A credential that was rotated is never mixed up with the old one."""
    stores = [
        opened(s3_place), opened(s3_place, secret_access_key="another"),
        opened(s3_place, session_token="t"),
    ]  # fmt: skip
    assert len({id(store._client) for store in stores}) == 3
    for store in stores:
        store.close()


def test_the_environment_s_own_chain_is_asked_anew(s3_place: Place) -> None:
    """Its keys may have changed since another stream was opened."""
    stores = [open_store(s3_place.destination, region="us-east-1") for _ in range(2)]
    clients = {id(store._client) for store in stores if isinstance(store, S3Store)}
    assert len(clients) == 2
    for store in stores:
        store.close()
