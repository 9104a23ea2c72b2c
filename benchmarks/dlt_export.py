"""A backlog to S3 by dlt; run by export.py with the Python of an environment that has it.

Its arguments are the database, the bucket, the server, a name for the data set, and the flow.
Prints the seconds and the rows of the run, in its own default way: gzip'd jsonl.
"""

from __future__ import annotations

import sys
import time

import dlt
from dlt.destinations import filesystem
from dlt.sources.sql_database import sql_table


def main() -> None:
    """Load once."""
    database, bucket, endpoint, name, flow = sys.argv[1:]
    destination = filesystem(
        bucket_url=bucket,
        credentials={
            "aws_access_key_id": "bench",
            "aws_secret_access_key": "bench",
            "endpoint_url": endpoint,
            "region_name": "us-east-1",
        },
    )
    pipeline = dlt.pipeline(name, destination=destination, dataset_name=name)
    table = sql_table(
        credentials=database,
        table="events",
        schema="auditstore",
        # The payload, and the key without which it does not load.
        included_columns=["event_id", "flow_id", "payload"],
        chunk_size=10_000,
        query_adapter_callback=lambda query, table: query.where(table.c.flow_id == flow),
    )
    began = time.perf_counter()
    pipeline.run(table, loader_file_format="jsonl")
    took = time.perf_counter() - began
    rows = pipeline.last_trace.last_normalize_info.row_counts["events"]
    print(took, rows)


if __name__ == "__main__":
    main()
