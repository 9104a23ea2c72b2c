"""S3 Inventory as Amazon lays it out: a manifest, and files of rows in CSV or Parquet.

moto makes none by itself; the layout is that of the user guide, "Locating your inventory list".
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
from pyarrow import parquet

from auditstore.objects import ObjectInfo

AS_OF = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
COLUMNS = ("Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "ETag")
_PARQUET = ("bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "e_tag")

Row = tuple[str, str, str, bool, bool, int | None, str]


def row(bucket: str, info: ObjectInfo, *, latest: bool = True, deleted: bool = False) -> Row:
    """An object, or an old version of one."""
    return (bucket, info.key, "v1", latest, deleted, info.size, info.etag or "")


def csv_file(rows: Iterable[Row]) -> bytes:
    """Without a head line, keys URL-encoded, everything quoted."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for bucket, key, version, latest, deleted, size, etag in rows:
        writer.writerow([
            bucket, quote_plus(key, safe="/"), version, str(latest).lower(), str(deleted).lower(),
            "" if size is None else size, etag,
        ])  # fmt: skip
    return gzip.compress(text.getvalue().encode())


def parquet_file(rows: Sequence[Row]) -> bytes:
    """Keys as they are."""
    columns = zip(*rows, strict=True) if rows else [[] for _ in _PARQUET]
    table = pa.table(dict(zip(_PARQUET, map(list, columns), strict=True)))
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def inventory(
    bucket: str, rows: Sequence[Row], *, form: str = "CSV", files: int = 2, **changed: Any
) -> tuple[str, dict[str, bytes]]:
    """The manifest's key, and all objects of one inventory by their keys."""
    base = f"inventories/{bucket}/daily"
    made: dict[str, bytes] = {}
    for number in range(files):
        part = rows[number::files]
        name = f"{base}/data/{number}.{'csv.gz' if form == 'CSV' else 'parquet'}"
        made[name] = csv_file(part) if form == "CSV" else parquet_file(part)
    schema = ", ".join(COLUMNS) if form == "CSV" else "message s3.inventory { ... }"
    manifest = {
        "sourceBucket": bucket, "destinationBucket": "arn:aws:s3:::elsewhere",
        "version": "2016-11-30", "creationTimestamp": str(int(AS_OF.timestamp() * 1000)),
        "fileFormat": form, "fileSchema": schema,
        "files": [
            {"key": key, "size": len(body), "MD5checksum": _md5(body)} for key, body in made.items()
        ],
    } | changed  # fmt: skip
    key = f"{base}/{AS_OF:%Y-%m-%dT%H-%MZ}/manifest.json"
    return key, {key: json.dumps(manifest).encode(), **made}


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
