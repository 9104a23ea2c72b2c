"""Files read ahead by threads, processes and clusters: what is found is what one alone finds."""

from __future__ import annotations

import gzip
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from support import snapshots
from support.commands import CommandLine
from support.dying_stores import CannotReach, KillsItsProcess, recipe_of
from support.ledger_builder import FLOW, Scene
from support.stores import Place

from auditstore.errors import StoreUnavailable, WorkersLost
from auditstore.layout import event_key
from auditstore.ledger import LedgerFile
from auditstore.objects import ObjectStore
from auditstore.reconciliation import (
    Finding,
    Kind,
    Readers,
    Scope,
    Summary,
    Workers,
    compare_stream,
    reading_ahead,
)
from auditstore.reconciliation.executors import Threads, processes, threads
from auditstore.sql import comparison as sql

FILES = 14


@pytest.fixture(scope="module")
def two_processes() -> Iterator[Workers]:
    """Processes for all of these tests; they begin when they are needed."""
    workers = processes(2)
    yield workers
    workers.close()


@pytest.fixture
def three_threads() -> Iterator[Workers]:
    """Threads of the test's own."""
    workers = threads(3)
    yield workers
    workers.close()


@pytest.fixture(params=["three_threads", "two_processes"])
def workers(request: pytest.FixtureRequest) -> Workers:
    """Each kind in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Workers)
    return found


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A scene in a folder."""
    return Scene(engine, folder_place)


def compared(
    scene: Scene, stream: int, level: Any, readers: Readers | None
) -> tuple[list[Finding], Summary]:
    """Findings and summary, the summary without what differs between any two comparisons."""
    findings: list[Finding] = []
    summary = compare_stream(
        scene.engine, stream, scene.place.open, Scope(level),
        report=findings.append, pattern=True, readers=readers,
    )  # fmt: skip
    return findings, replace(summary, seconds=None, compared_at=None)


def damage_lines(scene: Scene, stream: int, files: list[LedgerFile]) -> None:
    """Every kind of trouble, with healthy files in between and behind."""
    lines = scene.lines(files[1])
    scene.rewrite(files[1], [lines[0], snapshots.snapshot(flow=FLOW), *lines[2:]])
    scene.vandal.delete(files[2].sealed.object_key)
    scene.vandal.write(
        files[4].sealed.object_key, gzip.compress(gzip.decompress(read(scene, files[4])), mtime=9)
    )
    scene.vandal.write(files[5].sealed.object_key, read(scene, files[5])[:-3])
    scene.rewrite(files[6], scene.lines(files[6]), end=b"")
    scene.vandal.write(files[8].sealed.object_key, read(scene, files[9]))
    scene.vandal.write("stray.ndjson.gz", read(scene, files[0]))
    damage_database(scene, stream, files)


def damage_objects(scene: Scene, stream: int, files: list[LedgerFile]) -> None:
    """The same, where each event is an object."""
    keys = [
        event_key(prefix="", lead_id=entry.lead_id, event_id=entry.event_id)
        for entry in entries(scene)
    ]
    scene.vandal.delete(keys[5])
    scene.vandal.write(keys[9], scene.vandal.read(keys[10]))
    scene.vandal.write(keys[17], scene.vandal.read(keys[17]) + b"\n")
    scene.vandal.write("stray.json", scene.vandal.read(keys[0]))
    damage_database(scene, stream, files)


def damage_database(scene: Scene, stream: int, files: list[LedgerFile]) -> None:
    """A hash, a payload, an event that is gone, a row of the ledger."""
    changes = {
        "UPDATE auditstore.events SET sha256 = sha256('x')": files[10].sealed.first_position,
        "UPDATE auditstore.events"
        " SET payload = replace(payload::text, 'success', 'failure')::json": (
            files[11].sealed.last_position
        ),
        "DELETE FROM auditstore.events": files[12].sealed.first_position,
    }
    for statement, position in changes.items():
        scene.tamper(f"{statement} WHERE position = :at", at=position)
    scene.tamper(
        "UPDATE auditstore.files SET content_sha256 = sha256('x')"
        " WHERE stream_id = :stream AND sequence = 8", stream=stream,
    )  # fmt: skip


def read(scene: Scene, file: LedgerFile) -> bytes:
    """A file's stored bytes."""
    return scene.vandal.read(file.sealed.object_key)


def entries(scene: Scene) -> list[Any]:
    """Event and lead ids, in order."""
    with scene.engine.connect() as connection:
        return list(
            connection.execute(
                sa.text("SELECT event_id, lead_id FROM auditstore.events ORDER BY position")
            )
        )


DAMAGE: dict[str, Callable[[Scene, int, list[LedgerFile]], None]] = {
    "ndjson.gz": damage_lines, "json": damage_objects,
}  # fmt: skip


