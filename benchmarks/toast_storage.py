"""How should the outbox keep its payloads? TOAST variants, measured interleaved.

    python benchmarks/toast_storage.py --url postgresql://...
    python benchmarks/toast_storage.py --bin /usr/lib/postgresql/15/bin --user postgres

With ``--bin`` a cluster of its own is made for the run and removed after it. Each round
visits every variant once, in another order each time; figures are medians over rounds.
Events are encoded to binary COPY beforehand, so that the server is what is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psycopg

from auditstore.demo.flow_engine import lead_events

FLOW = "5f1e8a000000000000000001"
COLUMNS = (
    "event_id, flow_id, lead_id, type, outcome, reason, step_id, started_at, ended_at, payload, "
    "size_bytes, sha256"
)
PG_EPOCH_MS = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1000)
BATCH = 1000  # events a COPY in, one transaction each
READ = 2200  # events a COPY out: what 8 MiB hold
SETTINGS = ("autovacuum=off", "shared_buffers=512MB", "max_wal_size=8GB", "listen_addresses=")


@dataclass(frozen=True)
class Variant:
    """A column storage, a compression method where one applies, a toast_tuple_target."""

    name: str
    storage: str
    compression: str | None = None
    target: int | None = None


VARIANTS = (
    Variant("external", "external"),
    Variant("external inline", "external", target=8160),
    Variant("extended pglz", "extended", "pglz"),
    Variant("extended lz4", "extended", "lz4"),
    Variant("extended lz4 inline", "extended", "lz4", 4080),
    Variant("main pglz", "main", "pglz"),
    Variant("main lz4", "main", "lz4"),
)

Row = tuple[Any, ...]


def rows(count: int, seed: int, merged: int) -> list[Row]:
    """Rows as the repository makes them; ``merged`` events of the engine make one larger one."""
    made: list[Row] = []
    stream = lead_events(seed, count * merged, FLOW, start=1_793_491_200 + seed * 10_000)
    for payload in stream:
        extra = [next(stream) for _ in range(merged - 1)]
        if extra:
            payload = payload[:-1] + b',"extra":[' + b",".join(extra) + b"]}"  # noqa: PLW2901 (one row)
        e = orjson.loads(payload)
        made.append((
            e["id"], FLOW, e["vars"]["lead"]["id"], e["type"], e["outcome"], e["reason"],
            e.get("step_id"), e["start_timestamp"], e["end_timestamp"], payload, len(payload),
            hashlib.sha256(payload).digest(),
        ))  # fmt: skip
    return made


def encoded(batch: list[Row]) -> bytes:
    """A batch in COPY's binary format."""
    out = bytearray(b"PGCOPY\n\xff\r\n\0" + struct.pack("!II", 0, 0))
    for row in batch:
        out += struct.pack("!h", len(row))
        for n, value in enumerate(row):
            if value is None:
                out += struct.pack("!i", -1)
                continue
            if n in {7, 8}:
                raw = struct.pack("!q", (value - PG_EPOCH_MS) * 1000)
            elif isinstance(value, int):
                raw = struct.pack("!i", value)
            else:
                raw = value.encode() if isinstance(value, str) else value
            out += struct.pack("!i", len(raw)) + raw
    return bytes(out + struct.pack("!h", -1))


def create(db: psycopg.Connection[Any], table: str, variant: Variant) -> None:
    """The outbox's shape: one partition that takes everything, its four indexes."""
    storage = f"alter table {table} alter payload set storage {variant.storage};"
    if variant.compression:
        storage += f"alter table {table} alter payload set compression {variant.compression};"
    target = f"with (toast_tuple_target = {variant.target})" if variant.target else ""
    db.execute(f"""
        create table {table} (
          position bigint generated always as identity,
          event_id text collate "C" not null, flow_id text collate "C" not null,
          lead_id text collate "C", type text not null, outcome text not null, reason text,
          step_id text, started_at timestamptz, ended_at timestamptz,
          recorded_at timestamptz not null default clock_timestamp(),
          payload json not null, size_bytes int not null, sha256 bytea not null,
          primary key (flow_id, event_id)
        ) partition by range (event_id);
        {storage}
        create table {table}_p partition of {table} default {target};
        create index on {table} (flow_id, position) include (size_bytes, recorded_at);
        create index on {table} (event_id);
        create index on {table} (lead_id, event_id) where lead_id is not null;
    """)


