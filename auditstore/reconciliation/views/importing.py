"""Events of another view into the outbox: in batches, idempotent, each recorded as imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import Connection, Engine

from auditstore.errors import ConfigurationError, DatabaseUnavailable
from auditstore.events import DEFAULT_MAX_EVENT_BYTES, Event, FieldRefused
from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.views import sameness
from auditstore.reconciliation.views.records import Key, Record, Trouble, View, Window
from auditstore.repository import EventRepository
from auditstore.sql import imports as sql
from auditstore.sql import views as views_sql
from auditstore.sql.events import stored_hashes
from auditstore.sql.failures import translated

_BATCH: Final = 500
_BATCH_BYTES: Final = 16 * 1024 * 1024
_ATTEMPTS: Final = 5


@dataclass(slots=True)
class ImportResult:
    """What came of it. ``import_id`` is ``None`` as long as nothing was appended or recorded.

    ``troubles`` counts what the view had that is no event; ``refused`` are events that could not
    be appended, conflicts among them. ``rewritten`` of the existing ones have other bytes.
    """

    import_id: int | None = None
    offered: int = 0
    appended: int = 0
    existing: int = 0
    rewritten: int = 0
    refused: int = 0
    troubles: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that was not appended, and why."""

    record: Record
    kind: Kind
    detail: str
    stored: bytes | None = None


class Importer:
    """Appends batches under one import's number, which is taken with the first of them.

    With ``dry_run`` it says what it would do, and writes nothing.
    """

    def __init__(
        self, engine: Engine, *, kind: Literal["import", "adopt"], source: str, actor: str,
        dry_run: bool = False,
    ) -> None:  # fmt: skip
        # Sees nothing of others: what is there of its events afterwards, it has appended.
        self._engine = engine.execution_options(isolation_level="REPEATABLE READ")
        self._kind: Literal["import", "adopt"] = kind
        self._source = source
        self._actor = actor
        self._dry_run = dry_run
        self.result = ImportResult()

    def take(self, records: Sequence[Record]) -> list[Refusal]:
        """Append those that are not there, in one transaction; those that cannot be, and why.

        No two of them may be the same event.
        """
        usable, refusals = _usable(records)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return refusals + self._take(usable, len(refusals))
            except DatabaseUnavailable:
                # Most likely another writer had one of them; the next look sees what it did.
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")  # pragma: no cover - the loop returns or raises

    def finish(self) -> None:
        """Close the record, if there is one."""
        if self.result.import_id is not None:
            with translated(), self._engine.begin() as connection:
                sql.finish(connection, self.result.import_id)

    def _take(self, events: Sequence[tuple[Record, Event]], refused: int) -> list[Refusal]:
        with translated(), self._engine.connect() as connection, connection.begin() as transaction:
            keys = [record.key for record, _ in events]
            stored = {key: bytes(sha256) for key, sha256 in _stored(connection, keys).items()}
            new = [(record, event) for record, event in events if record.key not in stored]
            refusals, rewritten = _conflicts(connection, events, stored)
            after = ImportResult(
                import_id=self.result.import_id,
                offered=self.result.offered + len(events) + refused,
                appended=self.result.appended + len(new),
                existing=self.result.existing + len(events) - len(new) - len(refusals),
                rewritten=self.result.rewritten + rewritten,
                refused=self.result.refused + refused + len(refusals),
                troubles=self.result.troubles,
            )
            if self._dry_run:
                transaction.rollback()
            else:
                self._write(connection, new, after)
        self.result = after
        return refusals

    def _write(
        self, connection: Connection, new: Sequence[tuple[Record, Event]], after: ImportResult
    ) -> None:
        if after.import_id is None:
            after.import_id = sql.begin(
                connection, kind=self._kind, source=self._source, actor=self._actor
            )
        if new:
            EventRepository().append(connection, [event for _, event in new])
            sql.mark(connection, after.import_id, [record.key for record, _ in new])
        sql.count(
            connection, after.import_id, offered=after.offered, appended=after.appended,
            existing=after.existing, refused=after.refused,
        )  # fmt: skip


