"""From commit to visible object, and what running exporters do to those who append.

    python benchmarks/delays.py [--seconds 60] [--rounds 5] [--json delays.json]

Runs on an embedded PostgreSQL with its default durability and a local moto server, both its own;
the exporter is `auditstore export run`, a process of its own.

- Commit to visible: events come one at a time at random moments, four a second; each is taken
  from the moment its commit returned to the first listing that shows an object with it. Once at
  the default settings (a file is due 2 s after its oldest event), once with no delay at all.
- Appending beside exporters: one event a transaction, `--rate` a second, with an exporter that
  takes them to S3 and without one, in turn. The ratios are of the rounds' percentiles.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lead_stream
import psycopg
from measuring import Figure, machine, tell, write_json
from servers import REGION, SECRET, s3_server
from sqlalchemy import Engine, make_url, text

from auditstore import EventRepository, streams
from auditstore.database import create_engine, migrate
from auditstore.demo.flow_engine import lead_events
from auditstore.embedded import start_embedded
from auditstore.layout import DEFAULT_TEMPLATE, key_pattern
from auditstore.streams import Limits, NewStream, Stream
from exporters.stores import open_store

PORT = 5931
_LOOK_EVERY = 0.004
_POSITION = text("SELECT auditstore.last_position()")


@contextmanager
def exporter(url: str) -> Iterator[int]:
    """`auditstore export run`, at work when the block begins; its process."""
    environment = {
        **os.environ, "AUDITSTORE_DATABASE_URL": url, "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": SECRET["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": SECRET["secret_access_key"],
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "auditstore", "export", "run", "--log-format", "json"],
        env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            log = iter(process.stderr or ())
            if not any('"exporting"' in line for line in log):
                raise SystemExit("the exporter did not start")
            # Its log is read on, or it would wait for that.
            drain = subprocess.Popen(
                ["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            drain.wait(30)


def add_stream(engine: Engine, flow_id: str, endpoint: str, limits: Limits) -> Stream:
    """A stream to a prefix of its own on the local server."""
    new = NewStream(flow_id, f"s3://bench/{flow_id}", endpoint, limits=limits)
    with engine.begin() as connection:
        return streams.add(connection, new, actor="benchmark")


def visible_after(engine: Engine, stream: Stream, seconds: float) -> list[float]:
    """Seconds from commit to visibility, an event at a time at random moments; sorted."""
    store = open_store(stream.destination, region=REGION, secret=SECRET, options={})
    pattern = key_pattern(
        DEFAULT_TEMPLATE, prefix=stream.destination.prefix, flow_id=stream.flow_id,
        stream_id=stream.stream_id,
    )  # fmt: skip
    repository = EventRepository()
    committed: dict[int, float] = {}
    found: list[float] = []
    newest: str | None = None
    rng = random.Random(7)  # noqa: S311  # arrival times
    events = lead_events(11, None, stream.flow_id)
    ends_at = time.monotonic() + seconds
    next_append = time.monotonic()
    while time.monotonic() < ends_at or (committed and time.monotonic() < ends_at + 20):
        if next_append <= time.monotonic() < ends_at:
            with engine.begin() as connection:
                repository.append(connection, next(events))
            at = time.monotonic()
            with engine.connect() as connection:
                position = connection.scalar(_POSITION)
            committed[position] = at
            next_append = at + rng.expovariate(4.0)
        for info in store.list(stream.destination.prefix, start_after=newest):
            if pattern.fullmatch(info.key):
                newest = max(newest or "", info.key)
                _, _, first, last = info.key.rsplit("/", 1)[1].split(".")[0].split("-")
                held = [p for p in committed if int(first) <= p <= int(last)]
                found += [time.monotonic() - committed.pop(position) for position in held]
        time.sleep(_LOOK_EVERY)  # two cores are shared with those that are measured
    if committed:
        raise SystemExit(f"{len(committed)} events never became visible")
    return sorted(found)


def appends(engine: Engine, events: Iterator[bytes], seconds: float, rate: float) -> list[float]:
    """Milliseconds of each append with its commit, one every 1/``rate`` seconds; sorted."""
    repository, took = EventRepository(), []
    with engine.connect() as connection:
        next_at = ends_at = time.perf_counter()
        ends_at += seconds
        while next_at < ends_at:
            time.sleep(max(0.0, next_at - time.perf_counter()))
            event = next(events)
            began = time.perf_counter()
            with connection.begin():
                repository.append(connection, event)
            took.append(1000 * (time.perf_counter() - began))
            next_at += 1 / rate
    return sorted(took)


def percentile(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]


def to_visible(engine: Engine, url: str, endpoint: str, seconds: float) -> list[Figure]:
    """At the default delay, and at none."""
    figures = []
    for name, delay, p50, p99 in (("default delay", 2.0, 2.3, 3.0), ("delay 0", 0.0, 0.15, 1.0)):
        stream = add_stream(engine, f"visible-{delay:g}", endpoint, Limits(max_delay=delay))
        with exporter(url):
            found = visible_after(engine, stream, seconds)
        note = f"{len(found)} events, worst {found[-1]:.2f} s"
        what = f"commit to visible object, {name}"
        figures += [Figure(f"{what}, p50", percentile(found, 0.5), "s", p50, note),
                    Figure(f"{what}, p99", percentile(found, 0.99), "s", p99, note)]  # fmt: skip
    return figures


def beside(
    engine: Engine, url: str, endpoint: str, arguments: argparse.Namespace
) -> list[Figure]:  # fmt: skip
    """Append and commit with an exporter running, over the same without."""
    flow = "beside"
    add_stream(engine, flow, endpoint, Limits())
    events = lead_events(arguments.seed, None, flow)
    rounds: dict[str, list[list[float]]] = {"with": [], "without": []}
    seconds, rate = arguments.seconds / 4, arguments.rate
    appends(engine, events, seconds / 2, rate)  # warms up
    for number in range(arguments.rounds):
        for which in sorted(rounds, reverse=number % 2 == 1):
            if which == "with":
                with exporter(url):
                    time.sleep(1.0)
                    rounds[which].append(appends(engine, events, seconds, rate))
            else:
                rounds[which].append(appends(engine, events, seconds, rate))
    figures = []
    for name, share, most in (("p50", 0.5, 1.15), ("p99", 0.99, 1.15)):
        ours, theirs = ([percentile(each, share) for each in rounds[which]]
                        for which in ("with", "without"))  # fmt: skip
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        note = f"{statistics.median(ours):.2f} ms over {statistics.median(theirs):.2f} ms"
        what = f"append {name}, exporter running / none running"
        figures.append(Figure(what, ratio, "times", most, note))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(start_embedded(Path(folder) / "pg"))
        endpoint = stack.enter_context(s3_server(PORT))
        migrate(server.url)
        engine = create_engine(server.url, pool_size=5)
        stack.callback(engine.dispose)
        address = make_url(server.url).set(drivername="postgresql")
        with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
            about = machine(connection) | {"mean_bytes": lead_stream.MEAN}
        figures = to_visible(engine, server.url, endpoint, arguments.seconds)
        figures += beside(engine, server.url, endpoint, arguments)
        result = tell(about, figures)
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
