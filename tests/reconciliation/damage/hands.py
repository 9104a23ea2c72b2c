"""Hands that reach into a store past its protocol, which can neither overwrite nor delete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import boto3
from azure.storage.blob import ContainerClient
from support.memory_store import MemoryStore
from support.stores import S3_SECRET, Place

from auditstore.destinations import Destination
from auditstore.objects import ObjectInfo, ObjectStore


class Memory(MemoryStore):
    """A store in memory whose ETags are those of the contents, as S3's are."""

    def _info(self, key: str) -> ObjectInfo:
        body = self.objects[key]
        return ObjectInfo(key, len(body), etag=hashlib.md5(body, usedforsecurity=False).hexdigest())


class Hands(Protocol):
    """Opens a store, and writes and deletes what lies in it."""

    destination: Destination

    def open(self) -> ObjectStore:
        """The store as the product sees it."""
        ...

    def write(self, key: str, body: bytes) -> None:
        """Create the object or replace it."""
        ...

    def delete(self, key: str) -> None:
        """Take the object away."""
        ...


class MemoryHands:
    """Of a store in memory, of one's own."""

    def __init__(self) -> None:
        self.destination = Destination("file", "/in-memory")
        self._store = Memory()

    def open(self) -> ObjectStore:
        """The one store."""
        return self._store

    def write(self, key: str, body: bytes) -> None:
        """Into the dictionary."""
        self._store.objects[key] = body

    def delete(self, key: str) -> None:
        """Out of it."""
        del self._store.objects[key]


class _Placed:
    def __init__(self, place: Place) -> None:
        self.destination = place.destination
        self._place = place

    def open(self) -> ObjectStore:
        """The product's own store."""
        return self._place.open()


class FolderHands(_Placed):
    """Of a folder."""

    def write(self, key: str, body: bytes) -> None:
        """As any program does."""
        path = Path(self.destination.bucket, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    def delete(self, key: str) -> None:
        """The file; its folder stays."""
        Path(self.destination.bucket, key).unlink()


class S3Hands(_Placed):
    """Of a bucket, with one client for all that is done."""

    def __init__(self, place: Place, client: Any) -> None:
        super().__init__(place)
        self._client = client

    def write(self, key: str, body: bytes) -> None:
        """Without any condition."""
        self._client.put_object(Bucket=self.destination.bucket, Key=key, Body=body)

    def delete(self, key: str) -> None:
        """For good."""
        self._client.delete_object(Bucket=self.destination.bucket, Key=key)


class AzureHands(_Placed):
    """Of a container, with one client for all that is done."""

    def __init__(self, place: Place, container: ContainerClient) -> None:
        super().__init__(place)
        self._container = container

    def write(self, key: str, body: bytes) -> None:
        """Over whatever is there."""
        self._container.upload_blob(key, body, overwrite=True)

    def delete(self, key: str) -> None:
        """For good."""
        self._container.delete_blob(key)


@contextmanager
def hands_on(place: Place) -> Iterator[Hands]:
    """The hands for a place on any kind of store."""
    if place.kind == "file":
        yield FolderHands(place)
    elif place.kind == "s3":
        client = boto3.client(
            "s3",
            endpoint_url=place.destination.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=S3_SECRET["access_key_id"],
            aws_secret_access_key=S3_SECRET["secret_access_key"],
        )
        try:
            yield S3Hands(place, client)
        finally:
            client.close()
    else:
        secret = place.secret or {}
        with ContainerClient.from_connection_string(
            secret["connection_string"], place.destination.bucket
        ) as container:
            yield AzureHands(place, container)