@pytest.mark.parametrize("form", DAMAGE)
def test_the_same_is_found(scene: Scene, workers: Workers, form: str) -> None:
    """Healthy or damaged, at both levels: the same findings in the same order, the same counts."""
    stream = scene.stream(format=form, max_events=3)
    scene.append(3 * FILES)
    files = scene.deliver(stream)
    assert len(files) == FILES
    readers = Readers(workers, lambda: recipe_of(scene.place))
    for level in ("files", "events"):
        expected = compared(scene, stream, level, None)
        assert expected[0] == []
        assert expected[1].events_matched == 3 * FILES
        assert compared(scene, stream, level, readers) == expected

    DAMAGE[form](scene, stream, files)

    for level, least in (("files", 4), ("events", 7)):
        expected = compared(scene, stream, level, None)
        assert len({finding.kind for finding in expected[0]}) >= least
        assert compared(scene, stream, level, readers) == expected


def test_processes_open_a_bucket(
    engine: sa.Engine, s3_place: Place, two_processes: Workers
) -> None:
    """The recipe takes credentials along, and the processes' word is enough."""
    scene = Scene(engine, s3_place)
    stream = scene.stream(max_events=3)
    scene.append(12)
    scene.deliver(stream)
    readers = Readers(two_processes, lambda: recipe_of(s3_place))
    opened: list[_Watched] = []

    def open_store() -> ObjectStore:
        opened.append(_Watched(s3_place.open()))
        return opened[0]

    summary = compare_stream(
        engine, stream, open_store, Scope("events"), report=_unexpected, readers=readers
    )

    assert (summary.files_matched, summary.events_matched) == (4, 12)
    assert summary.bytes_read > 0
    assert opened[0].reads == 0


class _Watched:
    """A store that counts what is read from it, and waits with it until it is let."""

    def __init__(self, store: ObjectStore, let: threading.Event | None = None) -> None:
        self._store = store
        self._let = let
        self.reads = 0
        self.list, self.head, self.close = store.list, store.head, store.close
        self.put_if_absent = store.put_if_absent

    def read(self, key: str) -> Iterator[bytes] | None:
        """Count, wait, read."""
        self.reads += 1
        if self._let is not None:
            self._let.wait()
        return self._store.read(key)


def _unexpected(finding: Finding) -> None:
    raise AssertionError(finding)


# --- how much is in flight ----------------------------------------------------------------


class _Counted(Threads):
    """Threads that remember how many files were in flight at once."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.in_flight = 0
        self.most = 0

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        """One more."""
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        return super().submit(*arguments, **named)

    def listing(self, objects: int) -> None:
        """Nothing is in flight yet."""

    def comparing(self, done: int, total: int, bytes_read: int) -> None:  # noqa: ARG002  # Progress
        """One less: its result is let go of."""
        self.in_flight -= 1


@pytest.mark.parametrize(("lines", "most"), [(1_000_000, 2 * 2 + reading_ahead.SPARE + 1), (8, 3)])
def test_what_is_held_is_bounded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, lines: int, most: int
) -> None:
    """No more files are in flight than two a worker and a few, nor more lines than a number."""
    monkeypatch.setattr(reading_ahead, "MOST_LINES", lines)
    stream = scene.stream(max_events=4)
    scene.append(4 * 30)
    scene.deliver(stream)
    counted = _Counted(2)
    workers = Workers(lambda: counted, 2, shares_memory=True)

    findings, summary = scene.compare(stream, progress=counted, readers=Readers(workers))

    assert findings == []
    assert summary.files_matched == 30
    assert counted.most == most
    workers.close()


def test_a_file_too_large_to_be_held_is_read_in_its_turn(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, three_threads: Workers
) -> None:
    """One file with more lines than may be in flight is compared nevertheless."""
    monkeypatch.setattr(reading_ahead, "MOST_LINES", 3)
    stream = scene.stream(max_events=4)
    scene.append(9)
    scene.deliver(stream)
    findings, summary = scene.compare(stream, readers=Readers(three_threads))
    assert findings == []
    assert summary.events_matched == 9


def test_hashes_come_by_the_index(scene: Scene) -> None:
    """The outbox's side of a file is found by the index, and sorted in memory, if at all."""
    scene.stream()
    scene.append(12_000)
    with scene.engine.begin() as connection:
        connection.execute(sa.text("ANALYZE auditstore.events"))
        for statement in sql._SIDES.values():
            few, full = (_plan(connection, statement, events) for events in (500, 10_000))
            assert "flow_id_position_size_bytes_recorded_at_idx" in few
            assert "external" not in few + full
            assert "temp" not in few + full


