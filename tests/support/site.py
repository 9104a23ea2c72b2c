"""Daemons at work on streams with stores in memory, for what real stores cannot be made to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from auditstore import EventRepository, streams
from auditstore.database import create_engine
from auditstore.objects import ObjectStore
from auditstore.streams import Limits, NewStream, Stream
from exporters.daemon import Daemon, DaemonConfig
from exporters.observer import UNOBSERVED, Observer
from support.bucket_check import check_bucket
from support.eventually import eventually
from support.lead_events import id_of, lead_event
from support.memory_store import MemoryStore

QUICK = DaemonConfig(tick=0.02, recheck=0.05, lease_ttl=1.0, grace=3.0)


class Site:
    """A database, stores in memory, one a stream, and the daemons of a test."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engines: list[sa.Engine] = []
        self.engine = self.new_engine()
        self.stores: dict[int, MemoryStore] = {}
        self.expected: dict[int, dict[str, bytes]] = {}
        self.daemons: list[Daemon] = []

    def new_engine(self) -> sa.Engine:
        """An engine with room for a daemon."""
        engine = create_engine(self.url, pool_size=16, max_overflow=4)
        self.engines.append(engine)
        return engine

    def open(self, _: sa.Connection, stream: Stream) -> ObjectStore:
        """The daemons' way to the stores."""
        return self.stores[stream.stream_id]

    def add(
        self,
        *,
        max_delay: float = 0.0,
        enabled: bool = True,
        key_template: str | None = None,
        bucket: str | None = None,
        **limits: Any,
    ) -> int:
        """A stream with a flow, a store and, unless ``bucket`` is given, a bucket of its own."""
        number = len(self.stores) + 1
        url = f"s3://{bucket or f'bucket-{number}'}/some/"
        url += f"prefix-{number}" if bucket else "prefix"
        new = NewStream(
            flow_id=f"flow-{number}", url=url, enabled=enabled,
            key_template=key_template, limits=Limits(max_delay=max_delay, **limits),
        )  # fmt: skip
        with self.engine.begin() as connection:
            stream_id = streams.add(connection, new, actor="test").stream_id
        self.stores[stream_id] = MemoryStore()
        self.expected[stream_id] = {}
        return stream_id

    def append(self, stream_id: int, count: int = 1, *, covered: bool = True) -> None:
        """Commit events of the stream's flow; ``covered`` ones are to be in its bucket."""
        made = [lead_event(f"flow-{stream_id}") for _ in range(count)]
        with self.engine.begin() as connection:
            EventRepository().append(connection, made)
        if covered:
            self.expected[stream_id] |= {id_of(each): each for each in made}

    def start(self, config: DaemonConfig = QUICK, *, observer: Observer = UNOBSERVED) -> Daemon:
        """A daemon at work; stopped at the end of the test unless the test did so."""
        daemon = Daemon(self.new_engine(), self.open, config, observer=observer)
        daemon.start()
        self.daemons.append(daemon)
        return daemon

    def stop(self, daemon: Daemon) -> bool:
        """Stop one of the daemons."""
        self.daemons.remove(daemon)
        return daemon.stop()

    def close(self) -> None:
        """End all daemons, also those that hang."""
        for store in self.stores.values():
            store.open.set()
        for daemon in self.daemons:
            daemon.stop()
        for engine in self.engines:
            engine.dispose()

    def stream(self, stream_id: int) -> Stream:
        """The stream as it stands."""
        with self.engine.connect() as connection:
            return streams.get(connection, stream_id)

    def change(
        self, act: Callable[..., Any], stream_id: int, *arguments: Any, **named: Any
    ) -> None:
        """What an operator does to a stream."""
        with self.engine.begin() as connection:
            act(connection, stream_id, *arguments, actor="test", **named)

    def delivered(self, stream_id: int) -> bool:
        """Whether everything expected is recorded as delivered."""
        with self.engine.connect() as connection:
            count = connection.execute(
                sa.text(
                    "SELECT coalesce(sum(event_count), 0) FROM auditstore.files"
                    " WHERE stream_id = :stream_id AND delivered_at IS NOT NULL"
                ),
                {"stream_id": stream_id},
            ).scalar_one()
        return int(count) >= len(self.expected[stream_id])

    def wait(self, *stream_ids: int, within: float = 10.0) -> float:
        """Seconds until everything expected of the streams is delivered."""
        began = time.monotonic()
        for stream_id in stream_ids or self.stores:
            eventually(
                lambda each=stream_id: self.delivered(each), within=within,
                what=f"stream {stream_id} delivered",
            )  # fmt: skip
        return time.monotonic() - began

    def check(self, *stream_ids: int) -> None:
        """Each bucket holds exactly what it should."""
        for stream_id in stream_ids or self.stores:
            expected = self.expected[stream_id]
            check_bucket(self.engine, stream_id, self.stores[stream_id], expected)

    def owners(self) -> dict[int, str | None]:
        """Who has the lease of each stream."""
        with self.engine.connect() as connection:
            return {each.stream_id: each.lease_owner for each in streams.find(connection)}
