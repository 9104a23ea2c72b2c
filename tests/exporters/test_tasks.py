"""Whose turn it is, seen with a clock of the test's own; no thread and no store needed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from auditstore import streams
from auditstore.errors import StoreUnavailable
from auditstore.streams import NewStream, Stream
from exporters.tasks import Lanes, Task, Tasks
from exporters.worker import Outcome

LANES = Lanes(workers=2, troubled=1, hanging=5, patience=1.0)
FAILED = Outcome(retry_in=30.0, error=StoreUnavailable("away", hint=""))


class Board:
    """Tasks, and what runs of them; the clock is ``now``."""

    def __init__(self, made: list[Stream]) -> None:
        self.streams = made
        self.tasks = Tasks(LANES, recheck=0.25)
        self.now, self.fence = 100.0, 1
        self.running: dict[int, Task] = {}
        self.tasks.keep(made)

    def begin(self, *stream_ids: int) -> list[int]:
        """Events came for these streams; which of all begin?"""
        self.fence += len(stream_ids)
        asked = self.tasks.look(self.now, self.fence)
        self.tasks.found(asked, stream_ids, self.fence)
        begun = self.tasks.begin(self.now, self.fence)
        self.running |= {task.stream_id: task for task in begun}
        return [task.stream_id for task in begun]

    def finish(self, stream_id: int, outcome: Outcome | None = None) -> None:
        """A stream's work is over; by default all was delivered."""
        task = self.running.pop(stream_id)
        self.tasks.finish(task, Outcome(delivered=1) if outcome is None else outcome, self.now)

    def settle(self) -> None:
        """The first look at each stream, which finds nothing."""
        while self.begin():
            for stream_id in list(self.running):
                self.finish(stream_id, Outcome())


@pytest.fixture
def made(engine: sa.Engine) -> list[Stream]:
    """Streams 1 to 8, each with a bucket of its own, but the last two, which share one."""
    buckets = ["a", "b", "c", "d", "e", "f", "shared/one", "shared/two"]
    with engine.begin() as connection:
        return [
            streams.add(connection, NewStream(f"flow-{each}", f"s3://{each}-bucket/p"
                        if "/" not in each else f"s3://{each}"), actor="test")
            for each in buckets
        ]  # fmt: skip


@pytest.fixture
def board(made: list[Stream]) -> Board:
    """All streams in order and idle."""
    board = Board(made)
    board.settle()
    return board


def test_turns_are_taken_in_order(board: Board) -> None:
    """No more than the workers at once; the next begins when one is over, the last come last."""
    assert board.begin(1, 2, 3) == [1, 2]
    assert board.begin() == []
    board.finish(1, Outcome(due_in=0.0))
    board.now += 0.3
    assert board.begin(4) == [3]
    board.finish(2)
    assert board.begin() == [1], "interrupted at the end of its turn, it waits again"
    board.finish(3)
    assert board.begin() == [4]


def test_what_hangs_leaves_its_place_after_the_patience(board: Board) -> None:
    """Streams whose stores hang stop counting, so that others begin."""
    assert board.begin(1, 2, 3, 4) == [1, 2]
    board.now += 0.9
    assert board.begin() == []
    board.now += 0.2
    assert board.begin() == [3, 4]


def test_progress_is_not_hanging(board: Board) -> None:
    """A stream with a backlog delivers file after file, and counts for as long as it does."""
    board.begin(1, 2, 3)
    for _ in range(5):
        board.now += 0.9
        for task in board.running.values():
            task.progress_at = board.now
        assert board.begin() == []


def test_one_bucket_that_hangs_has_few_threads(board: Board) -> None:
    """While a stream hangs, others of its bucket go where trouble is, one at a time here."""
    assert board.begin(7) == [7]
    board.now += 2
    assert sorted(board.begin(8, 1, 2)) == [1, 2, 8]
    assert board.running[8].in_trouble_lane
    assert not board.running[1].in_trouble_lane
    board.now += 2
    board.finish(7, FAILED)
    board.finish(1)
    board.tasks.retry(Task(0, "", troubled=False))  # some other stream's
    assert board.begin(1) == [1]


