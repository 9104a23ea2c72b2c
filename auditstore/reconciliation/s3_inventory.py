"""Listings of objects: S3 Inventory's manifests, and single CSV or Parquet files like its own.

The format is Amazon's, see "Locating your inventory list" in the user guide of S3. Keys are
URL-encoded in its CSV files, which have no head line, and plain in Parquet.
"""

from __future__ import annotations

import csv
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader, TextIOWrapper
from typing import IO, Any, Final
from urllib.parse import unquote_plus

import orjson

from auditstore.errors import ListingUnreadable
from auditstore.objects import ObjectInfo
from auditstore.reconciliation.byte_stream import ByteStream
from auditstore.reconciliation.decoding import Undecodable, unpacked
from auditstore.reconciliation.listing import Made

#: Gives a file's bytes by its name; ``None`` if it is not there.
Fetch = Callable[[str], Iterator[bytes] | None]

_LARGEST_MANIFEST: Final = 64 * 1024 * 1024
_NEEDED: Final = ("key", "size", "etag")
_OPTIONAL: Final = ("bucket", "islatest", "isdeletemarker")
_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a listing; ``columns`` are told where the file has no head line."""

    name: str
    form: str
    columns: tuple[str, ...] | None = None
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class InventoryFiles:
    """A listing as it lies in files: what it is, and where."""

    made: Made
    _files: tuple[_File, ...]
    _fetch: Fetch
    _bucket: str

    @classmethod
    def open(cls, source: str, name: str, fetch: Fetch, *, bucket: str) -> InventoryFiles:
        """Of a manifest, or of one file; ``source`` names it for people.

        Raises ListingUnreadable for what is neither, and for a manifest of another bucket.
        """
        if name.rpartition("/")[2].lower().endswith(".json"):
            return cls._of_manifest(source, name, fetch, bucket)
        form = "Parquet" if name.lower().endswith(".parquet") else "CSV"
        return cls(Made(source, None), (_File(name, form),), fetch, bucket)

    @classmethod
    def _of_manifest(cls, source: str, name: str, fetch: Fetch, bucket: str) -> InventoryFiles:
        body = b"".join(_limited(_fetched(fetch, name), name))
        try:
            told = orjson.loads(body)
            of_bucket, form = told["sourceBucket"], told["fileFormat"]
            schema = told["fileSchema"]
            as_of = datetime.fromtimestamp(int(told["creationTimestamp"]) / 1000, UTC)
            files = [(each["key"], each.get("MD5checksum")) for each in told["files"]]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(
                name, f"it is no manifest of S3 Inventory ({type(error).__name__}: {error})"
            ) from None
        if of_bucket != bucket:
            raise _other_bucket(name, of_bucket, bucket)
        if form not in {"CSV", "Parquet"}:
            raise ListingUnreadable(
                f"the inventory {name} is of the format {form}",
                hint="CSV and Parquet can be read. Choose one of them in the bucket's inventory"
                " configuration.",
            )
        columns = _named(schema.split(",")) if form == "CSV" else None
        return cls(
            Made(source, as_of),
            tuple(_File(key, form, columns, md5) for key, md5 in files), fetch, bucket,
        )  # fmt: skip

    def objects(self) -> Iterator[ObjectInfo]:
        """Every current object; ListingUnreadable where a file is not what it should be."""
        for file in self._files:
            chunks = _checked(_fetched(self._fetch, file.name), file)
            rows = _parquet(chunks, file) if file.form == "Parquet" else _csv(chunks, file)
            try:
                yield from self._current(rows, file)
            except (Undecodable, UnicodeDecodeError, csv.Error) as error:
                raise _unreadable(file.name, str(error)) from None
            for _ in chunks:
                pass  # so that the checksum is that of the whole file

    def _current(self, rows: Iterable[tuple[Any, ...]], file: _File) -> Iterator[ObjectInfo]:
        for number, (key, size, etag, bucket, latest, deleted) in enumerate(rows, start=1):
            if bucket is not None and bucket != self._bucket:
                raise _other_bucket(file.name, bucket, self._bucket)
            if _is(latest, default=True) and not _is(deleted, default=False):
                try:
                    yield ObjectInfo(key, int(size), (etag or "").strip('"') or None)
                except (TypeError, ValueError):
                    raise _unreadable(file.name, f"row {number} has the size {size!r}") from None


# --- the two formats ----------------------------------------------------------------


def _csv(chunks: Iterator[bytes], file: _File) -> Iterator[tuple[Any, ...]]:
    plain = ByteStream(unpacked(chunks))
    rows = csv.reader(TextIOWrapper(BufferedReader(plain), "utf-8", newline=""))
    columns = file.columns or _named(next(rows, ()))
    places = _places(columns, file)
    decode = unquote_plus if file.columns is not None else str
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise _unreadable(
                file.name, f"row {number} has {len(row)} columns instead of {len(columns)}"
            )
        key, *rest = (None if place is None else row[place] for place in places)
        yield decode(key or ""), *rest


def _parquet(chunks: Iterator[bytes], file: _File) -> Iterator[tuple[Any, ...]]:
    try:
        import pyarrow as pa  # noqa: PLC0415  # an extra's
        from pyarrow import parquet  # noqa: PLC0415  # an extra's
    except ImportError:
        raise ListingUnreadable(
            f"the inventory {file.name} is a Parquet file, and pyarrow is not installed",
            hint="pip install 'auditstore[inventory]', or have the inventory made as CSV.",
        ) from None
    with tempfile.TemporaryFile() as spool:
        _copy(chunks, spool)
        try:
            table = parquet.ParquetFile(spool)
            columns = _named(table.schema_arrow.names)
            places = _places(columns, file)
            wanted = [table.schema_arrow.names[place] for place in places if place is not None]
            for batch in table.iter_batches(_ROWS, columns=wanted):
                found = dict(zip(_named(batch.schema.names), batch.columns, strict=True))
                lists = [
                    found[name].to_pylist() if name in found else [None] * len(batch)
                    for name in (*_NEEDED, *_OPTIONAL)
                ]
                for row in zip(*lists, strict=True):
                    yield tuple(each.decode() if isinstance(each, bytes) else each for each in row)
        except pa.ArrowException as error:
            raise _unreadable(file.name, str(error)) from None


def _named(names: Iterable[str]) -> tuple[str, ...]:
    """Column names in one spelling: Amazon's own differ between its formats."""
    return tuple(name.strip().strip("\ufeff").replace("_", "").lower() for name in names)


