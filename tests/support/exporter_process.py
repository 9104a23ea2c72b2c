"""A real exporter in a process of its own, which kills itself where it is told to.

Run as a program: a JSON object on the first line of standard input says which database, which
secrets and where to die; it leaves in order when standard input closes. The points are set
from outside, by wrapping functions in this process alone; the product knows nothing of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

import exporters.delivery
import exporters.worker
from auditstore.database import create_engine
from auditstore.objects import NewObject, ObjectStore, PutResult
from auditstore.streams import Stream
from exporters.daemon import Daemon, DaemonConfig
from exporters.stores import open_store

#: Every step between the decision to seal and the recorded delivery.
KILL_POINTS = (
    "before seal commit",
    "after seal commit",
    "mid read",
    "before upload",
    "mid upload",
    "after upload",
    "before record commit",
    "after record commit",
)
Call = Callable[..., Any]


class Fuse:
    """Kills this process, as SIGKILL does, when it is lit for the ``count``-th time."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()

    def light(self) -> None:
        """One pass of the point."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, fuse: Fuse) -> None:
    """Put the fuse where ``point`` says."""
    worker, delivery = exporters.worker, exporters.delivery
    if point == "before seal commit":
        worker.seal = _before_commit(worker.seal, fuse)
    elif point == "after seal commit":
        worker.Worker._deliver = _at_entry(worker.Worker._deliver, fuse)  # type: ignore[method-assign]
    elif point == "mid read":
        delivery.events_sql.payloads = _in_the_middle(delivery.events_sql.payloads, fuse)
        delivery.events_sql.payloads_and_ids = _in_the_middle(
            delivery.events_sql.payloads_and_ids, fuse
        )
    elif point == "before upload":
        worker.put = _at_entry(worker.put, fuse)
    elif point == "before record commit":
        worker.record = _before_commit(worker.record, fuse)
    elif point == "after record commit":
        worker.Worker._record = _at_exit(worker.Worker._record, fuse)  # type: ignore[method-assign]


def _at_entry(call: Call, fuse: Fuse) -> Call:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        fuse.light()
        return call(*arguments, **named)

    return wrapped


def _at_exit(call: Call, fuse: Fuse) -> Call:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        fuse.light()
        return result

    return wrapped


def _before_commit(call: Call, fuse: Fuse) -> Call:
    """After the statements, before the commit, and only where there is something to commit."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        if result is True or hasattr(result, "sequence"):
            fuse.light()
        return result

    return wrapped


def _in_the_middle(call: Call, fuse: Fuse) -> Call:
    def wrapped(*arguments: Any, **named: Any) -> Iterator[Any]:
        for number, row in enumerate(call(*arguments, **named)):
            if number == 1:
                fuse.light()
            yield row

    return wrapped


class FusedStore:
    """A store that is killed while it uploads, or before its answer is used."""

    def __init__(self, store: ObjectStore, point: str, fuse: Fuse) -> None:
        self._store = store
        self._point = point
        self._fuse = fuse

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Upload, with the fuse burning."""
        if self._point == "mid upload":
            delay = random.uniform(0.0, 0.008)
            threading.Timer(delay, self._fuse.light).start()
        result = self._store.put_if_absent(new)
        if self._point == "after upload":
            self._fuse.light()
        return result

    def __getattr__(self, name: str) -> Any:
        """Everything else is the store's own."""
        return getattr(self._store, name)


def main() -> None:
    """Export until standard input closes, or until the fuse has burnt down."""
    task = json.loads(sys.stdin.readline())
    point = task["point"]
    fuse = Fuse(task["count"])
    if point:
        arm(point, fuse)

    def opener(_: Connection, stream: Stream) -> ObjectStore:
        region = "us-east-1" if stream.destination.scheme == "s3" else None
        store: Any = open_store(stream.destination, region=region, secret=task["secret"])
        return FusedStore(store, point, fuse) if point else store

    engine = create_engine(task["url"], application_name="exporter", pool_size=16)
    config = DaemonConfig(tick=0.02, recheck=0.05, lease_ttl=task["lease_ttl"])
    daemon = Daemon(engine, opener, config)
    daemon.start()
    print("exporting", flush=True)
    sys.stdin.read()
    sys.exit(0 if daemon.stop() else 1)


@contextmanager
def exporter(
    url: str,
    secret: Mapping[str, str] | None,
    *,
    point: str | None = None,
    count: int = 1,
    lease_ttl: float = 0.6,
) -> Iterator[subprocess.Popen[str]]:
    """Run an exporter process; its log, should it be needed, goes to standard error."""
    here = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "support.exporter_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=here,
    )
    assert process.stdin is not None
    task = {
        "url": url,
        "secret": dict(secret) if secret else None,
        "point": point,
        "count": count,
        "lease_ttl": lease_ttl,
    }
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        yield process
    finally:
        with suppress(BrokenPipeError):  # it may be dead already, as it was meant to be
            process.stdin.close()
        try:
            process.wait(15)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
