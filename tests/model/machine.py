"""Writers and exporters on a real database, and everything that they may do next."""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from typing import ClassVar

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection
from support.bucket_check import check_bucket
from support.fixtures_postgres import Database
from support.lead_events import id_of
from support.memory_store import MemoryStore

from auditstore import streams
from auditstore.objects import NewObject
from auditstore.streams import Limits, NewStream

from .oracle import Oracle
from .slow_writer import Writer
from .stepped import BLOCKED, IDLE, Exporter

#: What may happen between the fence's two questions.
BETWEEN = ("appends", "commits", "is overtaken")
#: Where a worker may stand still.
GATES = ("begin", "tail", "commit", "put", "stored")
_numbers = itertools.count(1)
_exporters = st.integers(0, 1)
_writers = st.integers(0, 1)
_gates = st.sampled_from(GATES)


class Protocol(RuleBasedStateMachine):
    """Two slow writers and many quick ones, two exporters, a stream of its own: one example."""

    database: ClassVar[Database]
    seen: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.engine = sa.create_engine(self.database.url, poolclass=sa.NullPool)
        self.admin = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self.number = next(_numbers)
        self.flow = f"flow-{self.number}"
        self.store = MemoryStore()
        with self.engine.begin() as connection:
            new = NewStream(self.flow, f"s3://bucket-1/{self.flow}", limits=Limits(max_events=3))
            self.stream_id = streams.add(connection, new, actor="test").stream_id
        self.reader = self.engine.connect()
        self.oracle = Oracle(self.reader, self.stream_id, self.store.objects)
        self.writers = [Writer(self.engine) for _ in range(2)]
        self.prepared: dict[str, list[bytes]] = {}
        self.committed: dict[str, bytes] = {}
        self.late: list[NewObject] = []
        self.exporters = [self.new_exporter(number) for number in range(2)]

    def new_exporter(self, number: int) -> Exporter:
        """A process that knows nothing yet."""
        name = f"{self.flow} exporter {number}"
        return Exporter(self.database.url, name, self.store, self.admin, self.seen)

    # --- writers ------------------------------------------------------------------

    @rule(writer=_writers, count=st.integers(1, 4))
    def append(self, writer: int, count: int) -> None:
        """Events get their positions; they may become visible much later."""
        self.writers[writer].append(self.flow, count)

    @rule(writer=_writers)
    def append_inside_a_savepoint(self, writer: int) -> None:
        """Positions that stay empty."""
        self.writers[writer].append_and_regret(self.flow, 1)

    @rule(count=st.integers(1, 4))
    def append_and_commit(self, count: int) -> None:
        """A short transaction overtakes those that are open."""
        self.commit_at_once(count)

    def commit_at_once(self, count: int) -> None:
        """Append and commit."""
        writer = Writer(self.engine)
        writer.append(self.flow, count)
        self.owe(writer.end(Connection.commit))

    @rule(writer=_writers)
    def commit(self, writer: int) -> None:
        """Its events are owed from now on."""
        self.owe(self.writers[writer].end(Connection.commit))

    @rule(writer=_writers, dropped=st.booleans())
    def roll_back(self, writer: int, dropped: bool) -> None:
        """By its own will, or since its connection broke."""
        self.writers[writer].end(Connection.invalidate if dropped else Connection.rollback)

    @precondition(lambda self: len(self.prepared) < 5)
    @rule(writer=_writers, count=st.integers(0, 2))
    def prepare(self, writer: int, count: int) -> None:
        """The transaction leaves its session, with some more events."""
        if count:
            self.writers[writer].append(self.flow, count)
        gid = secrets.token_hex(8)
        if self.writers[writer].events:
            self.prepared[gid] = self.writers[writer].end(
                lambda connection: connection.exec_driver_sql(f"PREPARE TRANSACTION '{gid}'")
            )

    @precondition(lambda self: self.prepared)
    @rule(commit=st.booleans())
    def end_prepared(self, commit: bool) -> None:
        """Another session ends it."""
        gid, events = self.prepared.popitem()
        self.admin.exec_driver_sql(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{gid}'")
        if commit:
            self.owe(events)

    @rule()
    def everybody_commits(self) -> None:
        """Nothing holds the fence back any more."""
        for writer in self.writers:
            self.owe(writer.end(Connection.commit))
        for gid in list(self.prepared):
            self.admin.exec_driver_sql(f"COMMIT PREPARED '{gid}'")
            self.owe(self.prepared.pop(gid))

    def owe(self, events: list[bytes]) -> None:
        """These must come to lie in the bucket."""
        for snapshot in events:
            self.committed[id_of(snapshot)] = snapshot

    # --- exporters ----------------------------------------------------------------

    @rule(exporter=_exporters)
    def tick(self, exporter: int) -> None:
        """The fence looks."""
        self.exporters[exporter].tick()

    @rule(
        exporter=_exporters, writer=_writers, what=st.sampled_from(BETWEEN), directly=st.booleans()
    )
    def tick_while_a_writer_writes(
        self, exporter: int, writer: int, what: str, directly: bool
    ) -> None:
        """Between the fence's two questions somebody appends, commits, or is overtaken.

        Where nothing was open before, it shows directly in the worker's next turn.
        """
        if directly:
            self.everybody_commits()
        between = self.writers[writer]

        def act() -> None:
            if what == "commits":
                self.owe(between.end(Connection.commit))
                return
            between.append(self.flow, 1)
            if what == "is overtaken":
                self.commit_at_once(1)

        self.exporters[exporter].tick(act)
        self.seen[f"a writer {what} between the fence's two questions"] += 1
        if directly:
            self.work(exporter)

    @rule(exporter=_exporters, ticks=st.integers(0, 2), gate=_gates)
    def begin_turn(self, exporter: int, ticks: int, gate: str) -> None:
        """With the fence as it is now, whatever happens to it later; it stops at the gate."""
        process = self.exporters[exporter]
        for _ in range(ticks or not process.fence.safe.run):
            process.tick()
        if process.gates.settle() == IDLE:
            process.begin_turn(self.stream_id)
            self.go_on_to(process, gate)

    @rule(first=_exporters, gate=_gates, second=_gates, count=st.integers(2, 7))
    def begin_both(self, first: int, gate: str, second: str, count: int) -> None:
        """Both think that the stream is theirs, and there is work: each stands at its gate."""
        self.commit_at_once(count)
        for number in (first, 1 - first):
            process = self.exporters[number]
            process.tick()
            if process.gates.settle() == IDLE:
                process.begin_turn(self.stream_id)
                self.go_on_to(process, gate if number == first else second)

    @precondition(lambda self: self.busy())
    @rule(which=st.integers(0, 1), gate=_gates)
    def go_on(self, which: int, gate: str) -> None:
        """A worker goes on from where it stands, however long it stood there."""
        process = self.busy()[which % len(self.busy())]
        process.step()
        self.go_on_to(process, gate)

    def go_on_to(self, process: Exporter, gate: str) -> None:
        """Until it stands at this gate, is blocked, or has finished."""
        at = process.gates.settle()
        while at not in {gate, IDLE, BLOCKED}:
            at = process.step()
        self.seen[f"stood at {at}"] += 1
        self.settle()

    @rule(order=st.lists(_exporters, min_size=10, max_size=40))
    def take_turns(self, order: list[int]) -> None:
        """Both go from gate to gate in this order; whoever is blocked or has finished stays."""
        for number in order:
            self.exporters[number].step()
            self.settle()
            self.oracle.check()

    @rule(exporter=_exporters)
    def whole_turn(self, exporter: int) -> None:
        """A fence looks, and its worker goes on as far as it can."""
        self.exporters[exporter].tick()
        self.work(exporter)

    def work(self, exporter: int) -> None:
        """Finish the turn in hand, or do a whole one."""
        process = self.exporters[exporter]
        if process.gates.settle() == IDLE:
            process.begin_turn(self.stream_id)
        self.go_on_to(process, IDLE)

    @precondition(lambda self: self.busy())
    @rule(which=st.integers(0, 1))
    def lose_the_lease(self, which: int) -> None:
        """The turn is to end; the file in hand is finished all the same."""
        self.busy()[which % len(self.busy())].turn_ends = True

    @precondition(lambda self: self.busy())
    @rule(which=st.integers(0, 1))
    def cut_its_connection(self, which: int) -> None:
        """Its session ends; the process notices at its next statement."""
        if self.busy()[which % len(self.busy())].cut():
            self.seen["connections cut"] += 1
        self.settle()

    @precondition(lambda self: self.busy())
    @rule(which=st.integers(0, 1), gate=st.none() | _gates, at_once=st.booleans())
    def kill(self, which: int, gate: str | None, at_once: bool) -> None:
        """A process dies at this gate or where it stands; what it was about to put arrives at once
        or late. Another takes its place.
        """
        exporter = self.busy()[which % len(self.busy())]
        if gate is not None:
            self.go_on_to(exporter, gate)
        request = exporter.kill()
        if request is not None:
            self.late.append(request)
            if at_once:
                self.late_request_arrives()
        assert not exporter.failures, exporter.failures
        number = self.exporters.index(exporter)
        self.exporters[number] = self.new_exporter(number)
        self.settle()

    def busy(self) -> list[Exporter]:
        """Those in a turn."""
        return [each for each in self.exporters if each.gates.at != IDLE]

    @precondition(lambda self: self.late)
    @rule()
    def late_request_arrives(self) -> None:
        """What a dead process had sent reaches the store."""
        created = self.store.put_if_absent(self.late.pop(0)).created
        self.seen[f"requests of the dead, {'first' if created else 'too late'}"] += 1

    def settle(self) -> None:
        """What one has done may have freed the other: wait until it stands still again."""
        for exporter in self.exporters:
            exporter.gates.settle()

    # --- what must hold -----------------------------------------------------------

    @invariant()
    def every_promise_holds(self) -> None:
        """After every step; and no turn may fail but for the database."""
        for exporter in self.exporters:
            assert not exporter.failures, exporter.failures
        self.oracle.check()

    def teardown(self) -> None:
        """Everything comes to an end; then all that was committed lies in the bucket once."""
        try:
            for exporter in range(2):
                self.exporters[exporter].tick()
                self.work(exporter)
            self.finish_turns()
            self.everybody_commits()
            self.one_dies_and_the_other_finishes(*self.exporters)
            while self.late:
                self.late_request_arrives()
            self.every_promise_holds()
            if self.committed:
                checked = check_bucket(self.engine, self.stream_id, self.store, self.committed)
                self.seen["events delivered"] += checked.events
                self.seen["files delivered"] += checked.objects
            assert self.committed or not self.store.objects
        finally:
            self.close()

    def one_dies_and_the_other_finishes(self, first: Exporter, last: Exporter) -> None:
        """At each gate in turn; before or after the other has worked on what it had in hand."""
        gate, overtaken = GATES[self.number % len(GATES)], self.number // len(GATES) % 2
        self.commit_at_once(5)
        first.tick()
        last.tick()
        first.begin_turn(self.stream_id)
        self.go_on_to(first, gate)
        if overtaken:
            last.begin_turn(self.stream_id)
            self.go_on_to(last, IDLE)
        request = first.kill()
        if request is not None:
            self.late.append(request)
            self.late_request_arrives()
        self.finish_turns()
        last.tick()
        self.work(1)

    def finish_turns(self) -> None:
        """Each may have to wait for the other more than once."""
        while self.busy():
            for process in self.busy():
                self.go_on_to(process, IDLE)

    def close(self) -> None:
        """Leave nothing open, also after a failure."""
        for exporter in self.exporters:
            exporter.kill()
        for writer in self.writers:
            writer.end(Connection.rollback)
        for gid in self.prepared:
            self.admin.exec_driver_sql(f"ROLLBACK PREPARED '{gid}'")
        self.reader.close()
        self.admin.close()
        self.engine.dispose()
