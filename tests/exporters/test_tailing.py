"""Beside hostile writers: a plain reader loses events, a reader behind the fence none."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import sqlalchemy as sa
from support.fences import autocommit, open_fence, read_upto
from support.fixtures_postgres import Database
from support.writers import Writers

_SECONDS = 4.0
_NO_BOUND = 2**62


class Reader:
    """A thread that follows the outbox: what it saw, and up to where it has read."""

    def __init__(self, engine: sa.Engine, bound: Callable[[], int]) -> None:
        self.seen: list[int] = []
        self.failures: list[BaseException] = []
        self._engine = engine
        self._bound = bound
        self._checkpoint = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Read once more what is there by now, and end."""
        self._stopping.set()
        self._thread.join()
        assert self.failures == []

    def _run(self) -> None:
        try:
            with autocommit(self._engine) as connection:
                last = False
                while not last:
                    last = self._stopping.is_set()
                    upto = self._bound()
                    found = read_upto(connection, upto, after=self._checkpoint)
                    self.seen += found
                    self._checkpoint = found[-1] if found else self._checkpoint
                    time.sleep(0.005)  # a reader polls
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            self.failures.append(error)


def test_a_plain_reader_loses_events_and_one_behind_the_fence_none(database_any: Database) -> None:
    """In one run: `position > checkpoint` skips what commits late; the fence waits for it."""
    engine = sa.create_engine(database_any.url, pool_size=20)
    with open_fence(engine) as fence:
        plain, fenced = Reader(engine, lambda: _NO_BOUND), Reader(engine, fence.advance)
        with Writers(engine, ["flow-1", "flow-2"], seed=11, holds=0.3).running() as writers:
            plain.start()
            fenced.start()
            began = time.monotonic()
            moves = set()
            while time.monotonic() - began < _SECONDS:
                moves.add(fence.position)
                time.sleep(0.05)
        plain.stop()
        fenced.stop()
    with engine.connect() as connection:
        committed = read_upto(connection, _NO_BOUND)
    engine.dispose()

    assert len(committed) == writers.events > 100
    lost = set(committed) - set(plain.seen)
    assert lost, "the workload did not commit out of order, and the test proves nothing"
    missed = set(committed) - set(fenced.seen)
    assert not missed, f"the fence skipped {len(missed)} of {len(committed)} events"
    assert fenced.seen == sorted(fenced.seen)
    assert max(Counter(fenced.seen).values()) == 1
    assert set(fenced.seen) == set(committed)
    assert len(moves) > 1, "the fence stood still while the writers wrote"