def test_a_slow_failure_makes_its_bucket_suspect_until_it_succeeds(board: Board) -> None:
    """After a time limit has passed the other streams of the bucket do not fill the workers."""
    board.begin(7)
    board.now += 2
    board.finish(7, FAILED)
    board.begin(8)
    assert board.running[8].in_trouble_lane
    board.finish(8)
    board.now += 30
    board.tasks.retry(board.tasks._tasks[7])
    assert board.begin() == [7]
    assert board.running[7].in_trouble_lane
    board.finish(7)
    board.now += 1
    board.begin(7, 8)
    assert not board.running[7].in_trouble_lane
    assert not board.running[8].in_trouble_lane


def test_a_quick_refusal_concerns_its_stream_alone(board: Board) -> None:
    """Access denied below one prefix says nothing about the bucket's others."""
    board.begin(7)
    board.finish(7, FAILED)
    board.begin(8)
    assert not board.running[8].in_trouble_lane


def test_threads_are_kept_for_streams_in_order(board: Board) -> None:
    """However many hang in the lane for trouble, the workers' threads stay free."""
    board.begin(1, 2)
    while board.running:
        board.finish(next(iter(board.running)), FAILED)
        board.begin(3, 4, 5, 6, 7)
    board.now += 31
    for stream_id in range(1, 8):
        board.tasks.retry(board.tasks._tasks[stream_id])
    for _ in range(9):
        board.begin()
        board.now += 2
    assert len(board.running) == LANES.threads - LANES.workers
    assert board.begin(8) == [8]


def test_a_change_during_work_is_not_lost(board: Board, made: list[Stream]) -> None:
    """Resumed while its work was failing, a stream is tried again at once."""
    board.begin(1)
    resumed = replace(made[0], changed_at=made[1].changed_at)
    board.tasks.keep([resumed, *made[1:]])
    board.finish(1, Outcome(halted=True, error=StoreUnavailable("x", hint="")))
    assert board.begin() == [1]


def test_a_halted_stream_is_not_looked_at(board: Board, made: list[Stream]) -> None:
    """Only a change lets it go on."""
    board.begin(1)
    board.finish(1, Outcome(halted=True))
    board.now += 1000
    assert board.begin(1) == []
    board.tasks.keep([replace(made[0], changed_at=made[1].changed_at), *made[1:]])
    assert board.begin() == [1]


@pytest.mark.parametrize("state", ["retrying", "blocked"])
def test_streams_start_as_they_were_left(made: list[Stream], state: str) -> None:
    """After a restart, streams in trouble do not take the place of those in order."""
    left = [
        replace(each, status=replace(each.status, state=state)) if each.stream_id < 4 else each
        for each in made
    ]
    board = Board(left)
    assert board.begin() == [1, 4, 5]
    assert board.running[1].in_trouble_lane


def test_a_long_look_is_not_repeated_soon(board: Board) -> None:
    """With very many events that wait for a long delay, looking takes a tenth of the time."""
    board.begin(1)
    board.now += 0.5
    board.finish(1, Outcome(due_in=600.0))
    board.now += 4.9
    assert board.begin() == []
    board.now += 0.2
    assert board.begin() == [1]
    board.finish(1, Outcome(due_in=600.0))
    board.now += 0.26
    assert board.begin() == [1]


def test_rests_while_there_is_nothing_to_do(board: Board, made: list[Stream]) -> None:
    """Half a second at most, less where a delay is short, and never past a stream's own time."""
    assert board.tasks.rest(board.now) == 0.5
    assert board.begin(1) == [1]
    assert board.tasks.rest(board.now) == 0.0
    board.finish(1, Outcome(due_in=600.0))
    assert board.tasks.rest(board.now) == 0.25  # more may come for its file
    soon = replace(made[2], limits=replace(made[2].limits, max_delay=0.4))
    board.tasks.keep([*made[:2], soon, *made[3:]])
    assert board.tasks.rest(board.now) == pytest.approx(0.1)
    at_once = replace(soon, limits=replace(soon.limits, max_delay=0.0))
    board.tasks.keep([*made[:2], at_once, *made[3:]])
    assert board.tasks.rest(board.now) == 0.0


def test_a_stream_that_moved_away_is_forgotten(board: Board, made: list[Stream]) -> None:
    """Once its work is over, and with what it made suspect."""
    board.begin(7)
    board.now += 2
    assert 7 in board.tasks.keep(made[:6])
    board.finish(7, FAILED)
    assert board.tasks.keep([*made[:6], made[7]]) == {1, 2, 3, 4, 5, 6, 8}
    assert board.begin() == [8]
    assert not board.running[8].in_trouble_lane
    assert len(board.tasks) == 7
