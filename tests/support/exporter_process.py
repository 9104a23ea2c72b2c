"""The program of the tests' exporters: the real daemon, which dies or stops where it is told to.

A JSON object on the first line of standard input says which secret, which intervals and which
fault. It lives as `auditstore export run` does, and leaves when standard input closes, so that
it outlives no test. Faults are set from outside, by wrapping functions in this process alone;
the product knows nothing of them. :mod:`support.exporters` starts and steers it.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import time_machine
from sqlalchemy import Connection

import exporters.daemon
import exporters.delivery
import exporters.stores.azure_client
import exporters.stores.s3_session
import exporters.worker
from auditstore import streams
from auditstore.cli import export_run
from auditstore.cli.context import Session
from auditstore.objects import NewObject, ObjectStore, PutResult
from auditstore.streams import Stream
from exporters.daemon import DaemonConfig
from exporters.stores import open_store

#: Every step between the decision to seal and the recorded delivery.
KILL_POINTS = (
    "before seal commit",
    "after seal commit",
    "mid read",
    "before upload",
    "half uploaded",
    "mid upload",
    "after upload",
    "before record commit",
    "after record commit",
)
Call = Callable[..., Any]


class Fuse:
    """Sends this process a signal, SIGKILL or SIGSTOP, when it is lit for the ``count``-th time."""

    def __init__(self, count: int, number: signal.Signals) -> None:
        self._left = count
        self._number = number
        self._lock = threading.Lock()

    def light(self) -> None:
        """One pass of the point."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                # To this very thread: for another one to take it, this one would run on.
                signal.pthread_kill(threading.get_ident(), self._number)


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
    elif point == "half uploaded":
        _halve_bodies(fuse)
        os.link = _at_entry(os.link, fuse)  # a file is written whole, then it gets its name
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


_uploading = threading.local()


def _halve_bodies(fuse: Fuse) -> None:
    """Light the fuse when half of an object's body was given to the network."""
    send: Call = http.client.HTTPConnection.send

    def halved(self: http.client.HTTPConnection, data: Any) -> None:
        body = getattr(_uploading, "body", b"")
        if not isinstance(data, bytes) or len(data) < 2 or data not in body:
            send(self, data)
            return
        half = len(data) // 2
        send(self, data[:half])
        fuse.light()
        send(self, data[half:])

    http.client.HTTPConnection.send = halved  # type: ignore[method-assign]


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
        _uploading.body = new.body
        try:
            result = self._store.put_if_absent(new)
        finally:
            _uploading.body = b""
        # For tests that want to see work done twice.
        print(f"put {new.key} created={result.created}", file=sys.stderr, flush=True)
        if self._point == "after upload":
            self._fuse.light()
        return result

    def __getattr__(self, name: str) -> Any:
        """Everything else is the store's own."""
        return getattr(self._store, name)


def main() -> None:
    """Export until a signal, or until standard input closes, or until the fuse has burnt down."""
    task = json.loads(sys.stdin.readline())
    point = task["point"]
    fuse = Fuse(task["count"], signal.Signals[task["signal"]])
    if point:
        arm(point, fuse)
    for name, value in task["constants"].items():
        module, _, constant = name.rpartition(".")
        assert hasattr(sys.modules[module], constant), name
        setattr(sys.modules[module], constant, value)
    if task["greedy"]:
        _ignore_leases()
    if task["clock"]:
        _wind_clock(task["clock"])

    def opener(_: Connection, stream: Stream) -> ObjectStore:
        region = "us-east-1" if stream.destination.scheme == "s3" else None
        store: Any = open_store(
            stream.destination, region=region, secret=task["secret"], options=stream.options
        )
        return FusedStore(store, point, fuse) if point or task["greedy"] else store

    if not task["vault"]:
        export_run.store_opener = lambda _: opener
    export_run.DaemonConfig = partial(  # type: ignore[misc,assignment]  # the tests' intervals
        DaemonConfig, tick=0.02, recheck=0.05, lease_ttl=task["lease_ttl"], grace=task["grace"]
    )
    export_run.LONGEST_IDLE = task["longest_idle"]  # type: ignore[misc]  # as above
    threading.Thread(target=_leave_with_the_test, daemon=True).start()
    export_run.run_daemon(Session(), workers=6, log_format="console")


def _ignore_leases() -> None:
    """Work on every stream, whoever holds its lease."""

    def every(connection: Connection, **_: Any) -> list[int]:
        return [stream.stream_id for stream in streams.find(connection, enabled=True)]

    exporters.daemon.leases_sql.renew = every
    exporters.daemon.leases_sql.live_daemons = lambda *_, **__: 1


def _wind_clock(steps: list[float]) -> None:
    """Set this process's clock off by seconds: the first step now, each other at SIGUSR1."""
    clock = time_machine.travel(time.time() + steps[0], tick=True).start()
    later = iter(steps[1:])
    signal.signal(signal.SIGUSR1, lambda *_: clock.shift(next(later)))


def _leave_with_the_test() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
