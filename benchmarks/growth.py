"""What an event costs as the store grows: streams, history, partitions, exporters; and rest.

    python benchmarks/growth.py [--quick] [--only streams history partitions daemons idle]
        [--json growth.json]

Runs on an embedded PostgreSQL with its default durability, exporting to folders, so that no
store's own growth is measured with it. Each step is measured `--rounds` times, one step after
the other in every round where the store need not grow in between; medians count. Events are of
300 bytes: what grows with their number, not their size, shows the more.

- streams: 1 to 1,000, each with one file of 100 events: seconds an event, exported;
- history: 100,000 to 5 million events in 90 days by month: microseconds an event, appended
  1,000 at a time and exported;
- partitions: 1 to 120 by day, the same;
- daemons: 1 to 4, eight streams: processor time of all exporters and the server, an event;
- idle: 1,000 streams with nothing to do: processor time of the exporter and of the server.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import history
import psutil
import psycopg
import sqlalchemy as sa
from delays import exporter
from measuring import Figure, Plot, machine, tell, write_json

from auditstore import EventRepository, streams
from auditstore.database import create_engine, migrate
from auditstore.embedded import start_embedded
from auditstore.sql import server as server_sql
from auditstore.streams import Limits, NewStream, Stream
from exporters.once import export_once
from exporters.stores import open_store

FLAT, IDLE = 1.2, 3.0
BATCH = 1000
_COUNTED = sa.text(
    "SELECT coalesce(sum(event_count), 0) FROM auditstore.files WHERE delivered_at IS NOT NULL"
)


@dataclass
class Series:
    """Costs by the size of something, a line for each kind of cost."""

    name: str
    axis: str
    unit: str
    costs: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def add(self, what: str, size: int, cost: float) -> None:
        """One measurement."""
        self.costs.setdefault(what, {}).setdefault(size, []).append(cost)

    def figures(self) -> Iterator[Figure]:
        """The dearest step over the smallest one."""
        for what, by_size in self.costs.items():
            middle = {size: statistics.median(costs) for size, costs in by_size.items()}
            first = middle[min(middle)]
            dearest = max(middle, key=lambda size: middle[size])
            yield Figure(
                f"{what}, {min(middle):,} to {max(middle):,} {self.axis}",
                middle[dearest] / first, "times", FLAT,
                f"{first:.3g} {self.unit}, at most {middle[dearest]:.3g} with {dearest:,}",
            )  # fmt: skip

    def plot(self) -> Plot:
        """A line for each kind of cost."""
        return Plot(
            f"growth-{self.name}", f"Cost by {self.axis}", self.axis, self.unit,
            {
                what: [(size, statistics.median(costs)) for size, costs in sorted(by_size.items())]
                for what, by_size in self.costs.items()
            },
        )  # fmt: skip


class Site:
    """An embedded server with the schema, and folders to export to."""

    def __init__(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.server = stack.enter_context(start_embedded(self.folder / "pg"))
        migrate(self.server.url)
        self.engine = create_engine(self.server.url, pool_size=20)
        stack.callback(self.engine.dispose)
        self._numbers = count()
        with self.engine.connect() as connection:
            self.now: datetime = server_sql.clock(connection)

    def about(self) -> dict[str, Any]:
        """The machine."""
        address = sa.make_url(self.server.url).set(drivername="postgresql")
        with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
            return machine(connection)

    def add(self, flow: str, *, max_events: int = 10_000) -> int:
        """A stream to a folder of its own."""
        new = NewStream(
            flow, f"{self.folder.as_uri()}/{flow}", limits=Limits(max_events=max_events)
        )
        with self.engine.begin() as connection:
            return streams.add(connection, new, actor="benchmark").stream_id

    def events(self, flow: str, number: int) -> list[bytes]:
        """New events of now, 300 bytes each."""
        seconds = int(self.now.timestamp())
        return [
            b'{"id":"%08x%016x","type":"source","outcome":"success","reason":"","vars":{"flow":'
            b'{"id":"%s","name":"A flow of some name"},"lead":{"id":"lead-%d","email":'
            b'"lead-%d@example.test","phone":"512-789-1234","note":"%s"}}}'
            % (seconds, each + (1 << 40), flow.encode(), each // 4, each, b"x" * 80)
            for each in (next(self._numbers) for _ in range(number))
        ]

    def append(self, made: list[bytes]) -> float:
        """A thousand a transaction; microseconds an event."""
        repository = EventRepository()
        with self.engine.connect() as connection:
            began = time.perf_counter()
            for first in range(0, len(made), BATCH):
                with connection.begin():
                    repository.append(connection, made[first : first + BATCH])
            return 1e6 * (time.perf_counter() - began) / len(made)

    def export(self, events: int, stream_ids: list[int] | None = None) -> float:
        """What waits; microseconds an event."""
        began = time.perf_counter()
        result = export_once(self.engine, _store, stream_ids=stream_ids)
        took = time.perf_counter() - began
        if result.failed or sum(each.events for _, each in result.outcomes) != events:
            raise SystemExit(f"the export failed: {result.failed}")
        return 1e6 * took / events


def _store(_: Any, stream: Stream) -> Any:
    return open_store(stream.destination)


# --- the series ---------------------------------------------------------------------


def by_streams(arguments: argparse.Namespace) -> Series:
    """One file of 100 events for each stream, however many there are."""
    series, made = Series("streams", "streams", "µs an event"), 100
    sizes = [1, 10, 100] if arguments.quick else [1, 10, 100, 1000]
    with ExitStack() as stack:
        site = Site(stack)
        ids: list[int] = []
        for size in sizes:
            ids += [site.add(f"flow-{number}") for number in range(len(ids), size)]
            # As much work for few streams as it takes to be measured; the first pass, in which
            # each new stream's bucket is looked at, is left out.
            for number in range(1 + arguments.rounds * max(1, 10 // size)):
                events = [
                    event for each in range(size) for event in site.events(f"flow-{each}", made)
                ]
                site.append(events)
                cost = site.export(len(events))
                if number:
                    series.add("exported", size, cost)
    return series


def _append_and_export(site: Site, series: Series, size: int, stream_id: int, rounds: int) -> None:
    for _ in range(rounds):
        events = site.events("growing", 20 * BATCH)
        series.add("appended", size, site.append(events))
        series.add("exported", size, site.export(len(events), [stream_id]))


def by_history(arguments: argparse.Namespace) -> Series:
    """Behind ever more events of other flows and months."""
    series = Series("history", "events of history", "µs an event")
    sizes = [20_000, 100_000] if arguments.quick else [100_000, 500_000, 1_000_000, 5_000_000]
    with ExitStack() as stack:
        site = Site(stack)
        with site.engine.begin() as connection:
            history.make_partitions(connection, period="month", days=90)
        stream_id, there = site.add("growing"), 0
        for size in sizes:
            for _ in history.fill(site.engine, flows=1000, events=size, days=90, until=site.now,
                                  first=there):  # fmt: skip
                pass
            there = size
            history.settle(site.engine)
            _append_and_export(site, series, size, stream_id, arguments.rounds + 1)
    return series


def by_partitions(arguments: argparse.Namespace) -> Series:
    """Ever more days, each with a few events."""
    series = Series("partitions", "partitions", "µs an event")
    sizes = [1, 12] if arguments.quick else [1, 12, 30, 60, 120]
    for size in sizes:
        with ExitStack() as stack:
            site = Site(stack)
            with site.engine.begin() as connection:
                # The migration has made some months; days are the finer measure.
                connection.execute(sa.text(_DROP_MONTHS))
                history.make_partitions(connection, period="day", days=size - 1, ahead=1)
            for _ in history.fill(site.engine, flows=10, events=20_000, days=size - 0.5,
                                  until=site.now):  # fmt: skip
                pass
            history.settle(site.engine)
            stream_id = site.add("growing")
            _append_and_export(site, series, size, stream_id, arguments.rounds + 1)
    return series


_DROP_MONTHS = """
DO $$ DECLARE name regclass; BEGIN
    FOR name IN SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent = 'auditstore.events'::regclass
        AND inhrelid::regclass::text NOT LIKE '%default'
    LOOP EXECUTE format('DROP TABLE %s', name); END LOOP;
