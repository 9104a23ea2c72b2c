"""The `/firehose` check against real servers of S3 and Azure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from support.azurite import Azurite
from support.stores import S3_SECRET, make_bucket, make_container

from auditstore import credentials
from auditstore.destinations import Destination
from auditstore.objects import ObjectStore
from auditstore.vault import Vault
from exporters.stores import open_store

Refusal = Callable[..., dict[str, Any]]


def keys_of(store: ObjectStore) -> list[str]:
    """The keys in a store."""
    try:
        return [each.key for each in store.list("")]
    finally:
        store.close()


def test_s3_with_a_secret_in_the_body(client: httpx.Client, moto_server: str) -> None:
    """An object lies under the prefix afterwards; without one, only the bucket is asked for."""
    bucket = make_bucket(moto_server)
    place = Destination("s3", bucket, "", moto_server)
    asked = {"service": "aws", "bucket": bucket, "prefix": "a/b", "flow_id": "f1",
             "endpoint_url": moto_server} | S3_SECRET  # fmt: skip
    only = client.post("/firehose", json=asked | {"verification_file": False})
    assert only.json() == {"validated": True, "verification_file": False}
    assert keys_of(open_store(place, region=None, secret=S3_SECRET, options={})) == []
    said = client.post("/firehose", json=asked).json()
    key = said.pop("verification_key")
    assert said == {"validated": True, "verification_file": True}
    assert key.startswith("a/b/auditstore_verification_f1_")
    assert key in keys_of(open_store(place, region=None, secret=S3_SECRET, options={}))


def test_what_does_not_work_is_said_in_words(client: httpx.Client, moto_server: str) -> None:
    """A bucket that is not there: not validated, with the store's own word."""
    said = client.post("/firehose", json={
        "bucket": "no-such-bucket", "endpoint_url": moto_server
    } | S3_SECRET).json()  # fmt: skip
    assert (said["validated"], said["verification_file"]) == (False, False)
    assert said["code"] == "NoSuchBucket"
    assert "no-such-bucket" in said["message"]
    assert said["hint"]


def test_azure_knows_the_prefix_too(client: httpx.Client, azurite_server: Azurite) -> None:
    """LeadConduit's own check ignores it."""
    container = make_container(azurite_server)
    said = client.post("/firehose", json={
        "service": "azure", "bucket": container, "prefix": "p",
        "connection_string": azurite_server.connection_string,
    }).json()  # fmt: skip
    assert said["validated"], said
    assert said["verification_key"].startswith("p/auditstore_verification_")


def test_the_query_takes_a_kept_credential_and_no_secret(
    engine: sa.Engine, vault: Vault, client: httpx.Client, moto_server: str, refused: Refusal
) -> None:
    """What was given wrongly is not repeated in the answer."""
    bucket = make_bucket(moto_server)
    with engine.begin() as connection:
        credentials.add(
            connection, vault, name="s", kind="s3", secret=dict(S3_SECRET), actor="test"
        )
    asked = {"bucket": bucket, "endpoint_url": moto_server}
    found = client.get("/firehose", params=asked | {"credential_id": "1"})
    assert found.json()["validated"] is True, found.text
    answer = client.get("/firehose", params=asked | S3_SECRET)
    refused(answer, 422)
    assert S3_SECRET["secret_access_key"] not in answer.text
    refused(client.get("/firehose", params=asked | {"credential_id": "9"}), 422)
    for wrong in ({"service": "azure", "credential_id": "1"}, S3_SECRET | {"credential_id": "1"}):
        refused(client.post("/firehose", json=asked | wrong), 422)


@pytest.mark.parametrize("bucket", ["ab", "A-bucket", "-x-", "a" * 64, "a b"])
def test_a_name_that_no_bucket_has(client: httpx.Client, refused: Refusal, bucket: str) -> None:
    """Refused before anything is asked of a store."""
    said = refused(client.post("/firehose", json={"bucket": bucket}), 422)
    assert said["errors"][0]["field"] == "body.bucket"
