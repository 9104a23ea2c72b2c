"""The servers that a benchmark has for itself: an S3 server with one bucket."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

BUCKET = "bench"
SECRET = {"access_key_id": "bench", "secret_access_key": "bench"}
REGION = "us-east-1"


@contextmanager
def s3_server(port: int) -> Iterator[str]:
    """The address of a moto server with the bucket ``bench``."""
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id="bench",
            aws_secret_access_key="bench", region_name=REGION,
        )  # fmt: skip
        try:
            for _ in range(200):
                try:
                    client.create_bucket(Bucket=BUCKET)
                    break
                except Exception:  # noqa: BLE001  # whatever it says while it starts
                    time.sleep(0.1)
            yield endpoint
        finally:
            process.terminate()