END $$
"""


def _processor_seconds(url: str, pids: list[int]) -> tuple[float, float]:
    """Of the exporters, and of the whole server."""
    ours = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)
    with psycopg.connect(
        sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        postmaster = psutil.Process(psutil.Process(row[0] if row else 0).ppid())
        # What has ended is counted with its parent.
        server = sum(postmaster.cpu_times()[:4])
        server += sum(sum(each.cpu_times()[:2]) for each in postmaster.children())
    return ours, server


def by_daemons(arguments: argparse.Namespace) -> Series:
    """A backlog of eight streams, taken by ever more exporters."""
    series = Series("daemons", "exporters", "µs of processor time an event")
    each = 2_000 if arguments.quick else 10_000
    for size in [1, 2] if arguments.quick else [1, 2, 3, 4]:
        for _ in range(arguments.rounds):
            with ExitStack() as stack:
                site = Site(stack)
                for number in range(8):
                    site.add(f"flow-{number}")
                pids = [stack.enter_context(exporter(site.server.url)) for _ in range(size)]
                time.sleep(4)  # the streams are shared out
                before = sum(_processor_seconds(site.server.url, pids))
                made = [
                    event for number in range(8) for event in site.events(f"flow-{number}", each)
                ]
                site.append(made)
                while _delivered(site) < len(made):
                    time.sleep(0.05)
                spent = sum(_processor_seconds(site.server.url, pids)) - before
                series.add("appended by the server and exported", size, 1e6 * spent / len(made))
    return series


def _delivered(site: Site) -> int:
    with site.engine.connect() as connection:
        return int(connection.scalar(_COUNTED) or 0)


def idle(arguments: argparse.Namespace) -> list[Figure]:
    """Nothing to do for a thousand streams."""
    size, seconds = (100, 10) if arguments.quick else (1000, 30)
    with ExitStack() as stack:
        site = Site(stack)
        for number in range(size):
            site.add(f"flow-{number}")
        pid = stack.enter_context(exporter(site.server.url))
        time.sleep(15 if arguments.quick else 40)  # each is looked at once
        before = _processor_seconds(site.server.url, [pid])
        time.sleep(seconds)
        after = _processor_seconds(site.server.url, [pid])
    ours, server = (100 * (b - a) / seconds for a, b in zip(before, after, strict=True))
    return [Figure(f"idle, {size:,} streams, exporter and server", ours + server, "% of a core",
                   IDLE, f"{ours:.2f} and {server:.2f}")]  # fmt: skip


SERIES: dict[str, Callable[[argparse.Namespace], Series]] = {
    "streams": by_streams, "history": by_history, "partitions": by_partitions,
    "daemons": by_daemons,
}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*SERIES, "idle"], default=[*SERIES, "idle"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    figures: list[Figure] = []
    plots: list[Plot] = []
    for name in arguments.only:
        if name == "idle":
            figures += idle(arguments)
        else:
            series = SERIES[name](arguments)
            figures += series.figures()
            plots.append(series.plot())
    with ExitStack() as stack:
        about = Site(stack).about()
    result = tell(about, figures, plots)
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
