"""SIGKILL at every step between seal and record: nothing lost, nothing twice.

Eight hostile writers append all the while. In the end the bucket itself is read: every
committed event lies there exactly once, byte for byte, in files without a gap.
"""

from __future__ import annotations

import random
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import boto3
import pytest
from sqlalchemy import Engine, create_engine
from support.bucket_check import check_bucket
from support.exporter_process import KILL_POINTS, exporter
from support.fixtures_postgres import Database
from support.stores import Place
from support.writers import Writers

from auditstore import streams
from auditstore.destinations import Destination
from auditstore.layout import Format
from auditstore.objects import ObjectStore
from auditstore.streams import Limits, NewStream, Stream
from exporters.once import export_once

LIMITS = Limits(max_events=30, max_bytes=40_000, max_delay=0.15)
FLOWS = ("flow-a", "flow-b")
_PATIENCE_S = 30


@dataclass(frozen=True)
class Scene:
    """Streams of the flows on one kind of store."""

    engine: Engine
    database: Database
    place: Place
    streams: Sequence[Stream]

    def store(self, stream: Stream) -> ObjectStore:
        """The stream's store, for the test's own looking."""
        return self.place.open(stream.destination)


@pytest.fixture
def scene(database: Database, place: Place) -> Scene:
    """A stream of files a flow; in the folder, where it is cheap, one of single events too."""
    if place.kind == "s3":
        _keep_versions(place)
    engine = create_engine(database.url, pool_size=20)
    made = []
    formats: list[tuple[str, Format]] = [(flow, "ndjson.gz") for flow in FLOWS]
    if place.kind == "file":
        formats.append((FLOWS[1], "json"))
    with engine.begin() as connection:
        for number, (flow, format_) in enumerate(formats):
            destination = _below(place.destination, f"stream-{number}")
            new = NewStream(
                flow_id=flow, url=destination.url, endpoint_url=destination.endpoint_url,
                format=format_, limits=LIMITS,
            )  # fmt: skip
            made.append(streams.add(connection, new, actor="test"))
    yield Scene(engine, database, place, made)
    engine.dispose()


def _below(destination: Destination, name: str) -> Destination:
    if destination.scheme == "file":
        return Destination("file", f"{destination.bucket}-{name}")
    prefix = f"{destination.prefix}/{name}" if destination.prefix else name
    return Destination(destination.scheme, destination.bucket, prefix, destination.endpoint_url)


def _s3(place: Place) -> object:
    secret = place.secret or {}
    return boto3.client(
        "s3", endpoint_url=place.destination.endpoint_url, region_name="us-east-1",
        aws_access_key_id=secret["access_key_id"],
        aws_secret_access_key=secret["secret_access_key"],
    )  # fmt: skip


def _keep_versions(place: Place) -> None:
    _s3(place).put_bucket_versioning(  # type: ignore[attr-defined]  # boto3 makes it at run time
        Bucket=place.destination.bucket, VersioningConfiguration={"Status": "Enabled"}
    )


def _versions(place: Place) -> Callable[[str], Mapping[str, int]]:
    def count(prefix: str) -> Mapping[str, int]:
        found: dict[str, int] = {}
        pages = _s3(place).get_paginator("list_object_versions")  # type: ignore[attr-defined]  # as above
        for page in pages.paginate(Bucket=place.destination.bucket, Prefix=f"{prefix}/"):
            for version in page.get("Versions", []):
                found[version["Key"]] = found.get(version["Key"], 0) + 1
        return found

    return count


def _await_kill(process: subprocess.Popen[str], point: str, count: int) -> None:
    try:
        code = process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the exporter never came to {point!r} for the {count}. time")
    assert code == -signal.SIGKILL, f"at {point!r} the exporter ended with {code}"


def _drain_and_check(scene: Scene, writers: Writers) -> tuple[int, int]:
    """A last clean run, then every stream's bucket; how many objects and events were found."""
    for _ in range(3):
        result = export_once(scene.engine, lambda _, stream: scene.store(stream), patience=10)
        assert not result.failed, result
        assert not result.behind
    objects = events = 0
    for stream in scene.streams:
        store = scene.store(stream)
        checked = check_bucket(
            scene.engine, stream.stream_id, store, writers.committed[stream.flow_id],
            versions=_versions(scene.place) if scene.place.kind == "s3" else None,
        )  # fmt: skip
        store.close()
        objects, events = objects + checked.objects, events + checked.events
    assert events
    return objects, events


def test_a_kill_at_every_step_loses_nothing_and_doubles_nothing(scene: Scene) -> None:
    """One exporter after the other dies at the next step, each at a random pass of it."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    points = list(KILL_POINTS)
    chance.shuffle(points)
    began = time.monotonic()
    writers = Writers(scene.engine, FLOWS, seed, holds=0.2)
    with writers.running():
        for point in points:
            count = chance.randint(1, 3)
            with exporter(
                scene.database.url, scene.place.secret, point=point, count=count
            ) as process:
                _await_kill(process, point, count)
    objects, events = _drain_and_check(scene, writers)
    print(
        f"{scene.place.kind}: {events} events in {objects} objects, {len(points)} kills,"
        f" {time.monotonic() - began:.1f} s, {dict(writers.done)}"
    )


def test_two_exporters_on_the_same_streams_are_killed_in_turn(scene: Scene) -> None:
    """Leases pass from the dead to the living, and work that both do is done once."""
    # The protocol is the same on each; Azure's emulator is the slowest of the three.
    rounds = 3 if scene.place.kind == "azure" else 6
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    began = time.monotonic()
    writers = Writers(scene.engine, FLOWS, seed, holds=0.2)
    kills = 0
    with writers.running():
        for _ in range(rounds):
            with ExitStack() as stack:
                processes = [
                    stack.enter_context(
                        exporter(
                            scene.database.url, scene.place.secret,
                            point=chance.choice(KILL_POINTS), count=chance.randint(1, 4),
                        )
                    )
                    for _ in range(2)
                ]  # fmt: skip
                # One that never comes to its point is left to stop in order.
                until = time.monotonic() + 3
                for process in processes:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(max(0.0, until - time.monotonic()))
            kills += sum(each.returncode == -signal.SIGKILL for each in processes)
    objects, events = _drain_and_check(scene, writers)
    assert kills >= rounds
    print(
        f"{scene.place.kind}: {events} events in {objects} objects, {kills} kills,"
        f" {time.monotonic() - began:.1f} s"
    )