def _places(columns: tuple[str, ...], file: _File) -> list[int | None]:
    lacking = [name for name in _NEEDED if name not in columns]
    if lacking:
        raise ListingUnreadable(
            f"the inventory {file.name} lacks the columns {', '.join(lacking)}",
            hint="Key, Size and ETag are needed: without them every object would have to be asked"
            " for. Add them to the bucket's inventory configuration.",
        )
    return [columns.index(name) if name in columns else None for name in (*_NEEDED, *_OPTIONAL)]


def _is(value: Any, *, default: bool) -> bool:
    if isinstance(value, str):
        return value.lower() == "true" if value else default
    return default if value is None else bool(value)


# --- bytes --------------------------------------------------------------------------


def _fetched(fetch: Fetch, name: str) -> Iterator[bytes]:
    chunks = fetch(name)
    if chunks is None:
        raise ListingUnreadable(
            f"the inventory's file {name} is not there",
            hint="Name the manifest where its files are, too: in its bucket, or in a folder that"
            " was copied as a whole.",
        )
    return chunks


def _checked(chunks: Iterator[bytes], file: _File) -> Iterator[bytes]:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if file.md5 is not None and digest.hexdigest() != file.md5.lower():
        raise _unreadable(
            file.name, f"its MD5 is {digest.hexdigest()}, and the manifest says {file.md5}"
        )


def _limited(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > _LARGEST_MANIFEST:
            raise _unreadable(name, "it is too large for a manifest")
        yield chunk


def _copy(chunks: Iterator[bytes], spool: IO[bytes]) -> None:
    for chunk in chunks:
        spool.write(chunk)
    spool.seek(0)


def _unreadable(name: str, why: str) -> ListingUnreadable:
    return ListingUnreadable(
        f"the inventory {name} cannot be read: {why}",
        hint="Take another day's, or leave --inventory out: then the bucket is listed.",
    )


def _other_bucket(name: str, found: str, wanted: str) -> ListingUnreadable:
    return ListingUnreadable(
        f"the inventory {name} is of the bucket {found}, and the streams go to {wanted}",
        hint="Name that bucket's inventory, or choose streams with --stream or --flow.",
    )