class Bench:
    """One server, every variant it supports, every figure by name and variant."""

    def __init__(self, url: str, events: int, singles: int, rounds: int, merged: int) -> None:
        self.db = psycopg.connect(url, autocommit=True)
        self.events, self.singles, self.rounds, self.merged = events, singles, rounds, merged
        methods = self.one(
            "select enumvals from pg_settings where name = 'default_toast_compression'"
        )
        self.variants = [v for v in VARIANTS if v.compression in {None, *methods}]
        self.figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def one(self, query: str) -> Any:
        """The single value of a query."""
        row = self.db.execute(query).fetchone()
        assert row is not None  # noqa: S101 (every query here has a row)
        return row[0]

    def run(self) -> None:
        """Write in rounds, read in rounds, then weigh."""
        for v in self.variants:
            create(self.db, self.table(v), v)
        for n in range(self.rounds):
            made = rows(self.events + self.singles, n, self.merged)
            bulk, single = made[: self.events], made[self.events :]
            batches = [encoded(bulk[i : i + BATCH]) for i in range(0, len(bulk), BATCH)]
            for v in self.turn(n):
                self.write(v, batches, [(r, encoded([r])) for r in single])
        # Without statistics the planner may sort whole payloads: a plan, not a storage, figure.
        self.db.execute("set enable_bitmapscan = off; set enable_seqscan = off")
        for state in ("fresh", "vacuumed"):
            for n in range(self.rounds):
                for v in self.turn(n):
                    self.read(v, state)
            for v in self.variants:
                self.db.execute(f"vacuum (analyze) {self.table(v)}_p")
        for v in self.variants:
            self.weigh(v)

    def table(self, v: Variant) -> str:
        return "outbox_" + v.name.replace(" ", "_")

    def turn(self, n: int) -> list[Variant]:
        """Every variant, another one first each time."""
        k = n % len(self.variants)
        return self.variants[k:] + self.variants[:k]

    def write(self, v: Variant, batches: list[bytes], single: list[tuple[Row, bytes]]) -> None:
        copy = f"copy {self.table(v)} ({COLUMNS}) from stdin (format binary)"
        self.db.execute("checkpoint")
        before = self.one("select pg_current_wal_insert_lsn() - '0/0'")
        began = time.perf_counter()
        for batch in batches:
            self.send(copy, batch)
        self.note("copy in, events/s", v, self.events / (time.perf_counter() - began))
        wal = self.one("select pg_current_wal_insert_lsn() - '0/0'") - before
        self.note("WAL, bytes/event", v, float(wal) / self.events)
        insert = (
            f"insert into {self.table(v)} ({COLUMNS}) values (%s,%s,%s,%s,%s,%s,%s,"  # noqa: S608 (own names)
            "to_timestamp(%s / 1000.0),to_timestamp(%s / 1000.0),%s::json,%s,%s)"
        )
        parameters = [(*r[:9], r[9].decode(), *r[10:]) for r, _ in single]
        began = time.perf_counter()
        for p in parameters:
            self.db.execute(insert, p)
        self.note("insert + commit, events/s", v, len(single) / (time.perf_counter() - began))

    def send(self, statement: str, data: bytes) -> None:
        with self.db.cursor().copy(statement) as copy:
            copy.write(data)

    def read(self, v: Variant, state: str) -> None:
        table, last = self.table(v), self.one(f"select max(position) from {self.table(v)}")  # noqa: S608 (own names)
        began, count = time.perf_counter(), 0
        for low in range(0, last, READ):
            query = (
                f"copy (select payload from {table} where flow_id = '{FLOW}' and position "  # noqa: S608 (own names)
                f"between {low + 1} and {low + READ} order by position) to stdout (format binary)"
            )
            with self.db.cursor().copy(query) as copy:
                for _ in copy:
                    count += 1
        self.note(f"copy out, {state}, events/s", v, count / (time.perf_counter() - began))
        began = time.perf_counter()
        self.one(
            f"select sum(size_bytes) + count(recorded_at) from {table} "  # noqa: S608 (own names)
            f"where flow_id = '{FLOW}' and position between 1 and {last}"
        )
        ms = (time.perf_counter() - began) * 1000
        self.note(f"tail index scan, {state}, ms per 10k", v, ms / last * 10_000)

    def weigh(self, v: Variant) -> None:
        part = f"{self.table(v)}_p"
        count = self.one(f"select count(*) from {part}")  # noqa: S608 (own names)
        toast = f"(select reltoastrelid from pg_class where oid = '{part}'::regclass)"  # noqa: S608 (own names)
        for name, size in (
            ("heap", f"pg_relation_size('{part}')"),
            ("toast", f"coalesce(pg_total_relation_size({toast}), 0)"),
            ("indexes", f"pg_indexes_size('{part}')"),
            ("all", f"pg_total_relation_size('{part}')"),
        ):
            self.note(f"disk {name}, bytes/event", v, self.one(f"select {size}") / count)
        mean = self.one(f"select avg(pg_column_size(payload)) from {part}")  # noqa: S608 (own names)
        self.note("payload as stored, bytes", v, float(mean))
        raw = self.one(f"select avg(size_bytes) from {part}")  # noqa: S608 (own names)
        self.note("payload as given, bytes", v, float(raw))

    def note(self, figure: str, v: Variant, value: float) -> None:
        self.figures[figure][v.name].append(value)

    def table_text(self) -> str:
        """Medians as a Markdown table, a variant a column; the ratio to the first beside them."""
        names = [v.name for v in self.variants]
        lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for figure, by_variant in self.figures.items():
            middle = [statistics.median(by_variant[n]) for n in names]
            cells = [
                f"{m:,.0f} ({m / middle[0]:.2f})" if middle[0] else f"{m:,.0f}" for m in middle
            ]
            lines.append(f"| {figure} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


@contextlib.contextmanager
def cluster(bin_dir: Path, user: str | None) -> Iterator[str]:
    """A cluster for this run, on a socket in a folder of its own; gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="toast-", dir="/tmp"))  # a socket's path must be short
    if user:
        shutil.chown(home, user)
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []

    def tool(name: str, *arguments: str) -> None:
        subprocess.run(
            [*as_user, str(bin_dir / name), *arguments], check=True, cwd=home,
            stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    try:
        tool("initdb", "-D", f"{home}/data", "-U", "bench", "-A", "trust", "-E", "UTF8")
        options = " ".join(f"-c {s}" for s in (*SETTINGS, f"unix_socket_directories={home}"))
        tool("pg_ctl", "-D", f"{home}/data", "-l", f"{home}/log", "-o", options, "-w", "start")
        try:
            yield f"host={home} user=bench dbname=postgres"
        finally:
            tool("pg_ctl", "-D", f"{home}/data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home)


def main() -> None:
    """Run on each server given, print one table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", action="append", default=[])
    parser.add_argument("--bin", action="append", default=[], type=Path)
    parser.add_argument("--user", help="the user that runs --bin servers (root may not)")
    parser.add_argument("--events", type=int, default=3000, help="copied in, a round and variant")
    parser.add_argument("--singles", type=int, default=300, help="inserted singly, likewise")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--merged", type=int, default=1, help="events joined into a larger one")
    a = parser.parse_args()
    with contextlib.ExitStack() as stack:
        urls = [*a.url, *(stack.enter_context(cluster(b, a.user)) for b in a.bin)]
        for url in urls:
            bench = Bench(url, a.events, a.singles, a.rounds, a.merged)
            bench.run()
            print(
                f"\nPostgreSQL {bench.one('show server_version')}\n\n{bench.table_text()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
