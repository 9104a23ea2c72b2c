"""Which streams' work may begin: whose turn it is, and how much may run beside what hangs.

A store that hangs holds its thread until the client's time limit, and nobody can know
beforehand that it will. So what has made no progress for ``patience`` seconds stops counting
as one of the ``workers``, and further streams of the same place have to share the threads that
are for trouble. Healthy streams wait for the patience at most, not for the time limits.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from auditstore.errors import ConfigurationError
from auditstore.streams import Stream
from exporters.worker import Outcome

# A look that took long is not repeated soon: at most this part of the time is spent looking.
_LOOKING: Final = 0.1
# While nothing is to be done the outbox is looked at twice a second, or four times within the
# shortest delay of a stream: a file's delay counts from its event, so it goes out no later.
_LONGEST_REST: Final = 0.5
_LOOKS_A_DELAY: Final = 4


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many streams may be worked on at once.

    ``workers`` of those in order, ``troubled`` of those in trouble, and beside them ``hanging``
    ones; of one place that hangs no more than ``workers``. ``patience`` in seconds.
    """

    workers: int = 6
    troubled: int = 4
    hanging: int = 54
    patience: float = 0.75

    @property
    def threads(self) -> int:
        """All together."""
        return self.workers + self.troubled + self.hanging


@dataclass(slots=True)
class Task:
    """What the daemon knows of a stream that it has leased. Times are monotonic seconds."""

    stream_id: int
    place: str
    # Its last work failed; and so late that others of its place may hang too.
    troubled: bool
    slow: bool = False
    halted: bool = False
    version: object = None
    running: bool = False
    in_trouble_lane: bool = False
    began_at: float = 0.0
    progress_at: float = 0.0
    # What its work saw last.
    worked_version: object = None
    worked_fence: int = -1
    # Not before this; without new events, again at that.
    not_before: float = 0.0
    check_at: float | None = 0.0


