"""Two hundred streams on real servers, ten to a store that hangs and ten to one that denies."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bucket_check import check_bucket
from support.eventually import eventually
from support.exporters import Exporter
from support.fault_proxy import Fault, running_fault_proxy
from support.fault_run import chosen_seed
from support.lead_events import id_of, lead_event
from support.stores import S3_SECRET, Place, make_bucket

from auditstore import EventRepository, streams
from auditstore.database import create_engine
from auditstore.destinations import Destination
from auditstore.streams import NewStream, Stream

STREAMS, HANGING, DENIED = 200, 10, 10
# What a healthy stream may take on top of its delay; the rest is for a loaded machine. A store
# that hangs holds its thread for 30 s.
_BOUND_S, _MARGIN_S = 1.0, 7.0
_SECONDS = 10.0

_DELAYS = sa.text(
    "SELECT extract(epoch FROM delivered_at - first_recorded_at)::float FROM auditstore.files"
    " WHERE stream_id = ANY (:stream_ids) AND delivered_at IS NOT NULL"
)


def add_streams(engine: sa.Engine, urls: list[Destination]) -> list[Stream]:
    """One stream a flow, at the default delay."""
    with engine.begin() as connection:
        return [
            streams.add(
                connection,
                NewStream(f"flow-{number}", place.url, endpoint_url=place.endpoint_url),
                actor="test",
            )
            for number, place in enumerate(urls)
        ]


@contextmanager
def appending(
    engine: sa.Engine, made: list[Stream], seed: int
) -> Iterator[dict[int, dict[str, bytes]]]:
    """Two writers, one event at a time to any of the flows, while the block runs."""
    committed: dict[int, dict[str, bytes]] = {stream.stream_id: {} for stream in made}
    stopping = threading.Event()

    def write(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        # Each writer has flows of its own, and each of these gets something.
        own = made[number::2]
        for turn in range(10**6):
            stream = own[turn] if turn < len(own) else chance.choice(own)
            snapshot = lead_event(stream.flow_id)
            with engine.begin() as connection:
                EventRepository().append(connection, snapshot)
            committed[stream.stream_id][id_of(snapshot)] = snapshot
            if stopping.wait(chance.uniform(0.02, 0.08)):
                return

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield committed
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def delays(engine: sa.Engine, those: list[Stream]) -> list[float]:
    """Seconds from the commit of each file's oldest event to its record, sorted."""
    with engine.connect() as connection:
        found = connection.execute(_DELAYS, {"stream_ids": [each.stream_id for each in those]})
        return sorted(found.scalars())


@pytest.mark.long
def test_two_hundred_streams_and_two_broken_stores(
    database_url: str, moto_server: str, tmp_path: Path
) -> None:
    """The healthy ones keep their delay, and the broken ones deliver all when they are mended."""
    seed = chosen_seed()
    engine = create_engine(database_url, pool_size=8)
    buckets = {name: make_bucket(moto_server) for name in ("healthy", "hanging", "denied")}
    with (
        running_fault_proxy(moto_server, "s3") as hangs,
        running_fault_proxy(moto_server, "s3") as denies,
    ):
        endpoints = {"healthy": moto_server, "hanging": hangs.url, "denied": denies.url}
        kinds = ["hanging"] * HANGING + ["denied"] * DENIED
        kinds += ["healthy"] * (STREAMS - len(kinds))
        random.Random(seed).shuffle(kinds)
        made = add_streams(engine, [
            Destination("s3", buckets[kind], f"stream-{number}", endpoints[kind])
            for number, kind in enumerate(kinds)
        ])  # fmt: skip
        healthy = [stream for stream, kind in zip(made, kinds, strict=True) if kind == "healthy"]
        broken = [stream for stream in made if stream not in healthy]
        hangs.inject(Fault(answer="never"), method=".*")
        denies.inject(Fault(status=403, code="AccessDenied"), method=".*")
        exporter = Exporter(database_url, S3_SECRET, tmp_path / "log", lease_ttl=15.0).start()
        try:
            with appending(engine, made, seed) as committed:
                eventually(lambda: len(delays(engine, healthy)) > 10, within=60)
                time.sleep(_SECONDS)  # nothing to wait for: that is how long it is watched
                assert not delays(engine, broken)
            eventually(lambda: _all_delivered(engine, healthy, committed), within=30)
            seen = delays(engine, healthy)
            p50, p99, worst = seen[len(seen) // 2], seen[int(len(seen) * 0.99)], seen[-1]
            print(
                f"{len(seen)} files of {len(healthy)} healthy streams beside {len(broken)} broken:"
                f" p50 {p50:.2f} s, p99 {p99:.2f} s, worst {worst:.2f} s after the oldest commit"
            )
            hangs.lift_all()
            denies.lift_all()
            with engine.begin() as connection:
                for stream in broken:
                    streams.resume(connection, stream.stream_id, actor="test")
            eventually(lambda: _all_delivered(engine, made, committed), within=60)
            exporter.stop()
        except BaseException:
            print(exporter.tail())
            raise
        finally:
            exporter.close()
    here = Place("s3", Destination("s3", "any"), S3_SECRET, Destination("s3", "any"), "")
    for stream, kind in zip(made, kinds, strict=True):
        place = Destination("s3", buckets[kind], stream.destination.prefix, moto_server)
        store = here.open(place)
        check_bucket(engine, stream.stream_id, store, committed[stream.stream_id])
        store.close()
    engine.dispose()
    assert p99 < 2.0 + _BOUND_S + _MARGIN_S


def _all_delivered(
    engine: sa.Engine, those: list[Stream], committed: dict[int, dict[str, bytes]]
) -> bool:
    ids = [stream.stream_id for stream in those]
    with engine.connect() as connection:
        count = connection.execute(
            sa.text(
                "SELECT coalesce(sum(event_count), 0) FROM auditstore.files"
                " WHERE stream_id = ANY (:stream_ids) AND delivered_at IS NOT NULL"
            ),
            {"stream_ids": ids},
        ).scalar_one()
    return bool(count == sum(len(committed[each]) for each in ids))
