"""A database that went back in time stops the stream; a restart or a lossless failover does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection
from support.bucket_check import check_bucket
from support.postgres import Cluster
from support.standing_exports import Export, open_folder

from auditstore.errors import HistoryLost, StoreRefused
from auditstore.objects import NewObject, ObjectInfo, ObjectStore, PutResult
from auditstore.streams import Stream
from exporters.once import export_once
from exporters.stores import open_store


@pytest.fixture
def export(restartable_cluster: Cluster, tmp_path: Path) -> Export:
    """A stream on a server of its own, with one file delivered."""
    export = Export.on(restartable_cluster, tmp_path / "bucket")
    export.append()
    assert export.deliver() == 1
    return export


@pytest.fixture
def standby(restartable_cluster: Cluster, export: Export) -> Iterator[Cluster]:
    """An asynchronous standby that has the first file."""
    assert export.stream.delivered_sequence == 1
    made = restartable_cluster.base_backup()
    yield made
    made.destroy()


def catch_up(primary: Cluster, standby: Cluster) -> None:
    """Wait until the standby has replayed what the primary has written."""
    ((lsn,),) = primary.execute("SELECT pg_current_wal_lsn()")
    while not standby.execute("SELECT pg_last_wal_replay_lsn() >= %s", lsn)[0][0]:
        pass


def check(export: Export) -> None:
    """Everything that was appended lies in the folder, once."""
    store = open_store(export.stream.destination)
    check_bucket(export.engine, 1, store, export.appended)


def assert_halted(export: Export, words: str) -> None:
    """Exporting stops for good, says why and what to do, and touches nothing."""
    before = export.objects()
    ((_, outcome),) = export.once().outcomes
    assert outcome.halted
    assert isinstance(outcome.error, HistoryLost)
    status = export.stream.status
    assert (status.state, status.code) == ("halted", "history-lost")
    assert status.cause
    assert words in status.cause
    assert status.hint
    assert "auditstore stream resume 1" in status.hint
    # It stays so, whatever is appended since.
    ((_, outcome),) = export.once().outcomes
    assert outcome.delivered == 0
    assert export.stream.status.state == "halted"
    assert export.objects() == before


def test_a_mere_restart_goes_on(restartable_cluster: Cluster, export: Export) -> None:
    """The same server after a restart, and after a crash, is looked at and followed further."""
    for mode in ("fast", "immediate"):
        restartable_cluster.restart(mode)
        before = export.stream.history
        export.append()
        assert export.deliver() == 1
        assert export.stream.history != before
    check(export)


def test_a_failover_without_loss_goes_on(
    restartable_cluster: Cluster, export: Export, standby: Cluster
) -> None:
    """A promoted standby that has everything is a new timeline of the same history."""
    export.append()
    assert export.deliver() == 1
    catch_up(restartable_cluster, standby)
    before = export.stream.history
    restartable_cluster.stop()
    standby.promote()
    export.follow(standby)

    export.append()
    assert export.deliver() == 1
    after = export.stream.history
    assert after["system"] == before["system"]
    assert after["timeline"] > before["timeline"]
    check(export)


def test_a_failover_that_lost_exported_events_halts(
    restartable_cluster: Cluster, export: Export, standby: Cluster, tmp_path: Path
) -> None:
    """The bucket has a file that the promoted standby knows nothing of; resumed, it goes on."""
    standby.stop()
    first = export.objects().keys()
    lost = export.append()
    assert export.deliver() == 1
    (surplus,) = export.objects().keys() - first
    restartable_cluster.stop("immediate")
    # Without its primary: it has what it had been sent before.
    standby.start()
    standby.promote()
    export.follow(standby)
    export.append()

    assert_halted(export, surplus)

    (export.folder / surplus).rename(tmp_path / "moved away")
    export.append_again(lost)
    export.resume()
    assert export.stream.status.state == "streaming"
    assert export.deliver() == 1
    check(export)


def test_surplus_that_was_left_is_never_overwritten(
    restartable_cluster: Cluster, export: Export, standby: Cluster
) -> None:
    """Resumed without mending anything, the stream halts at the object instead."""
    standby.stop()
    export.append()
    assert export.deliver() == 1
    restartable_cluster.stop("immediate")
    standby.start()
    standby.promote()
    export.follow(standby)
    export.append()
    assert_halted(export, "which the ledger lacks")
    before = export.objects()

    export.resume()
    export.once()

    assert all(export.objects()[key] == body for key, body in before.items())


def test_a_restored_older_copy_halts(restartable_cluster: Cluster, export: Export) -> None:
    """A backup put in the server's place does not know the files that came after it."""
    restartable_cluster.stop()
    copy = restartable_cluster.copy_to()
    try:
        restartable_cluster.start()
        export.append()
        assert export.deliver() == 1
        restartable_cluster.stop()
        copy.start()
        export.follow(copy)
        export.append()
        assert_halted(export, "which the ledger lacks")
    finally:
        copy.destroy()


