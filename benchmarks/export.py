"""Exporting a backlog to S3, beside what people would use instead: a shell pipeline, dlt.

    python benchmarks/export.py [--rounds 5] [--events 50000] [--json export.json]
        [--aws venv/bin/aws] [--dlt venv/bin/python]

Runs on an embedded PostgreSQL with its default durability and a local moto server, both its own.
Every contender takes the same rows of the outbox to the same bucket, once a round:

- auditstore: `export_once` of a stream to `ndjson.gz`, from the outbox to recorded deliveries;
- the pipeline: psql -c "COPY (SELECT payload ...) TO STDOUT" | gzip | aws s3 cp - s3://...
- dlt: its sql_database source to its filesystem destination, as gzip'd jsonl; the time that its
  program takes to load is not counted.

The pipeline's object is read back and its lines counted, ours are compared by the reconciliation
at the level `events`, outside of the time.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import boto3
import lead_stream
import psycopg
import sqlalchemy as sa
import structlog
from measuring import Comparison, Rounds, machine, report, write_json
from servers import BUCKET, REGION, SECRET, s3_server

from auditstore import EventRepository, streams
from auditstore.database import create_engine, migrate
from auditstore.embedded import start_embedded
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Scope, compare_stream
from auditstore.streams import NewStream, Stream
from exporters.once import export_once
from exporters.stores import open_store

PORT = 5932
FLOW = "backlog"


def opener(stream: Stream) -> ObjectStore:
    """The stream's store on the local server."""
    return open_store(stream.destination, region=REGION, secret=SECRET, options={})


class Contenders:
    """Every way of taking the same rows to the same bucket."""

    def __init__(self, url: str, endpoint: str, arguments: argparse.Namespace) -> None:
        self.engine = create_engine(url, pool_size=10)
        self.url = sa.make_url(url)
        self.endpoint = endpoint
        self.arguments = arguments
        self.rounds = Rounds()
        self.number = 0
        # One round more, which warms up.
        self.streams = [self._add(number) for number in range(arguments.rounds + 1)]
        self._append()

    def _add(self, number: int) -> int:
        new = NewStream(FLOW, f"s3://{BUCKET}/ours-{number}", self.endpoint)
        with self.engine.begin() as connection:
            return streams.add(connection, new, actor="benchmark").stream_id

    def _append(self) -> None:
        repository = EventRepository()
        with self.engine.connect() as connection:
            now = float(connection.scalar(sa.text("SELECT extract(epoch FROM now())")) or 0)
        made = lead_stream.events(
            self.arguments.seed, self.arguments.events, FLOW, start=now - 10 * 86_400
        )
        for first in range(0, len(made), 1000):
            with self.engine.begin() as connection:
                repository.append(connection, made[first : first + 1000])

    def ours(self, name: str) -> None:
        """One stream's whole backlog, recorded; compared event by event afterwards."""
        stream_id = self.streams[self.number]

        def work() -> None:
            result = export_once(
                self.engine, lambda _, stream: opener(stream), stream_ids=[stream_id]
            )
            events = result.outcomes[0][1].events
            if result.failed or events != self.arguments.events:
                raise SystemExit(f"the export failed: {result}")

        self.rounds.time(name, self.arguments.events, work)
        with self.engine.connect() as connection:
            stream = streams.get(connection, stream_id)
        summary = compare_stream(
            self.engine, stream_id, lambda: opener(stream), Scope("events"), report=print
        )
        if summary.result != "reconciled" or summary.events_matched != self.arguments.events:
            raise SystemExit(f"not all of it arrived: {summary}")

    def pipeline(self, name: str) -> None:
        """What a shell does; its lines are counted afterwards."""
        key = f"pipeline-{self.number}.ndjson.gz"
        address = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        copy = (
            f"COPY (SELECT payload FROM auditstore.events WHERE flow_id = '{FLOW}'"  # noqa: S608  # own words
            " ORDER BY position) TO STDOUT"
        )
        command = (
            f'psql "{address}" -q -c "{copy}" | gzip | {self.arguments.aws} s3 cp -'
            f" s3://{BUCKET}/{key} --endpoint-url {self.endpoint} --only-show-errors"
        )

        def work() -> None:
            subprocess.run(
                ["bash", "-o", "pipefail", "-c", command], check=True, env=self._environment()
            )

        self.rounds.time(name, self.arguments.events, work)
        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name=REGION,
            aws_access_key_id="bench", aws_secret_access_key="bench",
        )  # fmt: skip
        body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        lines = gzip.decompress(body).count(b"\n")
        if lines != self.arguments.events:
            raise SystemExit(f"the pipeline's object has {lines} lines")

    def dlt(self, name: str) -> None:
        """Its own program, which tells its own time."""
        program = Path(__file__).with_name("dlt_export.py")
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [self.arguments.dlt, program, self._socket_url(), f"s3://{BUCKET}/dlt",
                 self.endpoint, f"round_{self.number}", FLOW],
                stdout=subprocess.PIPE, check=True, env=self._environment() | {"HOME": folder},
            )  # fmt: skip
        seconds, rows = done.stdout.split()[-2:]
        if int(rows) != self.arguments.events:
            raise SystemExit(f"dlt loaded {int(rows)} rows")
        self.rounds.rates[name].append(self.arguments.events / float(seconds))

    def _socket_url(self) -> str:
        url = self.url.set(drivername="postgresql+psycopg2")
        return url.render_as_string(hide_password=False)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": REGION,
        }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--aws", default=shutil.which("aws"), help="the AWS command line")
    parser.add_argument("--dlt", help="a Python that has dlt[sql_database,filesystem,s3,postgres]")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    # A line a file is what an operator wants to see, not what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = start_embedded(Path(folder) / "pg")
        stack.callback(server.stop)
        migrate(server.url)
        endpoint = stack.enter_context(s3_server(PORT))
        c = Contenders(server.url, endpoint, arguments)
        stack.callback(c.engine.dispose)
        address = c.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address) as connection:
            about = {**machine(connection), "events": arguments.events, "seed": arguments.seed}
        ours, pipeline, dlt = "auditstore export once", "psql, gzip, aws s3 cp", "dlt"
        contenders: list[Callable[[], None]] = [lambda: c.ours(ours)]
        comparisons, not_run = [], {}
        if arguments.aws and shutil.which("psql"):
            contenders.append(lambda: c.pipeline(pipeline))
            comparisons.append(Comparison(f"{ours} / {pipeline}", ours, pipeline, 4))
        else:
            not_run[pipeline] = "psql or aws is not there"
        if arguments.dlt:
            contenders.append(lambda: c.dlt(dlt))
            comparisons.append(Comparison(f"{ours} / {dlt}", ours, dlt, 15))
        else:
            not_run[dlt] = "no --dlt PYTHON was given"
        for number in range(arguments.rounds + 1):
            c.number = number
            for contender in contenders:
                contender()
            if number == 0:
                c.rounds.rates.clear()  # the first round only warms up
        result = report(about, c.rounds, comparisons, not_run)
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
