"""Eight hostile writers: rollbacks, savepoints, slow commits, prepared transactions, repeats.

What they committed is remembered here, from their own point of view. The seed fixes what each
of them does; how they interleave is the machine's.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine

from auditstore.errors import EventConflict
from auditstore.repository import EventRepository
from support.lead_events import id_of, lead_event

WRITERS = 8
_PREPARED_AT_ONCE = 6
_LONGEST_HOLD_S = 1.5


class Writers:
    """Threads that append to ``flows`` until told to stop.

    ``committed`` has every committed event by flow and id, ``done`` counts what was done.
    ``holds`` scales the time for which slow transactions stay open.
    """

    def __init__(
        self, engine: Engine, flows: Sequence[str], seed: int, *, holds: float = 1.0
    ) -> None:
        self.committed: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.done: Counter[str] = Counter()
        self._engine = engine
        self._flows = flows
        self._seed = seed
        self._holds = holds
        self._repository = EventRepository()
        self._stopping = threading.Event()
        self._prepared: list[tuple[str, str, list[bytes]]] = []
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"writer-{number}")
            for number in range(WRITERS)
        ]

    @property
    def events(self) -> int:
        """How many events are committed."""
        with self._lock:
            return sum(len(events) for events in self.committed.values())

    @contextmanager
    def running(self) -> Iterator[Writers]:
        """Write while the block runs; at its end every transaction is over."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()
            while self._prepared:
                self._finish_prepared(random.Random(self._seed))
            if self._failures:
                raise self._failures[0]

    def _run(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        acts: list[Callable[[random.Random, str], None]] = [
            self._single, self._single, self._bulk, self._rolled_back, self._savepoints,
            self._slow, self._prepare, self._repeat, self._conflict,
        ]  # fmt: skip
        try:
            while not self._stopping.is_set():
                act = chance.choice(acts)
                act(chance, chance.choice(self._flows))
                with self._lock:
                    self.done[act.__name__.strip("_")] += 1
                # As a flow engine does other things between two events.
                self._stopping.wait(chance.uniform(0, 0.02))
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self._failures.append(error)
            self._stopping.set()

    # --- what a writer may do -------------------------------------------------------

    def _single(self, chance: random.Random, flow: str) -> None:
        snapshots = self._new(chance, flow, 1)
        with self._engine.begin() as connection:
            self._repository.append(connection, snapshots[0])
        self._remember(flow, snapshots)

    def _bulk(self, chance: random.Random, flow: str) -> None:
        snapshots = self._new(chance, flow, chance.randint(3, 40))
        with self._engine.begin() as connection:
            self._repository.append(connection, snapshots)
        self._remember(flow, snapshots)

    def _rolled_back(self, chance: random.Random, flow: str) -> None:
        with self._engine.connect() as connection:
            self._repository.append(connection, self._new(chance, flow, chance.choice([1, 2, 7])))
            connection.rollback()

    def _savepoints(self, chance: random.Random, flow: str) -> None:
        kept: list[bytes] = []
        with self._engine.begin() as connection:
            for _ in range(chance.randint(2, 4)):
                snapshots = self._new(chance, flow, chance.choice([1, 2, 5]))
                with connection.begin_nested() as savepoint:
                    self._repository.append(connection, snapshots)
                    if chance.random() < 0.5:
                        savepoint.rollback()
                    else:
                        kept += snapshots
        self._remember(flow, kept)

    def _slow(self, chance: random.Random, flow: str) -> None:
        snapshots = self._new(chance, flow, chance.choice([1, 3]))
        with self._engine.connect() as connection:
            self._repository.append(connection, snapshots)
            time.sleep(chance.uniform(0.1, _LONGEST_HOLD_S) * self._holds)
            if chance.random() < 0.3:
                connection.rollback()
                return
            connection.commit()
        self._remember(flow, snapshots)

    def _prepare(self, chance: random.Random, flow: str) -> None:
        """Prepare a transaction; another session ends it some time later."""
        with self._lock:
            full = len(self._prepared) >= _PREPARED_AT_ONCE
        if not full:
            snapshots = self._new(chance, flow, chance.choice([1, 4]))
            gid = secrets.token_hex(8)
            with self._engine.connect() as connection:
                self._repository.append(connection, snapshots)
                connection.exec_driver_sql(f"PREPARE TRANSACTION '{gid}'")
            with self._lock:
                self._prepared.append((gid, flow, snapshots))
        if full or chance.random() < 0.7:
            time.sleep(chance.uniform(0.0, 0.4) * self._holds)
            self._finish_prepared(chance)

    def _finish_prepared(self, chance: random.Random) -> None:
        with self._lock:
            if not self._prepared:
                return
            gid, flow, snapshots = self._prepared.pop(chance.randrange(len(self._prepared)))
        commit = chance.random() < 0.7
        with self._engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{gid}'")
        if commit:
            self._remember(flow, snapshots)

    def _repeat(self, chance: random.Random, flow: str) -> None:
        """Append again what is there, alone or among new events."""
        known = self._some_known(chance, flow, 5)
        new = self._new(chance, flow, chance.choice([0, 1, 4]))
        if not known:
            return
        with self._engine.begin() as connection:
            result = self._repository.append(connection, [*known, *new])
        assert (result.appended, result.existing) == (len(new), len(known))
        self._remember(flow, new)

    def _conflict(self, chance: random.Random, flow: str) -> None:
        """Offer a known id with other content, in a transaction that then goes on."""
        known = self._some_known(chance, flow, 1)
        if not known:
            return
        offered = [*self._new(chance, flow, 2), known[0].replace(b"success", b"failure")]
        after = self._new(chance, flow, 1)
        with self._engine.begin() as connection:
            try:
                self._repository.append(connection, offered)
            except EventConflict:
                self._repository.append(connection, after)
            else:
                raise AssertionError("a conflict was not noticed")
        self._remember(flow, after)

    # --- what is known --------------------------------------------------------------

    def _new(self, chance: random.Random, flow: str, count: int) -> list[bytes]:
        return [lead_event(flow, padding=int(chance.expovariate(1 / 600))) for _ in range(count)]

    def _some_known(self, chance: random.Random, flow: str, count: int) -> list[bytes]:
        with self._lock:
            known = list(self.committed[flow].values())[-200:]
        return chance.sample(known, min(count, len(known)))

    def _remember(self, flow: str, snapshots: Sequence[bytes]) -> None:
        with self._lock:
            self.committed[flow] |= {id_of(snapshot): snapshot for snapshot in snapshots}