def _plan(connection: sa.Connection, statement: sa.TextClause, events: int) -> str:
    return "\n".join(
        connection.scalars(
            sa.text(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {statement}"),
            {"flow_id": FLOW, "first": 501, "last": 500 + events, "limit": events + 1},
        )
    )


# --- trouble -------------------------------------------------------------------------------


def test_a_dead_process_costs_no_answer(scene: Scene, tmp_path: Path) -> None:
    """Two processes killed in the midst of a file: others take over, and everything is compared."""
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    stream = scene.stream(max_events=2)
    scene.append(2 * 40)
    files = scene.deliver(stream)
    scene.vandal.delete(files[30].sealed.object_key)
    workers = processes(2)
    recipe = KillsItsProcess(recipe_of(scene.place), str(deaths), times=2)

    (found,), summary = scene.compare(stream, readers=Readers(workers, lambda: recipe))
    workers.close()

    assert recipe.deaths >= 1
    assert (found.kind, found.sequence) == (Kind.MISSING_FILE, 31)
    assert (summary.files_expected, summary.files_matched) == (40, 39)


@pytest.mark.long
def test_workers_that_always_die_are_an_error(scene: Scene, tmp_path: Path) -> None:
    """Where no worker ever reads a file, that is said, with what to do."""
    stream = scene.stream(max_events=1)
    scene.append(60)
    scene.deliver(stream)
    workers = processes(2)
    recipe = KillsItsProcess(recipe_of(scene.place), str(tmp_path), at=1, times=1000)
    with pytest.raises(WorkersLost) as caught:
        scene.compare(stream, readers=Readers(workers, lambda: recipe))
    workers.close()
    assert "--workers 1" in caught.value.hint


def test_workers_that_do_not_reach_the_store_are_an_error(
    scene: Scene, two_processes: Workers
) -> None:
    """A store that only this process reaches is said to be so, rather than read by one alone."""
    stream = scene.stream(max_events=1)
    scene.append(10)
    scene.deliver(stream)
    with pytest.raises(WorkersLost, match="no route from here"):
        scene.compare(stream, readers=Readers(two_processes, CannotReach))


def test_a_store_that_fails_has_the_say(scene: Scene, three_threads: Workers) -> None:
    """What a store says to one who reads ahead is the comparison's error, if it says so again."""
    stream = scene.stream(max_events=1)
    scene.append(10)
    scene.deliver(stream)
    store = _Watched(scene.place.open())
    store.read = _raise  # type: ignore[method-assign]  # whatever is asked
    with pytest.raises(StoreUnavailable, match="no route"):
        compare_stream(
            scene.engine, stream, lambda: store, Scope("events"), report=_unexpected,
            readers=Readers(three_threads),
        )  # fmt: skip


def _raise(key: str) -> Iterator[bytes] | None:  # noqa: ARG001  # the protocol's
    CannotReach()()
    return None


def test_processes_are_ended_at_once_and_by_nobody_else() -> None:
    """Ctrl-C on the terminal reaches the processes too, and is not for them."""
    workers = processes(1)
    pid = workers.submit(os.getpid).future.result()
    os.kill(pid, signal.SIGINT)
    assert workers.submit(os.getpid).future.result() == pid
    workers.submit(time.sleep, 600)
    workers.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    "how", [["--workers", "1"], ["--workers", "3"], ["--workers", "2", "--processes"], []]
)
def test_the_command_line_chooses(scene: Scene, database_url: str, how: list[str]) -> None:
    """However many read, and wherever, the command finds the same."""
    stream = scene.stream(max_events=3)
    scene.append(9)
    files = scene.deliver(stream)
    scene.vandal.delete(files[1].sealed.object_key)
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": database_url})
    shown = cli.run("reconcile", "--level", "events", "--format", "json", *how, code=1).stdout
    assert shown.count('"missing-file"') >= 1
    assert files[1].sealed.object_key in shown


def test_other_views_are_read_by_one() -> None:
    """Options that would have no effect are refused."""
    cli = CommandLine({})
    shown = cli.run("reconcile", "--source", "leadconduit", "--workers", "2", code=2)
    assert "this store's own streams" in shown.output


class _Interrupts:
    """Progress during which somebody presses Ctrl-C."""

    def listing(self, objects: int) -> None:
        """Not yet."""

    def comparing(self, done: int, total: int, bytes_read: int) -> None:  # noqa: ARG002  # Progress
        """Now."""
        raise KeyboardInterrupt


def test_ctrl_c_waits_for_nobody(scene: Scene) -> None:
    """What hangs with its store is left behind, and what has not begun never does."""
    stream = scene.stream(max_events=1)
    scene.append(20)
    files = scene.deliver(stream)
    let = threading.Event()
    store = _HangsAfterOne(scene.place.open(), let, files[0].sealed.object_key)
    executor = Threads(2)
    workers = Workers(lambda: executor, 2, shares_memory=True)
    with pytest.raises(KeyboardInterrupt):
        compare_stream(
            scene.engine, stream, lambda: store, Scope("events"), report=_unexpected,
            progress=_Interrupts(), readers=Readers(workers),
        )  # fmt: skip
    workers.close()
    reads = store.reads
    assert reads <= 3
    let.set()
    executor.shutdown(wait=True)
    assert store.reads == reads


class _HangsAfterOne(_Watched):
    """Reads one object, and hangs with every other until it is let."""

    def __init__(self, store: ObjectStore, let: threading.Event, key: str) -> None:
        super().__init__(store, let)
        self._key = key

    def read(self, key: str) -> Iterator[bytes] | None:
        """Hang unless it is that one."""
        self.reads += 1
        if key != self._key:
            assert self._let is not None
            self._let.wait()
        return self._store.read(key)
