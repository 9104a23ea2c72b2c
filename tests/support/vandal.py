"""Deletes and overwrites objects past the store's protocol, which can do neither."""

from __future__ import annotations

from pathlib import Path

import boto3
from azure.storage.blob import ContainerClient

from support.stores import Place


class Vandal:
    """What somebody with too many rights does to a bucket, a container or a folder."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bucket = place.destination.bucket

    def delete(self, key: str) -> None:
        """Take the object away."""
        if self._place.kind == "file":
            Path(self._bucket, key).unlink()
        elif self._place.kind == "s3":
            self._s3().delete_object(Bucket=self._bucket, Key=key)
        else:
            with self._container() as container:
                container.delete_blob(key)

    def write(self, key: str, body: bytes) -> None:
        """Create the object or replace it."""
        if self._place.kind == "file":
            path = Path(self._bucket, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        elif self._place.kind == "s3":
            self._s3().put_object(Bucket=self._bucket, Key=key, Body=body)
        else:
            with self._container() as container:
                container.upload_blob(key, body, overwrite=True)

    def read(self, key: str) -> bytes:
        """The object's bytes."""
        store = self._place.open()
        try:
            chunks = store.read(key)
            assert chunks is not None, key
            return b"".join(chunks)
        finally:
            store.close()

    def _s3(self):  # type: ignore[no-untyped-def]  # boto3 makes its clients at run time
        secret = self._place.secret or {}
        return boto3.client(
            "s3",
            endpoint_url=self._place.destination.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=secret["access_key_id"],
            aws_secret_access_key=secret["secret_access_key"],
        )

    def _container(self) -> ContainerClient:
        secret = self._place.secret or {}
        return ContainerClient.from_connection_string(secret["connection_string"], self._bucket)
