"""Memory stays flat, and level *files* reads no more than it must."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from support.ledger_builder import Scene
from support.stores import Place

from auditstore.objects import ObjectInfo
from auditstore.reconciliation import Finding, Scope, compare_stream
from auditstore.reconciliation.inventory import Inventory, temporary_database
from auditstore.reconciliation.scope import Silent

MIB = 1024 * 1024


def _peak(scene: Scene, stream: int, until: datetime | None = None) -> tuple[int, int]:
    """The most memory a comparison held, and how much it found, which nobody keeps."""
    found = 0

    def count(_: Finding) -> None:
        nonlocal found
        found += 1

    tracemalloc.start()
    try:
        compare_stream(
            scene.engine, stream, scene.place.open, Scope("events", until=until), report=count
        )
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


def test_flat(engine: sa.Engine, folder_place: Place) -> None:
    """Ten times the files and the findings take no more memory."""
    scene = Scene(engine, folder_place)
    stream = scene.stream(max_events=500)
    first, second = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    scene.append(500, at=first)
    scene.append(4500, at=second)
    files = scene.deliver(stream)
    assert len(files) == 10
    _peak(scene, stream)  # whatever is made once is made now
    for file in files[::2]:
        scene.rewrite(file, [])

    one, found_in_one = _peak(scene, stream, until=second)
    all_, found_in_all = _peak(scene, stream)

    assert (found_in_one, found_in_all) == (501, 5 * 501)
    assert all_ < one + MIB / 2


def test_inventory_is_flat() -> None:
    """A long listing is spooled; of it, next to nothing stays in memory."""
    listed = (ObjectInfo(key=f"prefix/{n:09}.ndjson.gz", size=n, etag=None) for n in range(50_000))
    with temporary_database() as database:
        tracemalloc.start()
        inventory = Inventory.of(database, listed, Silent())
        taken = sum(inventory.take(f"prefix/{n:09}.ndjson.gz") is not None for n in range(25_000))
        unknown = sum(len(page) for page in inventory.unknown_pages())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (taken, unknown) == (25_000, 25_000)
    assert peak < MIB


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_level_files_trusts_an_equal_etag(
    engine: sa.Engine, request: pytest.FixtureRequest, kind: str
) -> None:
    """Where the listing has the ETag that was recorded, nothing is read."""
    scene = Scene(engine, request.getfixturevalue(f"{kind}_place"))
    stream = scene.stream()
    scene.append(8)
    scene.deliver(stream)

    findings, summary = scene.compare(stream, level="files")

    assert findings == []
    assert summary.files_matched == 2
    assert summary.bytes_read == 0
