"""A real database and a real store that can be made to look like any picture, and whole again."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

import sqlalchemy as sa
from reconciliation.damage.expectation import Level, Sighting
from reconciliation.damage.hands import Hands
from reconciliation.damage.picture import Delivered, Facts, Layout, Picture, Row
from support import snapshots
from support.ledger_builder import FLOW

from auditstore import EventRepository, streams
from auditstore.layout import event_key
from auditstore.ledger import LedgerFile
from auditstore.reconciliation import Finding, Readers, Scope, Summary, Workers, compare_stream
from auditstore.sql import ledger as ledger_sql
from auditstore.streams import Limits, NewStream, Stream
from exporters.once import export_once

_FILES: Final = 4
_EVENTS_A_FILE: Final = 3
#: How long ago the events' ids were made, in seconds.
AGE: Final = 7200
#: Of 8 letters, as every edit that keeps an event's length.
ORIGINAL: Final = "original"
_COPIES: Final = (
    "CREATE TABLE kept_events AS SELECT * FROM auditstore.events",
    "CREATE TABLE kept_files AS SELECT * FROM auditstore.files",
)
_COLUMNS: Final = (
    "flow_id, lead_id, type, outcome, reason, step_id, started_at, ended_at, recorded_at"
)
_PUT_ROW: Final = (
    f"INSERT INTO auditstore.events (position, event_id, payload, size_bytes, sha256, {_COLUMNS})"
    " OVERRIDING SYSTEM VALUE SELECT :position, :event_id, CAST(CAST(:payload AS text) AS json),"
    f" octet_length(CAST(:payload AS text)), :sha256, {_COLUMNS}"
    " FROM kept_events WHERE position = :like"
)
_PUT_FILE: Final = (
    "INSERT INTO auditstore.files SELECT * FROM kept_files WHERE sequence = :sequence"
)
_ALTER_FILE: Final = (
    "UPDATE auditstore.files SET last_position = :last_position, event_count = :event_count,"
    " encoder = :encoder, object_key = :object_key, sealed_at = :sealed_at,"
    " content_sha256 = :content_sha256, object_bytes = :object_bytes, etag = :etag,"
    " row_hash = :row_hash WHERE sequence = :sequence"
)


class World:
    """One stream, exported by the real exporter. ``untouched`` is how it was then."""

    def __init__(self, engine: sa.Engine, hands: Hands, layout: Layout) -> None:
        self.engine = engine
        self.hands = hands
        self._layout = layout
        self.stream_id = self._add_stream()
        spare = self._append_all()
        ((_, outcome),) = export_once(engine, lambda *_: hands.open()).outcomes
        assert outcome.error is None, outcome.error
        self._execute(*((statement, {}) for statement in _COPIES))
        self.untouched = self._look(spare)
        self._present = self.untouched.copy()

    # --- comparing, damaging, mending -------------------------------------------------

    def compare(
        self, level: Level, workers: Workers | None = None
    ) -> tuple[Counter[Sighting], Summary]:
        """What the product finds, and its sum; with ``workers`` the files are read ahead."""
        findings: list[Finding] = []
        summary = compare_stream(
            self.engine, self.stream_id, self.hands.open, Scope(level), report=findings.append,
            readers=None if workers is None else Readers(workers),
        )  # fmt: skip
        return Counter(map(Sighting.of, findings)), summary

    def become(self, picture: Picture) -> None:
        """Make store and database look like the picture."""
        self._move_objects(picture)
        self._execute(*self._row_changes(picture), *self._ledger_changes(picture))
        self._present = picture.copy()

    def mend(self) -> None:
        """Undo every damage."""
        self.become(self.untouched)

    def _move_objects(self, picture: Picture) -> None:
        there, wanted = self._present.objects, picture.objects
        for key in there.keys() - wanted.keys():
            self.hands.delete(key)
        for key, body in wanted.items():
            if there.get(key) != body:
                self.hands.write(key, body)

    def _row_changes(self, picture: Picture) -> list[tuple[str, dict[str, Any]]]:
        there, wanted = self._present.rows, picture.rows
        differ = [
            position
            for position in there.keys() | wanted.keys()
            if there.get(position) != wanted.get(position)
        ]
        if not differ:
            return []
        changes: list[tuple[str, dict[str, Any]]] = [
            ("DELETE FROM auditstore.events WHERE position = ANY(:positions)",
             {"positions": differ})
        ]  # fmt: skip
        whole = self.untouched.rows
        for position in sorted(set(differ) & wanted.keys()):
            row = wanted[position]
            like = position if position in whole else min(whole)
            changes.append((
                _PUT_ROW,
                {
                    "position": position, "event_id": row.event_id, "sha256": row.sha256,
                    "payload": row.payload.decode(), "like": like,
                },
            ))  # fmt: skip
        return changes

    def _ledger_changes(self, picture: Picture) -> list[tuple[str, dict[str, Any]]]:
        changes: list[tuple[str, dict[str, Any]]] = []
        for sequence in range(1, picture.facts.delivered_sequence + 1):
            wanted = picture.ledger.get(sequence)
            if self._present.ledger.get(sequence) == wanted:
                continue
            of_it: dict[str, Any] = {"sequence": sequence}
            changes.append(("DELETE FROM auditstore.files WHERE sequence = :sequence", of_it))
            if wanted is not None:
                changes.append((_PUT_FILE, of_it))
                changes.append((_ALTER_FILE, of_it | _fields(wanted)))
        if picture.head != self._present.head:
            changes.append(
                ("UPDATE auditstore.streams SET chain_hash = :head", {"head": picture.head})
            )
        return changes

    def _execute(self, *statements: tuple[str, dict[str, Any]]) -> None:
        """Behind the guards of outbox and ledger, as a superuser can."""
        if not statements:
            return
        with self.engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
            for statement, parameters in statements:
                connection.execute(sa.text(statement), parameters)

    # --- making -------------------------------------------------------------------------

    def _add_stream(self) -> int:
        destination = self.hands.destination
        new = NewStream(
            FLOW, destination.url, endpoint_url=destination.endpoint_url, format=self._layout,
            limits=Limits(max_events=_EVENTS_A_FILE),
        )  # fmt: skip
        with self.engine.begin() as connection:
            return streams.add(connection, new, actor="test").stream_id

    def _append_all(self) -> list[bytes]:
        """Events of the flow and of another; return those whose append was rolled back."""
        spare = []
        for number in range(_FILES):
            leads = [f"lead {number}", None, "lead / of \u00e9"]
            first, *others = (_event(lead=lead) for lead in leads)
            with self.engine.begin() as connection:
                EventRepository().append(connection, [first, _event(flow="another")])
            given_up = _event(lead="lead of nobody")
            with self.engine.connect() as connection:
                EventRepository().append(connection, [given_up])
                connection.rollback()
            spare.append(given_up)
            with self.engine.begin() as connection:
                EventRepository().append(connection, others)
        return spare

    def _look(self, spare: list[bytes]) -> Picture:
        with self.engine.connect() as connection:
            stream = streams.get(connection, self.stream_id)
            found = connection.execute(
                sa.text(
                    "SELECT position, event_id, lead_id, payload::text AS payload, sha256"
                    " FROM auditstore.events WHERE flow_id = :flow ORDER BY position"
                ),
                {"flow": FLOW},
            ).all()
            files = list(ledger_sql.stream_files(connection, self.stream_id))
            taken = set(connection.scalars(sa.text("SELECT position FROM auditstore.events")))
        rows = {
            each.position: Row(
                each.position, each.event_id, each.payload.encode(), bytes(each.sha256)
            )
            for each in found
        }
        free = [position for position in range(min(taken), max(taken)) if position not in taken]
        spares = tuple(Row.of(at, payload) for at, payload in zip(free, spare, strict=True))
        prefix = stream.destination.prefix
        # A row that is added is like the first one but for its id and its payload.
        leads = {each.event_id: each.lead_id for each in found} | {
            row.event_id: found[0].lead_id for row in spares
        }
        keys = {
            event_id: event_key(prefix=prefix, lead_id=lead, event_id=event_id)
            for event_id, lead in leads.items()
        }
        return Picture(
            Facts(
                self._layout, prefix, _delivered(self._layout, files, rows, keys), keys, spares,
                stream.sealed_position, stream.delivered_sequence,
            ),
            self._objects(stream), rows, {file.sealed.sequence: file for file in files},
            stream.chain_hash,
        )  # fmt: skip

    def _objects(self, stream: Stream) -> dict[str, bytes]:
        store = self.hands.open()
        try:
            prefix = stream.destination.prefix
            listed = list(store.list(f"{prefix}/" if prefix else ""))
            return {info.key: b"".join(store.read(info.key) or ()) for info in listed}
        finally:
            store.close()


def _event(**more: Any) -> bytes:
    # Old enough for other views, which wait some minutes for each other.
    made_at = snapshots.event_id(at=time.time() - AGE)
    return snapshots.snapshot(id=made_at, reason=ORIGINAL, **more)


def _delivered(
    layout: Layout, files: list[LedgerFile], rows: dict[int, Row], keys: dict[str, str]
) -> tuple[Delivered, ...]:
    made = []
    for sealed in (file.sealed for file in files):
        held = [
            row
            for position, row in rows.items()
            if sealed.first_position <= position <= sealed.last_position
        ]
        if layout == "json":
            made += [Delivered(keys[row.event_id], sealed.sequence, (row,)) for row in held]
        else:
            made.append(Delivered(sealed.object_key, sealed.sequence, tuple(held)))
    return tuple(made)


def _fields(file: LedgerFile) -> dict[str, Any]:
    assert file.delivery is not None
    sealed, delivery = file.sealed, file.delivery
    return {
        "last_position": sealed.last_position, "event_count": sealed.event_count,
        "encoder": sealed.encoder, "object_key": sealed.object_key, "sealed_at": sealed.sealed_at,
        "content_sha256": delivery.content_sha256, "object_bytes": delivery.object_bytes,
        "etag": delivery.etag, "row_hash": file.row_hash,
    }  # fmt: skip
