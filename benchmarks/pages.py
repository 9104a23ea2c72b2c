"""How long the console's pages and the API's lists take at the server, in a store of some size.

    python benchmarks/pages.py [--events 5000000] [--flows 1000] [--days 90] [--files 20000]
        [--times 10] [--json pages.json]

Runs on an embedded PostgreSQL of its own with its default durability. Each page is asked by a
client in the same process, so the time is the server's alone: routing, session, statements,
template. What the console would keep for a minute is counted anew each time. Every statement on
events that a page runs is explained; the table names partitions that a plan reads from end to end.
"""

from __future__ import annotations

import argparse
import logging
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import history
import httpx
import psycopg
import sqlalchemy as sa
import structlog
from measuring import machine, write_json
from starlette.testclient import TestClient

from auditstore import accounts, streams
from auditstore.database import create_engine, migrate
from auditstore.embedded import start_embedded
from auditstore.sql import server
from auditstore.streams import NewStream
from auditstore.vault import Vault, new_key
from auditstore.web.app import create_app
from auditstore.web.console import day_counts

NAME, PASSWORD = "benchmark", "a password of five words"
TARGET_MS: Final = 300.0
_TOKEN: Final = re.compile(r'name="csrf_token" value="([^"]+)"')
_SCANNED: Final = re.compile(r"Seq Scan on (?:auditstore\.)?(events\w*)")
_FILES: Final = sa.text(
    "INSERT INTO auditstore.files (stream_id, sequence, first_position, last_position,"
    " event_count, content_bytes, first_recorded_at, last_recorded_at, format, encoder,"
    " object_key, sealed_at, delivered_at, content_sha256, object_bytes, object_sha256,"
    " previous_hash, row_hash)"
    " SELECT 1, n, n * 10, n * 10 + 9, 10, 36000, at, at + interval '1 second', 'ndjson.gz', 'x',"
    "   'flow-0/' || lpad(n::text, 10, '0') || '.ndjson.gz', at + interval '2 seconds',"
    "   at + interval '2.5 seconds', sha256('c'), 9000, sha256('o'), sha256('p'), sha256('r')"
    " FROM (SELECT n, now() - (:files - n) * interval '1 minute' AS at"
    "   FROM generate_series(1, :files) AS n) a"
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page, by what it is called, and the request for it."""

    name: str
    path: str
    query: dict[str, str]
    api: bool = False


def pages(event: str, lead: str, deep: str, day: str) -> list[Page]:
    """Every list and every page that reads events; ``deep`` is an id far back."""
    flow = {"id": "flow-000007"}
    rows = {"part": "rows"}

    def events(name: str, **query: str) -> Page:
        return Page(f"events, {name}", "/flow/events", flow | query)

    def api(name: str, path: str, **query: str) -> Page:
        return Page(f"API, {name}", path, query, api=True)

    return [
        Page("flows", "/", {}),
        Page("flows, their days", "/", rows),
        Page("flows, further on", "/", {"after": "flow-000700"}),
        Page("flows, searched", "/", {"search": "0077"}),
        Page("flow", "/flow", flow),
        events("newest"),
        events("further back", before=deep),
        events("of a day", start=day, end=day),
        events("of a type", type="feedback-received"),
        events("of an outcome", outcome="failure"),
        events("of an outcome that never was", outcome="skip"),
        events("of a lead", lead=lead),
        events("by reason", reason="lead 40"),
        events("by text", text="lead-4000"),
        events("by text that is nowhere", text="nowhere"),
        Page("event with its lead's timeline", "/flow/event", flow | {"event": event}),
        Page("deliveries", "/flow/deliveries", {"id": "flow-000000"}),
        Page("deliveries, further back", "/flow/deliveries",
             {"id": "flow-000000", "stream": "1", "before": "5000"}),
        Page("reconciliation", "/flow/reconciliation", flow),
        Page("activity of a flow", "/flow/activity", flow),
        Page("activity", "/activity", {}),
        Page("credentials", "/credentials", {}),
        api("newest events", "/events", limit="100"),
        api("events after an id", "/events", after_id=deep, sort="asc", limit="1000"),
        api("events of a day", "/events", start=f"{day}T00:00:00Z", end=f"{day}T23:59:59Z"),
        api("events by a rule", "/events",
            rules='[{"lhv":"outcome","op":"is equal to","rhv":"failure"}]'),
        api("event", f"/events/{event}", flow_id="flow-000007"),
        api("streams", "/api/v1/streams"),
        api("files", "/api/v1/streams/1/files", limit="100"),
    ]  # fmt: skip


class Site:
    """The application, with one who is signed in and one who has a key."""

    def __init__(self, engine: sa.Engine) -> None:
        with engine.begin() as connection:
            accounts.add_user(connection, name=NAME, password=PASSWORD, role="administrator",
                              actor="benchmark")  # fmt: skip
            _, self._key = accounts.add_key(connection, name=NAME, role="administrator",
                                            lasts=timedelta(days=1), actor="benchmark")  # fmt: skip
        self._client = TestClient(
            create_app(engine, Vault([new_key()])), base_url="https://localhost"
        )
        self._client.__enter__()
        form = {"name": NAME, "password": PASSWORD, "csrf_token": self._token("/login")}
        if self._client.post("/login", data=form, follow_redirects=False).status_code != 303:
            raise SystemExit("cannot sign in")

    def close(self) -> None:
        """End it."""
        self._client.__exit__(None, None, None)

    def ask(self, page: Page) -> httpx.Response:
        """The page, to its last byte; anything but 200 ends the benchmark."""
        auth = ("API", self._key) if page.api else None
        answer = self._client.get(page.path, params=page.query, auth=auth)
        if answer.status_code != 200:
            raise SystemExit(f"{page.name}: {answer.status_code}: {answer.text[:500]}")
        return answer

    def _token(self, path: str) -> str:
        found = _TOKEN.search(self._client.get(path).text)
        if found is None:
            raise SystemExit(f"{path} has no form")
        return found[1]


def explained(engine: sa.Engine, say: Callable[[], Any]) -> set[str]:
    """Partitions with events that the statements of ``say`` would read from end to end."""
    asked: list[tuple[str, Any]] = []

    def listen(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "events" in statement and statement.lstrip().startswith(("SELECT", "WITH")):
            asked.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", listen)
    try:
        say()
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)
    scanned: set[str] = set()
    with engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters or None)
            scanned |= set(_SCANNED.findall("\n".join(plan.scalars())))
        # Of a partition that is empty there is nothing else to read.
        sizes = {
            name: connection.scalar(sa.text("SELECT pg_relation_size(CAST(:name AS regclass))"),
                                    {"name": f"auditstore.{name}"})
            for name in scanned
        }  # fmt: skip
    return {name for name, size in sizes.items() if size}


def build(engine: sa.Engine, arguments: argparse.Namespace) -> None:
    """Events, streams and files."""
    with engine.begin() as connection:
        history.make_partitions(connection, period="month", days=arguments.days)
        until = server.clock(connection)
    began = time.monotonic()
    for done in history.fill(engine, flows=arguments.flows, events=arguments.events,
                             days=arguments.days, until=until):  # fmt: skip
        if done % 500_000 == 0:
            rate = done / (time.monotonic() - began)
            print(f"{done:,} events, {rate:,.0f} a second", file=sys.stderr)
    with engine.begin() as connection:
        for number in range(arguments.flows):
            new = NewStream(f"flow-{number:06d}", f"s3://bench-{number}/leads",
                            "http://127.0.0.1:1")  # fmt: skip
            streams.add(connection, new, actor="benchmark")
        connection.execute(_FILES, {"files": arguments.files})
        connection.execute(sa.text(
            "UPDATE auditstore.streams SET sealed_sequence = :files, delivered_sequence = :files"
            " WHERE stream_id = 1"), {"files": arguments.files})  # fmt: skip
    history.settle(engine)


def known(engine: sa.Engine) -> list[Page]:
    """The pages, with ids that are there."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text(
            "SELECT event_id, lead_id, to_char(recorded_at, 'YYYY-MM-DD') FROM auditstore.events"
            " WHERE flow_id = 'flow-000007' ORDER BY event_id")).all()  # fmt: skip
    middle = rows[len(rows) // 2]
    return pages(rows[-2][0], rows[-2][1], middle[0], middle[2])


def measured(site: Site, engine: sa.Engine, asked: list[Page], times: int) -> Iterator[Any]:
    """Every page, once to warm up and then so often; milliseconds."""
    for page in asked:
        scanned = explained(engine, lambda page=page: site.ask(page))  # type: ignore[misc]
        took = []
        site.ask(page)
        for _ in range(times):
            began = time.perf_counter()
            answer = site.ask(page)
            took.append(1000 * (time.perf_counter() - began))
        yield page.name, statistics.median(took), max(took), len(answer.content), sorted(scanned)


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    day_counts.KEPT_S = 0.0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        embedded = start_embedded(Path(folder) / "pg")
        stack.callback(embedded.stop)
        migrate(embedded.url)
        engine = create_engine(embedded.url, pool_size=5)
        stack.callback(engine.dispose)
        address = sa.make_url(embedded.url).set(drivername="postgresql")
        with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
            about = machine(connection) | {
                "events": arguments.events, "flows": arguments.flows, "days": arguments.days,
            }  # fmt: skip
        build(engine, arguments)
        site = Site(engine)
        stack.callback(site.close)
        print("\n".join(f"{name}: {value}" for name, value in about.items()))
        print(f"\n| page | median, ms | worst of {arguments.times} | bytes | target | met |"
              " events read from end to end |\n|---|---|---|---|---|---|---|")  # fmt: skip
        told = []
        for name, middle, worst, size, scanned in measured(site, engine, known(engine),
                                                           arguments.times):  # fmt: skip
            met = middle < TARGET_MS and not scanned
            print(f"| {name} | {middle:.0f} | {worst:.0f} | {size:,} | < {TARGET_MS:.0f} |"
                  f" {'yes' if met else 'no'} | {', '.join(scanned) or 'none'} |")  # fmt: skip
            told.append({"page": name, "median_ms": middle, "worst_ms": worst, "bytes": size,
                         "scanned": scanned, "met": met})  # fmt: skip
    if arguments.json:
        write_json(arguments.json, {"machine": about, "target_ms": TARGET_MS, "pages": told})


if __name__ == "__main__":
    main()
