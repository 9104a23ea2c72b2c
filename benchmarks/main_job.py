"""The main job's two figures: commit to visible object, and export of a backlog.

    python benchmarks/main_job.py [--seconds 60] [--backlog 60000]

Runs on an embedded PostgreSQL with its default durability and, for S3, on a local moto server,
both its own. Latency is measured per event at the default settings (a file is due 2 s after its
oldest event): from the moment the append's commit returned to the first listing of the bucket
that shows the object with the event. Throughput is from the outbox to verified objects.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from servers import REGION, SECRET, s3_server
from sqlalchemy import Engine, text

from auditstore import EventRepository, streams
from auditstore.database import create_engine, migrate
from auditstore.demo.flow_engine import lead_events
from auditstore.embedded import start_embedded
from auditstore.layout import DEFAULT_TEMPLATE, key_pattern
from auditstore.objects import ObjectStore
from auditstore.streams import NewStream, Stream
from exporters.daemon import Daemon
from exporters.once import export_once
from exporters.stores import open_store

PORT = 5931


def opener(stream: Stream) -> ObjectStore:
    """The stream's store, with the local server's key for S3."""
    if stream.destination.scheme == "s3":
        return open_store(stream.destination, region=REGION, secret=SECRET, options={})
    return open_store(stream.destination)


def add_stream(engine: Engine, flow_id: str, url: str, endpoint: str | None) -> Stream:
    """A stream at default settings."""
    with engine.begin() as connection:
        return streams.add(
            connection, NewStream(flow_id=flow_id, url=url, endpoint_url=endpoint), actor="bench"
        )


def latency(engine: Engine, stream: Stream, seconds: float) -> list[float]:
    """Seconds from commit to visibility, an event at a time at random moments."""
    store = opener(stream)
    pattern = key_pattern(
        DEFAULT_TEMPLATE, prefix=stream.destination.prefix, flow_id=stream.flow_id,
        stream_id=stream.stream_id,
    )  # fmt: skip
    repository = EventRepository()
    committed: dict[int, float] = {}
    visible: list[float] = []
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
                position = connection.scalar(text("SELECT auditstore.last_position()"))
            committed[position] = at
            next_append = at + rng.expovariate(4.0)
        for info in store.list(stream.destination.prefix):
            if pattern.fullmatch(info.key):
                _, _, first, last = info.key.rsplit("/", 1)[1].split(".")[0].split("-")
                held = [p for p in committed if int(first) <= p <= int(last)]
                visible += [time.monotonic() - committed.pop(position) for position in held]
    if committed:
        raise SystemExit(f"{len(committed)} events never became visible")
    return visible


def throughput(engine: Engine, stream: Stream, events: list[bytes]) -> float:
    """Events a second from the outbox into verified objects, appended beforehand."""
    repository = EventRepository()
    for start in range(0, len(events), 1000):
        with engine.begin() as connection:
            repository.append(connection, events[start : start + 1000])
    began = time.monotonic()
    result = export_once(engine, lambda _, own: opener(own), stream_ids=[stream.stream_id])
    took = time.monotonic() - began
    if result.failed or result.outcomes[0][1].events != len(events):
        raise SystemExit(f"the export failed: {result}")
    return len(events) / took


def report(name: str, measure: Callable[[], str]) -> None:
    """One line of the table."""
    print(f"{name:<44}{measure()}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--backlog", type=int, default=60_000)
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}")
    with (
        tempfile.TemporaryDirectory() as folder,
        start_embedded(Path(folder) / "pg") as server,
        s3_server(PORT) as endpoint,
    ):
        migrate(server.url)
        engine = create_engine(server.url, pool_size=20)
        s3 = add_stream(engine, "bench-s3", "s3://bench/latency", endpoint)
        daemon = Daemon(engine, lambda _, stream: opener(stream))
        daemon.start()

        def delays() -> str:
            found = sorted(latency(engine, s3, arguments.seconds))
            p50, p99 = statistics.median(found), found[int(len(found) * 0.99)]
            return f"p50 {p50:.2f} s  p99 {p99:.2f} s  worst {found[-1]:.2f} s  n {len(found)}"

        report("commit to visible object, S3, default delay", delays)
        daemon.stop()
        for round_ in (1, 2, 3):
            for name, url, at in (
                ("s3", f"s3://bench/backlog-{round_}", endpoint),
                ("folder", f"file://{folder}/backlog-{round_}", None),
            ):
                flow = f"backlog-{name}-{round_}"
                stream = add_stream(engine, flow, url, at)
                events = list(lead_events(round_, arguments.backlog, flow))
                size = sum(map(len, events)) / len(events)
                rate = throughput(engine, stream, events)
                report(
                    f"backlog of {len(events)} events to {name}",
                    lambda rate=rate, size=size: (
                        f"{rate:,.0f} events/s  {rate * size / 1e6:.0f} MB/s"
                    ),
                )
        engine.dispose()


if __name__ == "__main__":
    main()
