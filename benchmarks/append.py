"""Appending, beside what people would use instead: COPY, plain INSERTs, another library.

    python benchmarks/append.py [--rounds 9] [--json append.json] [--eventsourcing venv/bin/python]

Runs on an embedded PostgreSQL of its own with its default durability, into the outbox itself,
with its indexes and triggers. Every round visits every contender, another one first each time;
ratios are taken round by round. The rows of COPY and of the plain INSERTs are made beforehand,
with their hashes: what they are compared with validates, parses and hashes within the time.
For `eventsourcing`, name the Python of an environment with `eventsourcing[postgres]==9.5.6`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lead_stream
import psycopg
import sqlalchemy as sa
from measuring import Comparison, Rounds, machine, report, write_json

from auditstore import AppenderLimits, Event, EventRepository, GroupAppender
from auditstore.database import migrate
from auditstore.embedded import start_embedded

COLUMNS = (
    "event_id, flow_id, lead_id, type, outcome, reason, step_id, started_at, ended_at, payload,"
    " size_bytes, sha256"
)
COPY = f"COPY auditstore.events ({COLUMNS}) FROM STDIN (FORMAT BINARY)"
INSERT = f"INSERT INTO auditstore.events ({COLUMNS}) VALUES ({', '.join(['%s'] * 12)})"  # noqa: S608  # own names
TYPES = [*["text"] * 7, "timestamptz", "timestamptz", "bytea", "int4", "bytea"]
BULK = 1000
WINDOW = 500  # futures one thread has open at a time

Row = tuple[Any, ...]


def row(payload: bytes, *, text: bool) -> Row:
    """An event as the table has it, made before the clock runs."""
    e = Event.from_json(payload)
    return (
        e.event_id, e.flow_id, e.lead_id, e.type, e.outcome, e.reason, e.step_id, e.started_at,
        e.ended_at, payload.decode() if text else payload, len(payload), e.sha256,
    )  # fmt: skip


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run ``work`` in so many threads, to the end of the last."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class Contenders:
    """Every way of appending, on connections that are open and warm."""

    def __init__(self, stack: ExitStack, url: str, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.url = sa.make_url(url)
        address = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        many = max(8, arguments.threads)
        self.plain = [stack.enter_context(psycopg.connect(address)) for _ in range(many)]
        engine = sa.create_engine(url, pool_size=20)
        stack.callback(engine.dispose)
        self.engine = engine
        self.held = [stack.enter_context(engine.connect()) for _ in range(8)]
        limits = AppenderLimits(linger_us=arguments.linger_us)
        self.appender = stack.enter_context(GroupAppender(engine, limits=limits))
        self.repository = EventRepository()
        self.rounds = Rounds()
        self._streams: dict[str, Iterator[list[bytes]]] = {}

    def fresh(self, name: str, size: int) -> list[bytes]:
        """Events that nobody appended yet, of the same make for everybody."""
        key = f"{name}-{size}"
        if key not in self._streams:
            number = len(self._streams)
            # Inside of partitions that exist: the months around now.
            start = self.arguments.start + 1_000_000 * number / 10
            self._streams[key] = lead_stream.batches(
                self.arguments.seed + 10_000 * number, size, key.replace(" ", "-"), start=start
            )
        return next(self._streams[key])

    # --- in bulk ------------------------------------------------------------------

    def copy(self, name: str) -> None:
        batch = [row(payload, text=False) for payload in self.fresh(name, BULK)]

        def work() -> None:
            with self.plain[0].cursor() as cursor, cursor.copy(COPY) as stream:
                stream.set_types(TYPES)
                for each in batch:
                    stream.write_row(each)
            self.plain[0].commit()

        self.rounds.time(name, BULK, work)

    def bulk(self, name: str) -> None:
        batch = self.fresh(name, BULK)

        def work() -> None:
            with self.held[0].begin():
                self.repository.append(self.held[0], batch)

        self.rounds.time(name, BULK, work)

    # --- one a call ---------------------------------------------------------------

    def inserts(self, name: str, writers: int) -> None:
        rows = [row(payload, text=True) for payload in self.singles(name, writers)]

        def write(number: int) -> None:
            connection = self.plain[number]
            for each in rows[number::writers]:
                connection.execute(INSERT, each)
                connection.commit()

        self.rounds.time(name, len(rows), lambda: in_threads(writers, write))

    def held_singles(self, name: str, writers: int) -> None:
        payloads = self.singles(name, writers)

        def write(number: int) -> None:
            connection = self.held[number]
            for payload in payloads[number::writers]:
                with connection.begin():
                    self.repository.append(connection, payload)

        self.rounds.time(name, len(payloads), lambda: in_threads(writers, write))

    def pooled_singles(self, name: str, writers: int) -> None:
        payloads = self.singles(name, writers)

        def write(number: int) -> None:
            for payload in payloads[number::writers]:
                with self.engine.begin() as connection:
                    self.repository.append(connection, payload)

        self.rounds.time(name, len(payloads), lambda: in_threads(writers, write))

    def grouped(self, name: str, threads: int) -> None:
        payloads = self.singles(name, threads)

        def write(number: int) -> None:
            for payload in payloads[number::threads]:
                self.appender.append(payload)

        self.rounds.time(name, len(payloads), lambda: in_threads(threads, write))

    def futures(self, name: str) -> None:
        payloads = self.singles(name, self.arguments.threads)

        def work() -> None:
            open_ones: deque[Any] = deque()
            for payload in payloads:
                if len(open_ones) == WINDOW:
                    open_ones.popleft().result()
                open_ones.append(self.appender.submit(payload))
            for future in open_ones:
                future.result()

        self.rounds.time(name, len(payloads), work)

    def eventsourcing(self, name: str, writers: int) -> None:
        payloads = self.singles(name, writers)
        query = self.url.query
        done = subprocess.run(
            [
                self.arguments.eventsourcing,
                Path(__file__).with_name("eventsourcing_append.py"),
                str(writers),
            ],
            input=b"\n".join(payloads), stdout=subprocess.PIPE, check=True,
            env={
                **os.environ, "PG_NAME": str(self.url.database), "PG_HOST": str(query["host"]),
                "PG_PORT": str(query["port"]), "PG_USER": str(self.url.username),
            },
        )  # fmt: skip
        self.rounds.rates[name].append(float(done.stdout))

    def singles(self, name: str, writers: int) -> list[bytes]:
        """As many for few writers as take about as long as those of many."""
        return self.fresh(name, self.arguments.singles * (1 if writers == 1 else 4))


def turn(contenders: Sequence[Callable[[], None]], number: int) -> list[Callable[[], None]]:
    """Every contender, another one first each time."""
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--singles", type=int, default=200, help="events a round of one writer")
    parser.add_argument("--threads", type=int, default=64, help="that share the appender")
    parser.add_argument("--linger-us", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=float, default=0, help="of the events' time; default now")
    parser.add_argument("--eventsourcing", help="a Python that has eventsourcing 9.5.6")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    many = arguments.threads
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = start_embedded(Path(folder) / "pg")
        stack.callback(server.stop)
        migrate(server.url)
        with sa.create_engine(server.url).connect() as connection:
            now = float(connection.scalar(sa.text("SELECT extract(epoch FROM now())")) or 0)
        arguments.start = arguments.start or now - 20 * 86_400
        c = Contenders(stack, server.url, arguments)
        about = {**machine(c.plain[0]), "seed": arguments.seed, "start": arguments.start}
        c.plain[0].rollback()
        contenders: list[Callable[[], None]] = [
            lambda: c.copy("COPY by psycopg, 1,000 a call"),
            lambda: c.bulk("repository, 1,000 a call"),
            lambda: c.inserts("INSERT + commit, 1 writer", 1),
            lambda: c.held_singles("repository, 1 writer", 1),
            lambda: c.pooled_singles("repository, 1 writer, from the pool each time", 1),
            lambda: c.inserts("INSERT + commit, 8 writers", 8),
            lambda: c.held_singles("repository, 8 writers", 8),
            lambda: c.inserts(f"INSERT + commit, {many} writers", many),
            lambda: c.grouped(f"appender, {many} threads", many),
            lambda: c.futures("appender, futures of 1 thread"),
        ]
        comparisons = [
            Comparison(f"{ours} / {theirs}", ours, theirs, target)
            for ours, theirs, target in (
                ("repository, 1,000 a call", "COPY by psycopg, 1,000 a call", 0.85),
                ("repository, 1 writer", "INSERT + commit, 1 writer", 0.9),
                (
                    "repository, 1 writer, from the pool each time",
                    "INSERT + commit, 1 writer",
                    0.9,
                ),
                ("repository, 8 writers", "INSERT + commit, 8 writers", 0.9),
                (f"appender, {many} threads", "INSERT + commit, 8 writers", 3),
                (f"appender, {many} threads", f"INSERT + commit, {many} writers", 3),
                ("appender, futures of 1 thread", "INSERT + commit, 8 writers", 3),
            )
        ]
        not_run = {}
        if arguments.eventsourcing:
            for writers in (1, 8):
                name = f"eventsourcing 9.5.6, {writers} writer{'s' * (writers > 1)}"
                contenders.append(
                    lambda name=name, writers=writers: c.eventsourcing(name, writers)  # type: ignore[misc]  # bound now
                )
                ours = f"repository, {writers} writer{'s' * (writers > 1)}"
                comparisons.append(Comparison(f"{ours} / {name}", ours, name, 5))
        else:
            not_run["eventsourcing 9.5.6"] = "no --eventsourcing PYTHON was given"
        for contender in contenders:
            contender()
        c.rounds.rates.clear()  # the first round only warms up
        for number in range(arguments.rounds):
            for contender in turn(contenders, number):
                contender()
        result = report(about, c.rounds, comparisons, not_run)
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
