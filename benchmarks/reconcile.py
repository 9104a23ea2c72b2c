"""Reconciling at size, beside merely fetching and decompressing the same files; and its memory.

    python benchmarks/reconcile.py [--events 50000] [--small] [--store folder|s3] [--workers N]
        [--kind threads processes] [--rounds 5] [--objects 5000] [--json reconcile.json]
        [--database postgresql://user@host/empty]

Runs on an embedded PostgreSQL with its default durability, or in the empty `--database`: the
embedded server computes SHA-256 in plain C, others mostly by OpenSSL. The store is a folder or a
local moto server, all its own. The outbox is appended to and exported once, by what does it in
production. Then, once a round and each with as many workers on the same kind of executor:

- level events: the comparison that `auditstore reconcile --level events` makes, counts included;
- fetch: every file of the stream is read, decompressed and dropped; by zlib, as Python's gzip
  and gunzip do it, and by the faster decoder that the comparison uses where it is installed;
- level files: on moto, as many objects as `--objects` says, one event each, by the listing.

Last, `auditstore reconcile` runs as a program of its own at both levels, and the memory of it and
its children is sampled. `--small` makes events of about 200 bytes, so that ten million are
affordable; the rates of such events say nothing of others.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import lead_stream
import psycopg
import sqlalchemy as sa
import structlog
from measuring import Comparison, Rounds, machine, report, write_json
from memory import peak_of
from servers import BUCKET, REGION, SECRET, s3_server

from auditstore import EventRepository, streams
from auditstore.database import create_engine, migrate
from auditstore.embedded import start_embedded
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Finding, Readers, Scope, Summary, Workers, compare_stream
from auditstore.reconciliation.decoding import gunzip
from auditstore.reconciliation.executors import processes, threads
from auditstore.reconciliation.reading import Kept
from auditstore.sql import ledger
from auditstore.streams import Limits, NewStream, Stream
from exporters.once import export_once
from exporters.stores.recipe import StoreRecipe

PORT = 5933
FLOW, MANY = "backlog", "many-files"
KINDS: dict[str, Callable[[int], Workers]] = {"threads": threads, "processes": processes}
RATIO, OBJECTS_A_SECOND, BYTES = 0.6, 2000, 400_000_000
OBJECTS = "level files, objects"
_BATCH = 1000


def small_events(flow: str, number: int, *, start: float) -> Iterator[bytes]:
    """So many events of about 200 bytes, a hundred a second."""
    for each in range(number):
        yield (
            b'{"id":"%08x%016x","type":"source","outcome":"success","reason":"","vars":{"flow":'
            b'{"id":"%s"},"lead":{"id":"%08x%016x","email":"lead-%d@example.test"}}}'
            % (int(start) + each // 100, each, flow.encode(), int(start), each // 3, each)
        )


def large_events(flow: str, number: int, seed: int, *, start: float) -> Iterator[bytes]:
    """So many events as every benchmark has them, a part at a time."""
    for part in count():
        wanted = min(10_000, number - 10_000 * part)
        if wanted <= 0:
            return
        yield from lead_stream.events(seed + part, wanted, flow, start=start + 1000 * part)


def fetch(open_store: Callable[[], ObjectStore], key: str, *, quick: bool) -> int:
    """Read a file and decompress it, by our decoder or by zlib, as gzip does; how long it is."""
    chunks = open_store().read(key)
    if chunks is None:
        raise SystemExit(f"{key} is gone")
    return sum(map(len, gunzip(chunks, quick=quick)))


@dataclass
class Site:
    """What is compared: one stream of files as they are by default, and one of very small ones."""

    engine: sa.Engine
    arguments: argparse.Namespace
    root: str
    endpoint: str | None

    def add(self, flow: str, limits: Limits, place: str) -> int:
        """A stream to a place of its own."""
        new = NewStream(flow, f"{self.root}/{place}", self.endpoint, limits=limits)
        with self.engine.begin() as connection:
            return streams.add(connection, new, actor="benchmark").stream_id

    def append(self, made: Iterator[bytes]) -> None:
        """Take events in."""
        repository = EventRepository()
        batch: list[bytes] = []
        for event in made:
            batch.append(event)
            if len(batch) == _BATCH:
                self._append(repository, batch)
                batch = []
        self._append(repository, batch)

    def _append(self, repository: EventRepository, batch: list[bytes]) -> None:
        if batch:
            with self.engine.begin() as connection:
                repository.append(connection, batch)

    def export(self, stream_id: int) -> None:
        """Deliver all of it."""
        result = export_once(
            self.engine, lambda _, stream: self.recipe(stream)(), stream_ids=[stream_id]
        )
        if result.failed:
            raise SystemExit(f"the export failed: {result}")

    def stream(self, stream_id: int) -> Stream:
        """The stream as it stands."""
        with self.engine.connect() as connection:
            return streams.get(connection, stream_id)

    def recipe(self, stream: Stream) -> StoreRecipe:
        """How its store is opened."""
        if self.endpoint is None:
            return StoreRecipe.of(stream.destination)
        return StoreRecipe.of(stream.destination, region=REGION, secret=SECRET)

    def keys(self, stream_id: int) -> Iterator[str]:
        """The keys of its files, in order."""
        after, head = 0, self.stream(stream_id).delivered_sequence
        while after < head:
            with self.engine.connect() as connection:
                page = list(
                    ledger.stream_files(connection, stream_id, after=after, upto=after + 200)
                )
            yield from (row.sealed.object_key for row in page)
            after += 200


def compare(site: Site, stream_id: int, level: Any, workers: Workers) -> Summary:
    """As the command does; anything found ends the benchmark."""
    recipe = site.recipe(site.stream(stream_id))
    summary = compare_stream(
        site.engine, stream_id, recipe, Scope(level), report=_nothing, pattern=True,
        readers=Readers(workers, lambda: recipe),
    )  # fmt: skip
    if summary.result != "reconciled" or summary.events_matched != summary.events_expected:
        raise SystemExit(f"not reconciled: {summary}")
    return summary


def _nothing(finding: Finding) -> None:
    raise SystemExit(f"found: {finding}")


def fetch_all(site: Site, stream_id: int, workers: Workers, *, quick: bool) -> None:
    """The same files by the same workers, no more of them in flight."""
    recipe = site.recipe(site.stream(stream_id))
    open_store: Callable[[], ObjectStore] = Kept(recipe)
    waiting: deque[Future[Any]] = deque()
    task: Callable[..., Any] = partial(fetch, open_store, quick=quick)
    for key in site.keys(stream_id):
        waiting.append(workers.submit(task, key).future)
        if len(waiting) > 2 * workers.count + 4:
            waiting.popleft().result()
    for each in waiting:
        each.result()
    open_store().close()


def measure(
    site: Site, stream_id: int, rounds: Rounds, files: Callable[[Workers], object] | None
) -> list[Comparison]:
    """Visit every contender once a round; ``files`` is the one at the level files, if any."""
    arguments = site.arguments
    comparisons: list[Comparison] = []
    contenders: list[tuple[str, int, Callable[[], object]]] = []
    with ExitStack() as stack:
        for kind in arguments.kind:
            workers = KINDS[kind](arguments.workers)
            stack.callback(workers.close)
            ours = f"level events, {kind}"
            contenders.append(
                (ours, arguments.events, partial(compare, site, stream_id, "events", workers))
            )
            for decoder, quick in (("zlib", False), ("isal", True)):
                theirs = f"fetch, {decoder}, {kind}"
                work = partial(fetch_all, site, stream_id, workers, quick=quick)
                contenders.append((theirs, arguments.events, work))
                comparisons.append(Comparison(f"{ours} / {theirs}", ours, theirs, RATIO))
        if files is not None:
            contenders.append((OBJECTS, arguments.objects, partial(files, workers)))
        for number in range(arguments.rounds + 1):
            for name, things, work in contenders:
                rounds.time(name, things, work)
            if number == 0:
                rounds.rates.clear()  # the first round only warms up
    return comparisons


def memory(site: Site, url: str, stream_id: int) -> dict[str, int]:
    """The peak of the program itself, by what it was asked to do."""
    environment = {
        **os.environ, "AUDITSTORE_DATABASE_URL": url, "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": SECRET["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": SECRET["secret_access_key"],
    }  # fmt: skip
    base = [
        sys.executable, "-c", "from auditstore.cli import main; main()", "reconcile", "--no-keep",
        "--stream", str(stream_id), "--workers", str(site.arguments.workers),
    ]  # fmt: skip
    ways = {"level files": ["--level", "files"]}
    for kind in site.arguments.kind:
        ways[f"level events, {kind}"] = ["--level", "events"] + (
            ["--processes"] if kind == "processes" else []
        )
    return {name: peak_of([*base, *more], environment) for name, more in ways.items()}


def told(rounds: Rounds, result: dict[str, Any], peaks: dict[str, int]) -> None:
    """Print what the tables do not have, and add it to the JSON."""
    if rounds.rates.get(OBJECTS):
        middle = result["rates"][OBJECTS]["median"]
        met = middle >= OBJECTS_A_SECOND
        result["objects"] = {"rate": middle, "target": OBJECTS_A_SECOND, "met": met}
        print(f"\nlevel files: {middle:,.0f} objects/s; target {OBJECTS_A_SECOND:,}; "
              f"met: {'yes' if met else 'no'}")  # fmt: skip
    print("\n| memory, program and children | peak RSS, MB | target | met |\n|---|---|---|---|")
    result["memory"] = {}
    for name, peak in peaks.items():
        met = peak < BYTES
        result["memory"][name] = {"bytes": peak, "target": BYTES, "met": met}
        print(f"| {name} | {peak / 1e6:,.0f} | < {BYTES / 1e6:.0f} | {'yes' if met else 'no'} |")


def options() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--small", action="store_true", help="events of about 200 bytes")
    parser.add_argument("--store", choices=["folder", "s3"], default="folder")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--objects", type=int, default=5000, help="0 leaves level files out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", help="an empty database on another server")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = options()
    # A line a file is what an operator wants to see, not what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url = arguments.database
        if url is None:
            server = start_embedded(Path(folder) / "pg")
            stack.callback(server.stop)
            url = server.url
        migrate(url)
        engine = create_engine(url, pool_size=10)
        stack.callback(engine.dispose)
        address = sa.make_url(url).set(drivername="postgresql")
        with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
            about = {**machine(connection), **vars(arguments), "json": None, "database": None}
            row = connection.execute("SELECT extract(epoch FROM now())").fetchone()
        start = float(row[0] if row else 0) - 10 * 86_400
        endpoint = None
        if arguments.store == "s3" or arguments.objects:
            endpoint = stack.enter_context(s3_server(PORT))
        on_s3 = Site(engine, arguments, f"s3://{BUCKET}", endpoint)
        site = on_s3
        if arguments.store == "folder":
            (Path(folder) / "store").mkdir()
            site = Site(engine, arguments, (Path(folder) / "store").as_uri(), None)
        stream_id = site.add(FLOW, Limits(), "stream")
        site.append(
            small_events(FLOW, arguments.events, start=start)
            if arguments.small
            else large_events(FLOW, arguments.events, arguments.seed, start=start)
        )
        site.export(stream_id)
        files = None
        if arguments.objects:
            many = on_s3.add(MANY, Limits(max_events=1), "many")
            on_s3.append(small_events(MANY, arguments.objects, start=start))
            on_s3.export(many)
            files = partial(compare, on_s3, many, "files")
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                sa.text("VACUUM ANALYZE auditstore.events")
            )
        number = site.stream(stream_id).delivered_sequence
        about |= {"files": number, "events_a_file": round(arguments.events / number)}
        rounds = Rounds()
        comparisons = measure(site, stream_id, rounds, files)
        result = report(about, rounds, comparisons, {})
        told(rounds, result, memory(site, url, stream_id))
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
