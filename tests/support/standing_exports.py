"""A server with one stream to a folder, exported step by step; for failovers and crashes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from auditstore import streams
from auditstore.database import create_engine, migrate
from auditstore.objects import ObjectStore
from auditstore.repository import EventRepository
from auditstore.streams import NewStream, Stream
from exporters.once import OnceResult, export_once
from exporters.stores import open_store
from support.lead_events import id_of, lead_event
from support.postgres import Cluster

FLOW = "flow-1"


def open_folder(connection: Connection, stream: Stream) -> ObjectStore:  # noqa: ARG001  # a StoreOpener
    """The folder that the stream names."""
    return open_store(stream.destination)


@dataclass
class Export:
    """One stream (id 1) on whichever server ``follow`` named last."""

    folder: Path
    engine: Engine
    appended: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def on(cls, cluster: Cluster, folder: Path) -> Export:
        """Migrate the server's database and add the stream."""
        migrate(cluster.url())
        export = cls(folder, create_engine(cluster.url(), poolclass=sa.NullPool))
        with export.engine.begin() as connection:
            streams.add(connection, NewStream(FLOW, folder.as_uri()), actor="test")
        return export

    def follow(self, cluster: Cluster) -> None:
        """From now on speak to another server, or to the same one after a restart."""
        self.engine.dispose()
        self.engine = create_engine(cluster.url(), poolclass=sa.NullPool)

    def append(self, count: int = 3) -> list[bytes]:
        """Commit new events; remember them."""
        snapshots = [lead_event(FLOW) for _ in range(count)]
        self.append_again(snapshots)
        return snapshots

    def append_again(self, snapshots: Iterable[bytes]) -> None:
        """Commit events that the caller has, as their source would send them again."""
        with self.engine.begin() as connection:
            EventRepository().append(connection, list(snapshots))
        self.appended |= {id_of(snapshot): snapshot for snapshot in snapshots}

    def once(self) -> OnceResult:
        """Export what is there."""
        return export_once(self.engine, open_folder)

    def deliver(self) -> int:
        """Export what is there, which must work; return the number of files."""
        ((_, outcome),) = self.once().outcomes
        assert outcome.error is None, outcome.error
        return outcome.delivered

    @property
    def stream(self) -> Stream:
        """The stream as the server has it now."""
        with self.engine.connect() as connection:
            return streams.get(connection, 1)

    def resume(self) -> None:
        """What an operator does after mending the cause."""
        with self.engine.begin() as connection:
            streams.resume(connection, 1, actor="test")

    def objects(self) -> dict[str, bytes]:
        """Every object in the folder by key."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }
