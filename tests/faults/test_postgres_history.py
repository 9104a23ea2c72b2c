"""The database goes back in time under load: every stream stops loudly, and can be mended."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from support.eventually import eventually, never
from support.fault_run import LARGE, FaultRun
from support.fixtures_postgres import NEWEST, VERSIONS
from support.lead_events import id_of
from support.postgres import Cluster
from support.standing_exports import Export
from support.stores import Place
from support.tcp_proxy import TcpProxy, tcp_proxy

from auditstore import streams
from auditstore.database import migrate
from auditstore.errors import HistoryLost
from auditstore.objects import NewObject, ObjectStore, PutResult
from auditstore.repository import EventRepository
from auditstore.sql import server
from auditstore.sql import streams as streams_sql
from auditstore.streams import Stream
from exporters.fence import SafePosition
from exporters.stores.folder import FolderStore
from exporters.worker import Outcome, Worker


@pytest.fixture
def primary() -> Iterator[Cluster]:
    """A migrated server of the test's own."""
    own = Cluster.create(VERSIONS[NEWEST])
    migrate(own.url())
    yield own
    own.destroy()


@pytest.fixture
def address(primary: Cluster) -> Iterator[TcpProxy]:
    """The address that everybody knows; what is behind it may be replaced."""
    with tcp_proxy(primary.port) as proxy:
        yield proxy


def file_streams(run: FaultRun) -> list[Stream]:
    """The streams of files; where each event is an object of its own, none can be surplus."""
    return [each for each in run.streams if each.format == "ndjson.gz"]


def states(run: FaultRun) -> dict[int, tuple[str, str | None]]:
    """State and code of each stream of files."""
    with run.engine.connect() as connection:
        found = [streams.get(connection, each.stream_id) for each in file_streams(run)]
    return {each.stream_id: (each.status.state, each.status.code) for each in found}


def each_delivers_anew(run: FaultRun) -> None:
    """Wait until each stream of files has delivered one sealed after now: a thing to forget."""

    def marks() -> list[tuple[int, int]] | None:
        try:
            with run.engine.connect() as connection:
                found = [streams.get(connection, each.stream_id) for each in file_streams(run)]
        except DBAPIError:
            return None
        return [(each.sealed_sequence, each.delivered_sequence) for each in found]

    before = eventually(marks, within=30, what="an answer")
    assert before is not None

    def has_delivered() -> bool:
        pairs = zip(before, marks() or before, strict=True)
        return all(delivered > sealed for (sealed, _), (_, delivered) in pairs)

    eventually(has_delivered, within=30, what="each stream delivers")


def files(stream: Stream) -> dict[Path, bytes]:
    """Every object of a stream in a folder."""
    root = Path(stream.destination.bucket)
    return {path: path.read_bytes() for path in root.rglob("*.gz")}


def assert_all_halted(run: FaultRun) -> None:
    """Each stream of files says why, in status and log, and its bucket is left alone."""
    halted = ("halted", "history-lost")
    try:
        eventually(lambda: set(states(run).values()) == {halted}, within=30)
    except AssertionError:
        raise AssertionError(f"not all streams are halted: {states(run)}") from None
    logs = "".join(each.logged() for each in run.exporters)
    with run.engine.connect() as connection:
        for each in file_streams(run):
            status = streams.get(connection, each.stream_id).status
            assert status.cause is not None
            assert "the database's history is not the one that was exported" in status.cause
            assert "the ledger lacks" in status.cause
            assert f"auditstore stream resume {each.stream_id}" in (status.hint or "")
            assert f"halted         [exporter] stream={each.stream_id}" in logs
    before = [files(each) for each in file_streams(run)]
    # Writers go on all the while.
    never(lambda: [files(each) for each in file_streams(run)] != before, during=1.0)


def mend(run: FaultRun, away: Path) -> int:
    """As disaster-recovery.md says: move the surplus away, append what is lost, resume."""
    away.mkdir()
    with run.engine.begin() as connection:
        known = set(
            connection.execute(sa.text("SELECT object_key FROM auditstore.files")).scalars()
        )
        for number, each in enumerate(file_streams(run)):
            for path, body in files(each).items():
                if str(path.relative_to(each.destination.bucket)) not in known:
                    committed = run.writers.committed[each.flow_id]
                    content = gzip.decompress(body).splitlines()
                    assert all(committed[id_of(line)] == line for line in content)
                    path.rename(away / f"{number}-{path.name}")
        assert list(away.iterdir())
        snapshots = [
            list(run.writers.committed[each.flow_id].values()) for each in file_streams(run)
        ]
        lost = sum(EventRepository().append(connection, each).appended for each in snapshots)
        for stream in streams.find(connection):
            if stream.status.state == "halted":
                streams.resume(connection, stream.stream_id, actor="test")
    return lost


# Two acts would take for known what the database has forgotten.
_WITHOUT = ["repeat", "conflict", "prepare"]


@pytest.mark.long
def test_a_failover_to_a_replica_that_lacks_the_last_rows(
    primary: Cluster, address: TcpProxy, folder_place: Place, tmp_path: Path
) -> None:
    """A real streaming replica takes over without them; all halts, and is mended by the book."""
    run = FaultRun(
        address.url(primary.url()), folder_place, exporters=2, limits=LARGE, without=_WITHOUT
    )
    standby = None
    try:
        with run.running():
            run.progress(events=40)
            standby = primary.base_backup()
            run.progress(events=40)
            standby.stop()
            each_delivers_anew(run)
            primary.stop("immediate")
            standby.start()
            standby.promote()
            address.port = standby.port
            run.injected("failover to a replica that lacks the last rows")
            assert_all_halted(run)
            lost = mend(run, tmp_path / "away")
            run.recovered(within=60)
        run.check(f"{lost} lost events appended again")
        assert lost
    finally:
        if standby is not None:
            standby.destroy()


@pytest.mark.long
def test_a_database_restored_from_an_older_backup(
    primary: Cluster, address: TcpProxy, folder_place: Place, tmp_path: Path
) -> None:
    """A cold copy takes the server's place under load; all halts, and is mended by the book."""
    run = FaultRun(
        address.url(primary.url()), folder_place, exporters=2, limits=LARGE, without=_WITHOUT
    )
    backup = None
    try:
        with run.running():
            run.progress(events=40)
            primary.stop()
            backup = primary.copy_to()
            primary.start()
            each_delivers_anew(run)
            primary.stop()
            backup.start()
            address.port = backup.port
            run.injected("restored from an older backup")
            assert_all_halted(run)
            lost = mend(run, tmp_path / "away")
            run.recovered(within=60)
        run.check(f"{lost} lost events appended again")
        assert lost
    finally:
        if backup is not None:
            backup.destroy()


# --- in the midst of an upload ------------------------------------------------------


class EventfulStore(FolderStore):
    """A folder during whose next upload something happens."""

    def __init__(self, root: str, happening: list[Callable[[], None]]) -> None:
        super().__init__(root)
        self._happening = happening

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Write; before it returns, let happen what has not happened yet."""
        result = super().put_if_absent(new)
        while self._happening:
            self._happening.pop()()
        return result


def work(export: Export, happening: list[Callable[[], None]]) -> Outcome:
    """What a worker does that holds a fence of the server as it is now."""

    def opener(_: Connection, stream: Stream) -> ObjectStore:
        return EventfulStore(stream.destination.bucket, happening)

    with export.engine.connect() as connection:
        position = streams_sql.last_position(connection)
        fence = SafePosition(position, server.run(connection))
    worker = Worker(export.engine, opener)
    try:
        return worker.work(1, fence, flush=True)
    finally:
        worker.close()


@pytest.mark.parametrize("meanwhile", ["nothing", "sealed", "delivered"])
def test_a_failover_during_an_upload_is_noticed_when_it_is_recorded(
    restartable_cluster: Cluster, tmp_path: Path, meanwhile: str
) -> None:
    """The replica has the events and lacks the seal: the file must not become another's.

    Meanwhile another worker may have sealed other events under the same number.
    """
    primary = restartable_cluster
    with ExitStack() as stack:
        address = stack.enter_context(tcp_proxy(primary.port))
        export = Export.on(primary, tmp_path / "bucket")
        export.append(3)
        assert export.deliver() == 1
        export.append(4)
        standby = primary.base_backup()
        stack.callback(standby.destroy)
        standby.stop()
        export.engine.dispose()
        export.engine = sa.create_engine(address.url(primary.url()), poolclass=sa.NullPool)

        def fail_over() -> None:
            primary.stop("immediate")
            standby.start()
            standby.promote()
            address.port = standby.port
            if meanwhile != "nothing":
                export.append(2)
                with export.engine.begin() as connection:
                    # Another worker that had asked the bucket before the upload came through.
                    streams_sql.set_history(connection, 1, server.history(connection))
                stop = [] if meanwhile == "delivered" else [crash]
                if meanwhile == "delivered":
                    assert work(export, stop).delivered == 1
                else:
                    with pytest.raises(Crash):
                        work(export, stop)

        outcome = work(export, [fail_over])

        assert outcome.halted, outcome
        assert isinstance(outcome.error, HistoryLost)
        assert "was sealed and stored, but the ledger lacks it" in outcome.error.message
        assert export.stream.status.code == "history-lost"
        export.engine.dispose()


class Crash(BaseException):
    """The end of a worker's process."""


def crash() -> None:
    """End at once."""
    raise Crash
