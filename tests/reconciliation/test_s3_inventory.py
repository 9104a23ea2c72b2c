"""Comparing by S3 Inventory: what it says, what it does not know yet, and what is no inventory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from support.inventories import Row, csv_file, inventory, parquet_file, row
from support.ledger_builder import Scene, kinds
from support.stores import Place

from auditstore.errors import ListingUnreadable
from auditstore.ledger import LedgerFile
from auditstore.objects import ObjectInfo
from auditstore.reconciliation import Finding, Kind, Scope, Summary, compare_stream
from auditstore.reconciliation.listing import spooled
from auditstore.reconciliation.s3_inventory import InventoryFiles
from auditstore.reconciliation.scope import Silent

OTHER = ObjectInfo("elsewhere/in the+bucket.txt", 5, "e" * 32)


@pytest.fixture
def scene(engine: sa.Engine, s3_place: Place) -> Scene:
    """A stream with three files in a bucket."""
    made = Scene(engine, s3_place)
    stream = made.stream(max_events=4)
    made.append(12)
    made.deliver(stream)
    return made


def listed(scene: Scene) -> list[Row]:
    """The bucket as it is now, with something beside the stream."""
    bucket = scene.place.destination.bucket
    with scene.opened() as store:
        return [row(bucket, info) for info in store.list("")] + [row(bucket, OTHER)]


def files(bucket: str, name: str, made: dict[str, bytes]) -> InventoryFiles:
    """An inventory that lies in memory."""

    def fetch(wanted: str) -> Iterator[bytes] | None:
        body = made.get(wanted)
        return None if body is None else (body[at : at + 50] for at in range(0, len(body), 50))

    return InventoryFiles.open(name, name, fetch, bucket=bucket)


def compared(
    scene: Scene, rows: list[Row], level: Any = "files", **how: Any
) -> tuple[list[Finding], Summary]:
    """What is found by an inventory of these rows."""
    found = files(scene.place.destination.bucket, *inventory(rows[0][0], rows, **how))
    findings: list[Finding] = []
    with spooled(found.made, found.objects(), Silent()) as listing:
        summary = compare_stream(
            scene.engine, 1, scene.place.open, Scope(level), report=findings.append,
            listing=listing,
        )  # fmt: skip
    return findings, summary


def first(scene: Scene) -> LedgerFile:
    """The stream's first file."""
    return scene.files(1)[0]


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
@pytest.mark.parametrize("level", ["files", "events"])
def test_reconciled_by_an_inventory(scene: Scene, form: str, level: str) -> None:
    """Nothing is listed but by it; the report says by which, and of when it is."""
    findings, summary = compared(scene, listed(scene), level, form=form)
    assert (findings, summary.result) == ([], "reconciled")
    # One is the object by which the store was tried.
    assert (summary.files_matched, summary.objects_listed) == (3, 4)
    assert summary.listing.endswith("manifest.json, made at 2026-11-24 01:00 UTC")
    assert (summary.bytes_read > 0) == (level == "events")


def test_what_came_since_is_not_missing(scene: Scene) -> None:
    """Files delivered after the inventory was made are asked for."""
    rows = listed(scene)
    scene.append(6)
    scene.deliver(1)
    findings, summary = compared(scene, rows)
    assert (findings, summary.files_expected, summary.files_matched) == ([], 5, 5)


def test_what_went_since_is_not_unknown(scene: Scene) -> None:
    """Strange objects are reported if they are there still; older versions do not count."""
    prefix = scene.place.destination.prefix
    for name in ("stays", "goes"):
        scene.vandal.write(f"{prefix}/{name}", b"strange")
    rows = listed(scene)
    scene.vandal.delete(f"{prefix}/goes")
    bucket = scene.place.destination.bucket
    old = ObjectInfo(f"{prefix}/stays too", 3, "a" * 32)
    rows += [row(bucket, old, latest=False), row(bucket, old, deleted=True)]
    findings, _ = compared(scene, rows)
    assert [(each.kind, each.object_key) for each in findings] == [
        (Kind.UNKNOWN_FILE, f"{prefix}/stays")
    ]


def test_what_is_gone_or_other_is_found(scene: Scene) -> None:
    """A file that neither the inventory nor the store has, and one of another size."""
    one, other, _ = scene.files(1)
    scene.vandal.delete(one.sealed.object_key)
    scene.vandal.write(other.sealed.object_key, gzip.compress(b"other\n"))
    findings, summary = compared(scene, listed(scene))
    assert kinds(findings) == [Kind.MISSING_FILE, Kind.CHANGED_FILE]
    assert summary.files_matched == 1


def test_a_size_that_was_mended_since_is_no_finding(scene: Scene) -> None:
    """Where the inventory and the ledger differ, the object itself decides."""
    rows = [
        (*each[:5], 1, "f" * 32) if each[1] == first(scene).sealed.object_key else each
        for each in listed(scene)
    ]
    findings, summary = compared(scene, rows)
    assert (findings, summary.files_matched) == ([], 3)
    assert summary.bytes_read > 0


