"""What memory the exporter takes for a backlog, and whether it stays the same to its end.

    python benchmarks/exporter_memory.py [--events 1000000] [--json exporter_memory.json]

Runs on an embedded PostgreSQL and a local moto server, both its own. The events, 3.6 KB each, are
there before `auditstore export run` begins, a process of its own, whose resident memory is
sampled ten times a second until all of them are delivered.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import history
import psycopg
from delays import add_stream, exporter
from measuring import Figure, Plot, machine, tell, write_json
from memory import resident
from servers import s3_server
from sqlalchemy import Engine, make_url, text

from auditstore.database import create_engine, migrate
from auditstore.embedded import start_embedded
from auditstore.sql import server as server_sql
from auditstore.streams import Limits

PORT = 5934
PAD = 104  # times 32 bytes: 3.6 KB in all
BYTES, GROWTH = 200e6, 1.2
_LEFT = text(
    "SELECT coalesce(sum(event_count), 0) FROM auditstore.files WHERE delivered_at IS NOT NULL"
)


def sampled(engine: Engine, pid: int, events: int) -> list[tuple[float, float]]:
    """Seconds and MB, until all is delivered."""
    samples: list[tuple[float, float]] = []
    began = time.monotonic()
    while True:
        for _ in range(10):
            samples.append((time.monotonic() - began, resident(pid) / 1e6))
            time.sleep(0.1)
        with engine.connect() as connection:
            if int(connection.scalar(_LEFT) or 0) >= events:
                return samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        embedded = stack.enter_context(start_embedded(Path(folder) / "pg"))
        endpoint = stack.enter_context(s3_server(PORT))
        migrate(embedded.url)
        engine = create_engine(embedded.url, pool_size=5)
        stack.callback(engine.dispose)
        add_stream(engine, "flow-000000", endpoint, Limits())
        with engine.connect() as connection:
            until = server_sql.clock(connection)
        for _ in history.fill(engine, flows=1, events=arguments.events, days=1, until=until,
                              pad=PAD):  # fmt: skip
            pass
        address = make_url(embedded.url).set(drivername="postgresql")
        with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
            about = machine(connection) | {"events": arguments.events}
        with exporter(embedded.url) as pid:
            samples = sampled(engine, pid, arguments.events)
    sizes = [size for _, size in samples]
    # What it takes to begin is over in the first tenth.
    settled = sizes[len(sizes) // 10 :]
    third = max(1, len(settled) // 3)
    early, late = statistics.median(settled[:third]), statistics.median(settled[-third:])
    figures = [
        Figure(f"memory of the exporter, {arguments.events:,} events waiting", max(sizes), "MB",
               BYTES / 1e6, f"{samples[-1][0]:.0f} s, peak"),
        Figure("its last third over its first", late / early, "times", GROWTH,
               f"{late:.0f} over {early:.0f} MB"),
    ]  # fmt: skip
    plot = Plot("exporter-memory", "Memory of the exporter while a backlog leaves", "seconds",
                "MB resident", {"exporter": samples})  # fmt: skip
    result = tell(about, figures, [plot])
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