class Tasks:
    """The tasks of a daemon; any thread may call."""

    def __init__(self, lanes: Lanes, *, recheck: float) -> None:
        self._lanes = lanes
        self._recheck = recheck
        self._lock = threading.Lock()
        self._tasks: dict[int, Task] = {}
        # Insertion order: who came first begins first.
        self._waiting: dict[int, Task] = {}
        self._running: dict[int, Task] = {}
        self._slow: Counter[str] = Counter()
        self._shortest_delay = 0.0

    def __len__(self) -> int:
        """How many streams are leased."""
        return len(self._tasks)

    def keep(self, mine: Iterable[Stream]) -> set[int]:
        """Have a task for each leased stream; return the ids, with those still running.

        What was changed since its work began is due at once.
        """
        leased = {stream.stream_id: stream for stream in mine}
        delays = [stream.limits.max_delay for stream in leased.values()]
        with self._lock:
            self._shortest_delay = min(delays, default=2 * _LONGEST_REST * _LOOKS_A_DELAY)
            for stream_id in self._tasks.keys() - leased.keys() - self._running.keys():
                self._set_slow(self._tasks.pop(stream_id), slow=False)
                self._waiting.pop(stream_id, None)
            for stream_id, stream in leased.items():
                state = stream.status.state
                if (task := self._tasks.get(stream_id)) is None:
                    task = self._tasks[stream_id] = Task(
                        stream_id, place=_place(stream), troubled=state != "streaming"
                    )
                    self._set_slow(task, slow=state == "retrying")
                elif task.version != stream.version:
                    self._set_slow(task, slow=False)
                    task.place = _place(stream)
                else:
                    continue
                task.version, task.halted = stream.version, state == "halted"
                task.not_before, task.check_at = 0.0, 0.0
            return set(self._tasks)

    def idle(self, stream_ids: Iterable[int]) -> list[int]:
        """Those of the streams on which no work runs."""
        with self._lock:
            return [stream_id for stream_id in stream_ids if stream_id not in self._running]

    def rest(self, now: float) -> float:
        """For how many seconds nothing needs to be looked at, where the fence does not move."""
        with self._lock:
            if self._waiting or self._running:
                return 0.0
            times = [
                max(task.check_at, task.not_before)
                for task in self._tasks.values()
                if task.check_at is not None and not task.halted
            ]
            longest = min(_LONGEST_REST, self._shortest_delay / _LOOKS_A_DELAY)
            return max(0.0, min(longest, min(times, default=now + longest) - now))

    def look(self, now: float, fence: int) -> list[int]:
        """Let those whose time has come wait for their turn; return the streams for which the
        outbox must be asked, since the fence moved.
        """
        with self._lock:
            ask = []
            for task in self._tasks.values():
                if task.running or task.halted or task.not_before > now:
                    continue
                if task.check_at is None:
                    if task.worked_fence != fence and task.stream_id not in self._waiting:
                        ask.append(task.stream_id)
                elif task.check_at <= now:
                    self._waiting.setdefault(task.stream_id, task)
            return ask

    def found(self, asked: Iterable[int], waiting: Collection[int], fence: int) -> None:
        """The outbox's answer: which of the asked streams have events up to the fence."""
        with self._lock:
            for stream_id in asked:
                task = self._tasks.get(stream_id)
                if task is None or task.running:
                    continue
                if stream_id in waiting:
                    self._waiting.setdefault(stream_id, task)
                else:
                    task.worked_fence = fence

    def begin(self, now: float, fence: int) -> list[Task]:
        """Take those that may begin now; each must be given to :meth:`finish`."""
        with self._lock:
            if not self._waiting:
                return []
            begun = self._choose(now)
            for task in begun:
                del self._waiting[task.stream_id]
                self._running[task.stream_id] = task
                task.running, task.began_at, task.progress_at = True, now, now
                task.worked_version, task.worked_fence = task.version, fence
            return begun

    def _choose(self, now: float) -> list[Task]:
        lanes = self._lanes
        room, troubled_room = lanes.workers, lanes.troubled
        # Some threads are kept for those in order, however many hang.
        free = lanes.threads - len(self._running)
        suspects = set(+self._slow)
        at_place: Counter[str] = Counter()
        for task in self._running.values():
            at_place[task.place] += 1
            if now - task.progress_at > lanes.patience:
                suspects.add(task.place)
            elif task.in_trouble_lane:
                troubled_room -= 1
            else:
                room -= 1
        chosen = []
        for task in self._waiting.values():
            troubled_room = min(troubled_room, free - lanes.workers)
            room = min(room, free)
            if room <= 0 and troubled_room <= 0:
                break
            suspect = task.place in suspects
            task.in_trouble_lane = suspect or task.troubled
            if task.in_trouble_lane:
                if troubled_room <= 0 or (suspect and at_place[task.place] >= lanes.workers):
                    continue
                troubled_room -= 1
            else:
                if room <= 0:
                    continue
                room -= 1
            free -= 1
            at_place[task.place] += 1
            chosen.append(task)
        return chosen

    def finish(self, task: Task, outcome: Outcome | None, now: float) -> None:
        """Its work is over: when to look again. Without outcome the database was in trouble."""
        with self._lock:
            del self._running[task.stream_id]
            task.running = False
            task.not_before, task.check_at = now, None
            if outcome is None:
                task.not_before = task.check_at = now + 1.0
                return
            # Changed or resumed meanwhile, it is not to wait for what its work has found.
            unchanged = task.worked_version == task.version
            task.halted = outcome.halted and unchanged
            task.troubled = outcome.retry_in is not None
            late = now - task.progress_at > self._lanes.patience
            self._set_slow(task, slow=task.troubled and late)
            if not unchanged:
                task.check_at = now
            elif outcome.retry_in is not None:
                # Until the retry's job says that it is due.
                task.not_before = now + outcome.retry_in
            elif outcome.due_in is not None:
                # More events may fill the file sooner than its delay ends.
                looking = 0.0 if outcome.delivered else (now - task.began_at) / _LOOKING
                task.check_at = now + min(outcome.due_in, max(self._recheck, looking))

    def retry(self, task: Task) -> None:
        """What failed is to be tried again now."""
        with self._lock:
            task.not_before = task.check_at = 0.0

    def _set_slow(self, task: Task, *, slow: bool) -> None:
        self._slow[task.place] += slow - task.slow
        task.slow = slow


def _place(stream: Stream) -> str:
    """What hangs together."""
    try:
        destination = stream.destination
    except ConfigurationError:
        return f"none {stream.stream_id}"  # its own work says what is wrong with it
    return f"{destination.scheme} {destination.endpoint_url or ''} {destination.bucket}"