def test_an_empty_inventory_asks_for_everything(scene: Scene) -> None:
    """It says nothing, so the store does."""
    bucket = scene.place.destination.bucket
    findings, summary = compared(scene, [row(bucket, OTHER)])
    assert (findings, summary.files_matched, summary.objects_listed) == ([], 3, 0)


def test_keys_come_back_as_they_were() -> None:
    """Decoded in CSV, where they are URL-encoded, and only there."""
    odd = [ObjectInfo(f"p/{name}", 1, "e") for name in ("a b", "a+b", "100%25", "ä/ö", "q?&=")]
    for form in ("CSV", "Parquet"):
        found = files("b", *inventory("b", [row("b", each) for each in odd], form=form))
        assert sorted(found.objects(), key=str) == sorted(odd, key=str)


def test_single_files_with_a_head_line() -> None:
    """From whatever listed the bucket, in any order of columns; keys are plain there."""
    text = b'\xef\xbb\xbfSize,Key,ETag,Other\n7,a%20b,"""e1""",x\n'
    expected = [ObjectInfo("a%20b", 7, "e1")]
    for name, body in (("list.csv", text), ("list.csv.gz", gzip.compress(text))):
        found = files("b", name, {name: body})
        assert list(found.objects()) == expected
        assert str(found.made) == f"{name}, made at an unknown time"
    body = parquet_file([row("b", each) for each in expected])
    assert list(files("b", "list.parquet", {"list.parquet": body}).objects()) == expected


def test_ranges_of_a_listing() -> None:
    """As a store lists: below a prefix, and behind a key."""
    keys = ["a/1", "a/2", "a/3", "a0", "b"]
    with spooled(
        files("b", "x.csv", {}).made, (ObjectInfo(key, 1, "e") for key in keys), Silent()
    ) as listing:  # fmt: skip

        def names(prefix: str, start_after: str | None = None) -> list[str]:
            return [each.key for each in listing.list(prefix, start_after=start_after)]

        assert names("") == keys
        assert names("a/") == keys[:3]
        assert names("a/", "a/1") == keys[1:3]
        assert names("a/", "A") == keys[:3]
        assert names("a/", "b") == []
        assert names("c") == []


Break = Callable[[str, dict[str, bytes]], Any]


def _change_manifest(**changes: Any) -> Break:
    def change(key: str, made: dict[str, bytes]) -> None:
        made[key] = json.dumps(json.loads(made[key]) | changes).encode()

    return change


def _swap_data(body: bytes) -> Break:
    def change(key: str, made: dict[str, bytes]) -> None:
        told = json.loads(made[key])
        told["files"] = [{"key": told["files"][0]["key"]}]
        made[key] = json.dumps(told).encode()
        made[told["files"][0]["key"]] = body

    return change


_ROWS = [row("b", ObjectInfo(f"p/{number}", number, "e")) for number in range(9)]
_CSV = csv_file(_ROWS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_change_manifest(sourceBucket="c"), "is of the bucket c"),
        (_change_manifest(fileFormat="ORC"), "is of the format ORC"),
        (_change_manifest(files=7), "is no manifest"),
        (_change_manifest(creationTimestamp="soon"), "is no manifest"),
        (lambda key, made: made.update({key: b"{"}), "is no manifest"),
        (lambda key, made: made.update({key: b"[]"}), "is no manifest"),
        (lambda key, made: made.pop(key), "is not there"),
        (_change_manifest(fileSchema="Bucket, Key, Size"), "lacks the columns etag"),
        (_change_manifest(fileSchema="Bucket, Key, Size, ETag"), "7 columns instead of 4"),
        (_change_manifest(files=[{"key": "gone.csv.gz"}]), "gone.csv.gz is not there"),
        (_change_manifest(files=[{"key": "inventories/b/daily/data/0.csv.gz",
                                  "MD5checksum": "0" * 32}]), "the manifest says 0000"),
        (_swap_data(_CSV[:-20]), "cannot be read"),
        (_swap_data(gzip.compress(b"\xff\xfe,1")), "cannot be read"),
        (_swap_data(csv_file([("c", *_ROWS[0][1:])])), "is of the bucket c"),
        (_swap_data(csv_file([(*_ROWS[0][:5], None, "e")])), "row 1 has the size ''"),
    ],
)  # fmt: skip
def test_what_is_no_inventory(change: Break, says: str) -> None:
    """An error that names the file and the reason; never a short listing taken for a whole one."""
    key, made = inventory("b", _ROWS)
    change(key, made)
    with pytest.raises(ListingUnreadable, match=says) as caught:
        list(files("b", key, made).objects())
    assert caught.value.hint


def test_a_parquet_file_that_is_none() -> None:
    """The same for the other format."""
    with pytest.raises(ListingUnreadable, match=r"list\.parquet cannot be read"):
        list(files("b", "list.parquet", {"list.parquet": b"PAR1 not"}).objects())
