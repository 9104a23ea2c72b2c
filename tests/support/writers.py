"""Eight hostile writers: rollbacks, savepoints, slow commits, prepared transactions, repeats.

What they committed is remembered here, from their own point of view. The seed fixes what each
of them does; how they interleave is the machine's. Tolerant ones go on after a fault of the
database; where the answer to a commit was lost, the database is asked at the end.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from auditstore.errors import DatabaseRefused, DatabaseUnavailable, EventConflict
from auditstore.repository import EventRepository
from support.eventually import eventually
from support.lead_events import id_of, lead_event

WRITERS = 8
#: What a database in trouble may answer; anything else is a failure of the test.
FAULTS = (DatabaseUnavailable, DatabaseRefused, SQLAlchemyError, psycopg.Error)
_PREPARED_AT_ONCE = 6
_LONGEST_HOLD_S = 1.5


class Writers:
    """Threads that append to ``flows`` until told to stop.

    ``committed`` has every committed event by flow and id, ``done`` counts what was done.
    ``holds`` scales the time for which slow transactions stay open; between two acts a writer
    pauses for up to ``pace`` seconds, as a flow engine does other things. ``tolerant`` writers
    survive faults of the database; their engine's application name is to be theirs alone.
    ``without`` names acts to leave out: where commits may be lost, ``repeat`` and ``conflict``
    would take for known what the database has forgotten.
    """

    def __init__(
        self,
        engine: Engine,
        flows: Sequence[str],
        seed: int,
        *,
        holds: float = 1.0,
        pace: float = 0.02,
        tolerant: bool = False,
        without: Collection[str] = (),
    ) -> None:
        self.committed: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.done: Counter[str] = Counter()
        self._engine = engine
        self._flows = flows
        self._seed = seed
        self._holds = holds
        self._pace = pace
        self._tolerant = tolerant
        self._without = without
        self._repository = EventRepository()
        self._stopping = threading.Event()
        self._prepared: list[tuple[str, str, list[bytes]]] = []
        # Whose fate is not known: transactions, and prepared ones with their name.
        self._unsure: list[tuple[str, list[bytes]]] = []
        self._unsure_prepared: list[tuple[str, str, list[bytes]]] = []
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

    def append(self, flow: str, snapshots: Sequence[bytes]) -> None:
        """Commit these events of the test's own, as a backlog."""
        with self._transaction(flow) as (connection, kept):
            kept.extend(snapshots)
            self._repository.append(connection, kept)

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
            if self._failures:
                raise self._failures[0]
            while self._prepared:
                self._attempt(lambda: self._finish_prepared(random.Random(self._seed)))
            if self._tolerant:
                self._ask_what_became_of_the_unsure()

    def _run(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        acts: list[Callable[[random.Random, str], None]] = [
            self._single, self._single, self._bulk, self._rolled_back, self._savepoints,
            self._slow, self._prepare, self._repeat, self._conflict,
        ]  # fmt: skip
        acts = [act for act in acts if act.__name__.strip("_") not in self._without]
        try:
            while not self._stopping.is_set():
                act, flow = chance.choice(acts), chance.choice(self._flows)
                done = self._attempt(lambda: act(chance, flow))  # noqa: B023  # called at once
                with self._lock:
                    self.done[act.__name__.strip("_") if done else "met a fault"] += 1
                self._stopping.wait(chance.uniform(0, self._pace if done else 0.2))
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self._failures.append(error)
            self._stopping.set()

    def _attempt(self, act: Callable[[], None]) -> bool:
        """Whether it was done; a fault that is not tolerated is raised."""
        try:
            act()
        except FAULTS:
            if not self._tolerant:
                raise
            return False
        return True

    @contextmanager
    def _transaction(self, flow: str) -> Iterator[tuple[Connection, list[bytes]]]:
        """A transaction of one's own; what is put in the list counts as committed with it."""
        kept: list[bytes] = []
        try:
            with self._engine.begin() as connection:
                yield connection, kept
        except FAULTS:
            with self._lock:
                self._unsure.append((flow, kept))
            raise
        self._remember(flow, kept)

    # --- what a writer may do -------------------------------------------------------

    def _single(self, chance: random.Random, flow: str) -> None:
        with self._transaction(flow) as (connection, kept):
            kept.extend(self._new(chance, flow, 1))
            self._repository.append(connection, kept[0])

    def _bulk(self, chance: random.Random, flow: str) -> None:
        with self._transaction(flow) as (connection, kept):
            kept.extend(self._new(chance, flow, chance.randint(3, 40)))
            self._repository.append(connection, kept)

    def _rolled_back(self, chance: random.Random, flow: str) -> None:
        with self._engine.connect() as connection:
            self._repository.append(connection, self._new(chance, flow, chance.choice([1, 2, 7])))
            connection.rollback()

    def _savepoints(self, chance: random.Random, flow: str) -> None:
        with self._transaction(flow) as (connection, kept):
            for _ in range(chance.randint(2, 4)):
                snapshots = self._new(chance, flow, chance.choice([1, 2, 5]))
                with connection.begin_nested() as savepoint:
                    self._repository.append(connection, snapshots)
                    if chance.random() < 0.5:
                        savepoint.rollback()
                    else:
                        kept.extend(snapshots)

    def _slow(self, chance: random.Random, flow: str) -> None:
        snapshots = self._new(chance, flow, chance.choice([1, 3]))
        with self._transaction(flow) as (connection, kept):
            self._repository.append(connection, snapshots)
            time.sleep(chance.uniform(0.1, _LONGEST_HOLD_S) * self._holds)
            if chance.random() < 0.3:
                connection.rollback()
            else:
                kept.extend(snapshots)

    def _prepare(self, chance: random.Random, flow: str) -> None:
        """Prepare a transaction; another session ends it some time later."""
        self._end_a_forgotten_one()
        with self._lock:
            full = len(self._prepared) >= _PREPARED_AT_ONCE
        if not full:
            snapshots = self._new(chance, flow, chance.choice([1, 4]))
            gid = secrets.token_hex(8)
            try:
                with self._engine.connect() as connection:
                    self._repository.append(connection, snapshots)
                    connection.exec_driver_sql(f"PREPARE TRANSACTION '{gid}'")
            except FAULTS:
                with self._lock:
                    self._unsure_prepared.append((gid, flow, snapshots))
                raise
            with self._lock:
                self._prepared.append((gid, flow, snapshots))
        if full or chance.random() < 0.7:
            time.sleep(chance.uniform(0.0, 0.4) * self._holds)
            self._finish_prepared(chance)

    def _end_a_forgotten_one(self) -> None:
        """Commit one whose answer was lost, if it is there: it would hold the fence for ever.

        One that is not there may still come, or was ended; what became of it is asked later.
        """
        with self._lock:
            if not self._unsure_prepared:
                return
            gid, flow, snapshots = self._unsure_prepared.pop(0)
        unsettled = True
        try:
            with self._engine.connect() as connection:
                there = connection.execute(
                    sa.text("SELECT true FROM pg_prepared_xacts WHERE gid = :gid"), {"gid": gid}
                ).scalar()
            if there:
                self._autocommit(f"COMMIT PREPARED '{gid}'")
                self._remember(flow, snapshots)
                unsettled = False
        finally:
            if unsettled:
                with self._lock:
                    self._unsure_prepared.append((gid, flow, snapshots))

    def _finish_prepared(self, chance: random.Random) -> None:
        with self._lock:
            if not self._prepared:
                return
            gid, flow, snapshots = self._prepared.pop(chance.randrange(len(self._prepared)))
        commit = chance.random() < 0.7
        try:
            self._autocommit(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{gid}'")
        except FAULTS:
            with self._lock:
                self._unsure_prepared.append((gid, flow, snapshots))
            raise
        if commit:
            self._remember(flow, snapshots)

    def _repeat(self, chance: random.Random, flow: str) -> None:
        """Append again what is there, alone or among new events."""
        known = self._some_known(chance, flow, 5)
        new = self._new(chance, flow, chance.choice([0, 1, 4]))
        if not known:
            return
        with self._transaction(flow) as (connection, kept):
            result = self._repository.append(connection, [*known, *new])
            assert (result.appended, result.existing) == (len(new), len(known))
            kept.extend(new)

    def _conflict(self, chance: random.Random, flow: str) -> None:
        """Offer a known id with other content, in a transaction that then goes on."""
        known = self._some_known(chance, flow, 1)
        if not known:
            return
        offered = [*self._new(chance, flow, 2), known[0].replace(b"success", b"failure")]
        with self._transaction(flow) as (connection, kept):
            try:
                self._repository.append(connection, offered)
            except EventConflict:
                kept.extend(self._new(chance, flow, 1))
                self._repository.append(connection, kept)
            else:
                raise AssertionError("a conflict was not noticed")

    # --- what is known --------------------------------------------------------------

    def _new(self, chance: random.Random, flow: str, count: int) -> list[bytes]:
        return [lead_event(flow, padding=int(chance.expovariate(1 / 600))) for _ in range(count)]

    def _some_known(self, chance: random.Random, flow: str, count: int) -> list[bytes]:
        with self._lock:
            known = list(self.committed[flow].values())[-200:]
        return chance.sample(known, min(count, len(known)))

    def forget_what_was_lost(self) -> int:
        """Forget commits that the database lost, as one may that does not wait for its disk.

        Call it when all have stopped; how many events were lost.
        """
        lost = 0
        for flow, events in self.committed.items():
            for event_id in events.keys() - self._stored(flow, list(events)):
                del events[event_id]
                lost += 1
        return lost

    def _ask_what_became_of_the_unsure(self) -> None:
        """Look each event up, once nothing of ours is in flight; a transaction is all or none."""
        self._engine.dispose()
        eventually(self._is_quiet, within=30, what="the writers' last transactions are over")
        with self._engine.connect() as connection:
            left = set(connection.execute(sa.text("SELECT gid FROM pg_prepared_xacts")).scalars())
        for gid, flow, snapshots in self._unsure_prepared:
            if gid in left:
                self._autocommit(f"COMMIT PREPARED '{gid}'")
            self._unsure.append((flow, snapshots))
        for flow, snapshots in self._unsure:
            stored = self._stored(flow, [id_of(snapshot) for snapshot in snapshots])
            assert len(stored) in {0, len(snapshots)}, "a transaction was committed in part"
            if stored:
                self.done["commit without an answer"] += 1
                self._remember(flow, snapshots)

    def _is_quiet(self) -> bool:
        with self._engine.connect() as connection:
            working = connection.execute(sa.text(
                "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND application_name = current_setting('application_name')"
                " AND datname = current_database() AND backend_xid IS NOT NULL"
            )).scalar_one()  # fmt: skip
        return not working

    def _stored(self, flow: str, event_ids: list[str]) -> set[str]:
        with self._engine.connect() as connection:
            found = connection.execute(
                sa.text(
                    "SELECT event_id FROM auditstore.events"
                    " WHERE flow_id = :flow AND event_id = ANY (:event_ids)"
                ),
                {"flow": flow, "event_ids": event_ids},
            )
            return set(found.scalars())

    def _autocommit(self, statement: str) -> None:
        with self._engine.connect() as plain:
            plain.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(statement)

    def _remember(self, flow: str, snapshots: Sequence[bytes]) -> None:
        with self._lock:
            self.committed[flow] |= {id_of(snapshot): snapshot for snapshot in snapshots}
