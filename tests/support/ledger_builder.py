"""Streams with files that are really sealed and delivered, and ways to damage each side."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from auditstore import EventRepository, streams
from auditstore.ledger import LedgerFile
from auditstore.objects import ObjectStore
from auditstore.reconciliation import (
    Finding,
    Kind,
    Readers,
    Restore,
    Scope,
    Summary,
    compare_stream,
)
from auditstore.reconciliation.scope import Progress, Silent
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import streams as streams_sql
from auditstore.streams import Limits, NewStream, Stream
from exporters import delivery
from exporters.sealing import seal
from support import snapshots
from support.stores import Place
from support.vandal import Vandal

FLOW = "flow-1"


class Scene:
    """One database and one place on a store, with streams from the one to the other."""

    def __init__(self, engine: sa.Engine, place: Place) -> None:
        self.engine = engine
        self.place = place
        self.vandal = Vandal(place)

    # --- building -----------------------------------------------------------------

    def stream(self, *, max_events: int = 4, enabled: bool = True, **settings: Any) -> int:
        """A stream of :data:`FLOW` to the place."""
        destination = self.place.destination
        new = NewStream(
            **{
                "flow_id": FLOW,
                "url": destination.url,
                "endpoint_url": destination.endpoint_url,
                "limits": Limits(max_events=max_events),
                "enabled": enabled,
                **settings,
            }
        )
        with self.engine.begin() as connection:
            return streams.add(connection, new, actor="test").stream_id

    def append(self, count: int, *, flow: str = FLOW, at: datetime | None = None) -> list[str]:
        """Events with leads of their own; recorded ``at``, if that matters. Their ids."""
        made = [
            snapshots.fields(flow=flow, lead=None if number % 5 == 4 else f"lead {number}")
            for number in range(count)
        ]
        ids = [str(each["id"]) for each in made]
        with self.engine.begin() as connection:
            EventRepository().append(connection, made)
        if at is not None:
            self.tamper(
                "UPDATE auditstore.events SET recorded_at = :at WHERE event_id = ANY(:ids)",
                at=at, ids=ids,
            )  # fmt: skip
        return ids

    def seal(self, stream_id: int, *, count: int | None = None) -> None:
        """Seal what waits, or only ``count`` files of it."""
        sealed = 0
        while count is None or sealed < count:
            with self.engine.begin() as connection:
                fence = streams_sql.last_position(connection)
                if seal(connection, stream_id, fence=fence, flush=True) is None:
                    return
            sealed += 1

    def deliver(self, stream_id: int) -> list[LedgerFile]:
        """Seal and deliver what waits; all files of the stream."""
        self.seal(stream_id)
        with self.opened() as store:
            while self._deliver_next(stream_id, store):
                pass
        return self.files(stream_id)

    def _deliver_next(self, stream_id: int, store: ObjectStore) -> bool:
        with self.engine.begin() as connection:
            stream = streams.get(connection, stream_id)
            sealed = ledger_sql.next_undelivered(connection, stream_id)
            if sealed is None:
                return False
            rendering = delivery.render(connection, stream, sealed)
            done = delivery.put(rendering, sealed, store)
            return delivery.record(connection, sealed, done)

    # --- damaging -----------------------------------------------------------------

    def tamper(self, statement: str, **parameters: Any) -> None:
        """Change the database behind its guards, as a superuser can."""
        with self.engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
            connection.execute(sa.text(statement), parameters)

    def lines(self, file: LedgerFile) -> list[bytes]:
        """The lines of a file's object, without their ends."""
        return gzip.decompress(self.vandal.read(file.sealed.object_key)).splitlines()

    def rewrite(self, file: LedgerFile, lines: Sequence[bytes], *, end: bytes = b"\n") -> None:
        """Replace a file's object by one with other lines."""
        content = b"\n".join(lines) + end if lines else b""
        self.vandal.write(file.sealed.object_key, gzip.compress(content))

    # --- looking ------------------------------------------------------------------

    def get(self, stream_id: int) -> Stream:
        """The stream as it stands."""
        with self.engine.connect() as connection:
            return streams.get(connection, stream_id)

    def files(self, stream_id: int) -> list[LedgerFile]:
        """The ledger's rows."""
        with self.engine.connect() as connection:
            return list(ledger_sql.stream_files(connection, stream_id))

    @contextmanager
    def opened(self) -> Any:
        """A store on the place, closed at the end."""
        store = self.place.open()
        try:
            yield store
        finally:
            store.close()

    def compare(
        self,
        stream_id: int,
        *,
        level: Any = "events",
        repair: bool = False,
        progress: Progress | None = None,
        readers: Readers | None = None,
        **scope: Any,
    ) -> tuple[list[Finding], Summary]:
        """All findings of one comparison, and its summary."""
        findings: list[Finding] = []
        summary = compare_stream(
            self.engine,
            stream_id,
            self.place.open,
            Scope(level, **scope),
            report=findings.append,
            restore=self._restorer if repair else None,
            progress=progress or Silent(),
            readers=readers,
        )
        return findings, summary

    def _restorer(self, store: ObjectStore) -> Restore:
        return partial(self._restore, store)

    def _restore(self, store: ObjectStore, stream: Stream, row: LedgerFile) -> bool:
        with self.engine.connect() as connection:
            return delivery.restore(connection, stream, row, store)


def kinds(findings: Sequence[Finding]) -> list[Kind]:
    """The kinds of the findings, in the order of reports."""
    order = list(Kind)
    return sorted((finding.kind for finding in findings), key=order.index)
