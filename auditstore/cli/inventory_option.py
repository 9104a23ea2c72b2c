"""``--inventory``: what lies in the bucket, as somebody listed it already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from auditstore.cli.context import Session
from auditstore.cli.stores import store_opener
from auditstore.destinations import parse_destination
from auditstore.errors import ConfigurationError
from auditstore.reconciliation.listing import Listing, spooled
from auditstore.reconciliation.s3_inventory import Fetch, InventoryFiles
from auditstore.reconciliation.scope import Silent
from auditstore.streams import Stream

_CHUNK: Final = 256 * 1024

inventory_option = click.option(
    "--inventory", metavar="FILE|URL",
    help="Do not list the bucket, take a listing: the manifest.json of S3 Inventory, or a CSV or "
    "Parquet file with the columns Key, Size and ETag. s3://bucket/key is read as the stream is.",
)  # fmt: skip


@contextmanager
def opened_inventory(
    session: Session, name: str | None, chosen: Sequence[Stream]
) -> Iterator[Listing | None]:
    """Read it to its end, if there is one; all the streams must go to its bucket."""
    if name is None or not chosen:
        yield None
        return
    bucket = _bucket(chosen)
    if "://" not in name:
        files = InventoryFiles.open(name, name, _local(Path(name)), bucket=bucket)
        with spooled(files.made, files.objects(), Silent()) as listing:
            yield listing
        return
    place = parse_destination(name, chosen[0].endpoint_url)
    with session.reading() as connection:
        # With the stream's own credential: the inventory often lies in a bucket beside it.
        store = store_opener(session.vault)(connection, replace(chosen[0], url=name))
    try:
        files = InventoryFiles.open(name, place.prefix, store.read, bucket=bucket)
        with spooled(files.made, files.objects(), Silent()) as listing:
            yield listing
    finally:
        store.close()


def _bucket(chosen: Sequence[Stream]) -> str:
    places = {(each.destination.scheme, each.destination.bucket) for each in chosen}
    if len(places) > 1:
        raise ConfigurationError(
            "an inventory is of one bucket, and the streams go to several",
            hint="Choose those of its bucket with --stream or --flow.",
        )
    ((scheme, bucket),) = places
    if scheme == "file":
        raise ConfigurationError(
            "the stream goes to a folder, which is listed faster than an inventory is read",
            hint="Leave --inventory out.",
        )
    return bucket


def _local(path: Path) -> Fetch:
    """Files beside the manifest, as they lie where its folder was copied to."""

    def fetch(name: str) -> Iterator[bytes] | None:
        wanted = Path(name)
        here = path.parent
        for candidate in (
            wanted if wanted == path else here / wanted.name, here.parent / "data" / wanted.name,
        ):  # fmt: skip
            if candidate.is_file():
                return _chunks(candidate)
        return None

    return fetch


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
