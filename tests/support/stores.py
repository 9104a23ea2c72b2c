"""Stores for tests: buckets and containers of their own, on servers that are shared."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from azure.storage.blob import ContainerClient

from auditstore.destinations import Destination
from auditstore.objects import NewObject, ObjectStore, PutResult
from exporters.stores import open_store
from support.azurite import Azurite
from support.processes import python_server

S3_SECRET = {"access_key_id": "AKIATESTTESTTESTTEST", "secret_access_key": "test-secret-key"}
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("listens on http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""
_numbers = itertools.count(1)


@contextmanager
def running_moto() -> Iterator[str]:
    """moto's S3 (and STS) on a free loopback port; yields its URL."""
    with python_server(_MOTO, says="listens on ") as url:
        yield url


def unique_name(word: str) -> str:
    """A bucket name that no other test of any run has."""
    return f"{word}-{next(_numbers)}-{secrets.token_hex(4)}"


def make_bucket(
    endpoint_url: str, name: str | None = None, *, secret: Mapping[str, str] = S3_SECRET
) -> str:
    """An empty bucket on moto."""
    name = name or unique_name("bucket")
    with _s3_client(endpoint_url, secret) as client:
        client.create_bucket(Bucket=name)
    return name


@contextmanager
def _s3_client(endpoint_url: str | None, secret: Mapping[str, str] = S3_SECRET) -> Iterator[Any]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=secret["access_key_id"],
        aws_secret_access_key=secret["secret_access_key"],
    )
    try:
        yield client
    finally:
        client.close()


def make_container(azurite: Azurite, name: str | None = None) -> str:
    """An empty container on Azurite."""
    name = name or unique_name("container")
    with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        client.create_container()
    return name


def new_object(key: str, body: bytes = b"hello\n", **changes: object) -> NewObject:
    """An object to write, with the digest that belongs to its body."""
    settings: dict[str, object] = {"content_type": "text/plain", **changes}
    return NewObject(key=key, body=body, sha256=hashlib.sha256(body).digest(), **settings)  # type: ignore[arg-type]  # names are checked by NewObject itself


def read_all(store: ObjectStore, key: str) -> bytes | None:
    """The whole object, or ``None``."""
    chunks = store.read(key)
    return None if chunks is None else b"".join(chunks)


@dataclass(frozen=True)
class Place:
    """A kind of store that the conformance suite runs over, and how to open parts of it.

    ``missing_code`` is the code of the refusal when the bucket is not there.
    """

    kind: str
    destination: Destination
    secret: dict[str, str] | None
    missing: Destination
    missing_code: str

    def open(self, destination: Destination | None = None) -> ObjectStore:
        """A store of its own on the place (or on another destination, same credential)."""
        region = "us-east-1" if self.kind == "s3" else None
        return open_store(destination or self.destination, region=region, secret=self.secret)


def keep_versions(place: Place) -> None:
    """Let an S3 place keep every version of an object, so that an overwrite leaves a trace."""
    with _s3_client(place.destination.endpoint_url) as client:
        client.put_bucket_versioning(
            Bucket=place.destination.bucket, VersioningConfiguration={"Status": "Enabled"}
        )


def count_versions(place: Place) -> Callable[[str], dict[str, int]]:
    """Counts the versions of each object of an S3 place below a prefix."""

    def count(prefix: str) -> dict[str, int]:
        found: Counter[str] = Counter()
        with _s3_client(place.destination.endpoint_url) as client:
            pages = client.get_paginator("list_object_versions")
            for page in pages.paginate(Bucket=place.destination.bucket, Prefix=f"{prefix}/"):
                found.update(version["Key"] for version in page.get("Versions", []))
        return found

    return count


def race(count: int, call: Callable[[int], PutResult]) -> list[PutResult]:
    """The results of ``call`` from ``count`` threads that start in the same instant."""
    barrier = threading.Barrier(count)

    def run(number: int) -> PutResult:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))
