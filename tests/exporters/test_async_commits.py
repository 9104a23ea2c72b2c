"""Commits that a crash takes back: nothing that left the database was one of them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from support.bucket_check import check_bucket
from support.fences import append, append_one, autocommit
from support.fixtures_postgres import NEWEST, VERSIONS
from support.lead_events import id_of
from support.postgres import Cluster
from support.standing_exports import Export

from auditstore.errors import DatabaseUnavailable
from auditstore.ledger import SealedFile
from auditstore.objects import NewObject, ObjectStore, PutResult
from auditstore.repository import EventRepository
from auditstore.streams import Stream
from exporters.fence import Fence
from exporters.sealing import seal
from exporters.stores import open_store
from exporters.stores.folder import FolderStore
from exporters.worker import Worker


@pytest.fixture
def hasty_cluster() -> Iterator[Cluster]:
    """A server that commits without waiting, and whose WAL writer hardly ever writes."""
    own = Cluster.create(
        VERSIONS[NEWEST],
        settings={"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_buffers": "64MB"},
    )
    yield own
    own.destroy()


def positions(export: Export) -> dict[str, int]:
    """Where each event lies in the outbox now."""
    with export.engine.connect() as connection:
        found = connection.execute(sa.text("SELECT event_id, position FROM auditstore.events"))
        return {row.event_id: row.position for row in found}


def delivered(export: Export) -> set[str]:
    """The ids of the events in the folder."""
    return {
        id_of(line)
        for body in export.objects().values()
        for line in gzip.decompress(body).splitlines()
    }


def test_what_was_exported_survives_a_crash(hasty_cluster: Cluster, tmp_path: Path) -> None:
    """Sealing flushes what it read: lost events are newer, though their positions come again."""
    export = Export.on(hasty_cluster, tmp_path / "bucket")
    hasty_cluster.execute("CHECKPOINT")  # the schema and the stream are there to stay
    lost_any = False
    for _ in range(3):
        export.append(20)
        assert export.deliver() == 1
        in_bucket = delivered(export)
        before = positions(export)
        export.append(20)

        hasty_cluster.restart("immediate")
        export.follow(hasty_cluster)

        after = positions(export)
        assert in_bucket <= after.keys(), "an exported event is gone from the outbox"
        assert all(after[event_id] == before[event_id] for event_id in in_bucket)
        lost = export.appended.keys() - after.keys()
        lost_any = lost_any or bool(lost)
        for event_id in lost:
            del export.appended[event_id]
        export.append(5)
        export.deliver()
        check_bucket(export.engine, 1, open_store(export.stream.destination), export.appended)
        assert len(set(positions(export).values())) == len(export.appended)
    # Else the crashes took nothing back, and the test proves nothing.
    assert lost_any


class EventfulStore(FolderStore):
    """A folder during whose first upload something happens."""

    def __init__(self, root: str, happening: list[Callable[[], None]]) -> None:
        super().__init__(root)
        self._happening = happening

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Write; before it returns, let happen what has not happened yet."""
        result = super().put_if_absent(new)
        while self._happening:
            self._happening.pop()()
        return result


def test_a_fence_from_before_a_crash_seals_nothing_after_it(
    hasty_cluster: Cluster, tmp_path: Path
) -> None:
    """The positions below it are handed out again, and the lower one may commit later."""
    export = Export.on(hasty_cluster, tmp_path / "bucket")
    export.append(3)
    with export.engine.begin() as connection:
        # Left behind by an exporter that died; the last flush before the crash.
        assert isinstance(seal(connection, 1, fence=3, flush=True), SealedFile)
    writers: list[Connection] = []
    lower: list[int] = []

    def crash_and_write() -> None:
        hasty_cluster.restart("immediate")
        export.follow(hasty_cluster)
        late = export.engine.connect()
        writers.append(late)
        lower.extend(append(late))
        append_one(export.engine)

    happening = [crash_and_write]

    def open_eventful(connection: Connection, stream: Stream) -> ObjectStore:  # noqa: ARG001  # a StoreOpener
        return EventfulStore(stream.destination.bucket, happening)

    with autocommit(export.engine) as connection:
        fence = Fence(connection)
        # More than the 32 positions by which the sequence is logged ahead.
        export.append(60)
        stale = fence.advance()
        assert stale == 63
        worker = Worker(export.engine, open_eventful)
        with pytest.raises(DatabaseUnavailable, match="restarted"):
            worker.work(1, fence.safe, flush=True)
        connection.invalidate()
    assert lower[0] <= stale, "the crash took nothing back, and the test proves nothing"
    assert export.stream.sealed_position < lower[0]
    (late,) = writers
    late.commit()
    late.close()

    export.deliver()
    with export.engine.connect() as connection:
        export.appended = {
            stored.event.event_id: stored.event.payload
            for stored in EventRepository().find(connection, flow_id="flow-1", limit=200)
        }
    check_bucket(export.engine, 1, open_store(export.stream.destination), export.appended)