def _stored(connection: Connection, keys: Sequence[Key]) -> dict[Key, bytes]:
    return stored_hashes(connection, keys) if keys else {}


def _usable(
    records: Sequence[Record],
) -> tuple[list[tuple[Record, Event]], list[Refusal]]:
    usable, refusals = [], []
    for record in records:
        if record.partial:
            raise ConfigurationError(
                "the table holds columns of events and no whole ones: they can be compared, and "
                "not appended",
                hint="Export it with a column `payload` that holds each event's JSON.",
            )
        assert record.payload is not None  # noqa: S101  # every view but the outbox brings it
        try:
            event = Event.from_json(
                record.payload, flow_id=record.flow_id, max_bytes=DEFAULT_MAX_EVENT_BYTES
            )
        except FieldRefused as error:
            refusals.append(Refusal(record, Kind.UNREADABLE_LINE, f"it cannot be taken: {error}"))
        else:
            usable.append((record, event))
    return usable, refusals


def _conflicts(
    connection: Connection, events: Sequence[tuple[Record, Event]], stored: dict[Key, bytes]
) -> tuple[list[Refusal], int]:
    """Those that are stored with other content; and how many only with other bytes."""
    differing = {
        record.key: record
        for record, event in events
        if record.key in stored and stored[record.key] != event.sha256
    }
    refusals: list[Refusal] = []
    if not differing:
        return refusals, 0
    payloads = views_sql.payloads_of(connection, list(differing))
    for key, record in differing.items():
        assert record.payload is not None  # noqa: S101  # as above
        fields = sameness.differing_fields(payloads[key], record.payload)
        if fields != []:
            refusals.append(
                Refusal(
                    record, Kind.CHANGED_EVENT,
                    f"the outbox has it with other content: {sameness.in_words(fields)}",
                    stored[key],
                )
            )  # fmt: skip
    return refusals, len(differing) - len(refusals)


@dataclass(slots=True)
class _Batch:
    records: list[Record] = field(default_factory=list)
    keys: set[Key] = field(default_factory=set)
    size: int = 0

    def has_room_for(self, record: Record) -> bool:
        return (
            record.key not in self.keys
            and len(self.records) < _BATCH
            and self.size + len(record.payload or b"") <= _BATCH_BYTES
        )

    def add(self, record: Record) -> None:
        self.records.append(record)
        self.keys.add(record.key)
        self.size += len(record.payload or b"")


def import_events(
    engine: Engine,
    view: View,
    window: Window,
    *,
    actor: str,
    report: Callable[[Finding], None],
    dry_run: bool = False,
) -> ImportResult:
    """Take the view's events of the window into the outbox; what cannot be taken is reported.

    Each batch is committed by itself, so a run that was cut has appended what came before, and
    another one finds that as existing. Bad objects and lines are findings, and stop nothing;
    a view that cannot be read to its end is an error.
    """
    importer = Importer(engine, kind="import", source=view.name, actor=actor, dry_run=dry_run)
    troubles = 0
    batch = _Batch()

    def flush() -> None:
        nonlocal batch
        if batch.records:
            for refusal in importer.take(batch.records):
                report(_refused(refusal, view))
        batch = _Batch()

    for told in view.read(window):
        if isinstance(told, Trouble):
            troubles += 1
            report(_trouble(told, window))
            continue
        if not batch.has_room_for(told):
            flush()
        batch.add(told)
    flush()
    importer.finish()
    importer.result.troubles = troubles
    return importer.result


def _refused(refusal: Refusal, view: View) -> Finding:
    record = refusal.record
    return Finding(
        refusal.kind, 0, record.flow_id, f"{view.name}: {refusal.detail}",
        event_id=record.event_id, lead_id=record.lead_id, object_key=record.place,
        expected=None if refusal.stored is None else refusal.stored.hex(),
        found=record.sha256.hex(),
    )  # fmt: skip


def _trouble(trouble: Trouble, window: Window) -> Finding:
    return Finding(
        trouble.kind, 0, window.flow_id or "", trouble.detail, event_id=trouble.event_id,
        lead_id=trouble.lead_id, object_key=trouble.place, expected=trouble.expected,
        found=trouble.found,
    )  # fmt: skip