def test_a_copy_that_knows_the_stream_and_none_of_its_files_halts(
    restartable_cluster: Cluster, tmp_path: Path
) -> None:
    """Made before the stream's first file, a backup has no marks that could look wrong."""
    export = Export.on(restartable_cluster, tmp_path / "bucket")
    restartable_cluster.stop()
    copy = restartable_cluster.copy_to()
    try:
        restartable_cluster.start()
        lost = export.append()
        assert export.deliver() == 1
        (surplus,) = export.objects()
        restartable_cluster.stop()
        copy.start()
        export.follow(copy)
        # More than was exported, so that the positions alone look right.
        export.append(5)
        assert_halted(export, surplus)

        (export.folder / surplus).rename(tmp_path / "moved away")
        export.append_again(lost)
        export.resume()
        assert export.deliver() == 1
        check(export)
    finally:
        copy.destroy()


def test_positions_below_the_marks_halt(restartable_cluster: Cluster, export: Export) -> None:
    """A sequence that stands before what was exported is noticed without asking the bucket."""
    restartable_cluster.execute("ALTER TABLE auditstore.events ALTER COLUMN position RESTART")
    restartable_cluster.restart()
    assert_halted(export, "positions up to 0, but 3 was exported")


class Unlistable:
    """A store whose key may write and read objects, but not list them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Allowed."""
        return self._store.put_if_absent(new)

    def head(self, key: str) -> ObjectInfo | None:
        """Allowed."""
        return self._store.head(key)

    def read(self, key: str) -> Iterator[bytes] | None:
        """Allowed."""
        return self._store.read(key)

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Denied."""
        raise StoreRefused(
            f"listing {prefix} after {start_after} was denied",
            hint="Allow it.",
            code="AccessDenied",
        )

    def close(self) -> None:
        """Nothing is held."""
        self._store.close()


def open_unlistable(connection: Connection, stream: Stream) -> ObjectStore:
    """The folder, without the right to list it."""
    return Unlistable(open_folder(connection, stream))


def test_a_key_that_may_not_list_survives_a_restart(
    restartable_cluster: Cluster, export: Export
) -> None:
    """What was exported had been flushed, so the same server need not look in the bucket."""
    restartable_cluster.restart("immediate")
    export.append()
    ((_, outcome),) = export_once(export.engine, open_unlistable).outcomes
    assert (outcome.error, outcome.delivered) == (None, 1)
    check(export)


def test_a_key_that_may_not_list_delivers_a_first_file(
    restartable_cluster: Cluster, tmp_path: Path
) -> None:
    """A stream without a file has nothing that could have been forgotten, but by a backup."""
    export = Export.on(restartable_cluster, tmp_path / "bucket")
    export.append()
    ((_, outcome),) = export_once(export.engine, open_unlistable).outcomes
    assert (outcome.error, outcome.delivered) == (None, 1)
    check(export)


def test_a_key_that_may_not_list_is_blocked_after_a_failover(
    restartable_cluster: Cluster, export: Export, standby: Cluster
) -> None:
    """On another timeline it must look; allowed to, it goes on by itself."""
    catch_up(restartable_cluster, standby)
    restartable_cluster.stop()
    standby.promote()
    export.follow(standby)
    export.append()
    before = export.objects()

    ((_, outcome),) = export_once(export.engine, open_unlistable).outcomes

    assert isinstance(outcome.error, StoreRefused)
    assert not outcome.halted
    status = export.stream.status
    assert (status.state, status.code, status.hint) == ("blocked", "AccessDenied", "Allow it.")
    assert export.objects() == before
    assert export.deliver() == 1
    assert export.stream.status.state == "streaming"
    check(export)
