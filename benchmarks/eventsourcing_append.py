"""One event a commit with the `eventsourcing` library; run by append.py in that library's venv.

    python eventsourcing_append.py THREADS < events, one a line

Prints events a second. The events are its recorder's `state`, as bytes; nothing is serialised.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore


def main() -> None:
    """Measure and print."""
    threads, payloads = int(sys.argv[1]), sys.stdin.buffer.read().splitlines()
    datastore = PostgresDatastore(
        os.environ["PG_NAME"], os.environ["PG_HOST"], os.environ["PG_PORT"], os.environ["PG_USER"],
        "", pool_size=threads, max_overflow=threads, pre_ping=False,
    )  # fmt: skip
    with datastore:
        recorder = PostgresApplicationRecorder(datastore, events_table_name="eventsourcing_events")
        recorder.create_table()
        stored = [StoredEvent(uuid.uuid4(), 1, "lead:Event", payload) for payload in payloads]
        gate = threading.Barrier(threads + 1)

        def write(own: list[StoredEvent]) -> None:
            # The first one connects and prepares, before the clock runs.
            recorder.insert_events(own[:1])
            gate.wait()
            for event in own[1:]:
                recorder.insert_events([event])

        running = [
            threading.Thread(target=write, args=(stored[number::threads],))
            for number in range(threads)
        ]
        for thread in running:
            thread.start()
        gate.wait()
        began = time.perf_counter()
        for thread in running:
            thread.join()
        print((len(stored) - threads) / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
