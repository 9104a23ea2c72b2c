"""What a view tells: events with their places, and what is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

from auditstore.events import Event, FieldRefused, first_id_at, id_time
from auditstore.reconciliation.decoding import MAX_LINE_BYTES
from auditstore.reconciliation.findings import Kind

#: The largest event that a view takes in, in bytes; what is larger is a finding.
MAX_EVENT_BYTES: Final = MAX_LINE_BYTES
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Window:
    """Which events count: of one flow or of all, made in a half-open interval (UTC).

    An event's time is the one in its id, to the second.
    """

    flow_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def first_id(self) -> str:
        """The smallest id that counts."""
        return "0" * 24 if self.since is None else first_id_at(self.since)

    @property
    def end_id(self) -> str:
        """The first id that does not count any more; it is greater than every id without an end."""
        return "g" if self.until is None else first_id_at(self.until)

    def holds_id(self, event_id: str) -> bool:
        """Whether an event with this id was made in the interval."""
        return self.first_id <= event_id < self.end_id

    def holds(self, record: Record) -> bool:
        """Whether an event counts."""
        return self.holds_id(record.event_id) and self.flow_id in {None, record.flow_id}


@dataclass(frozen=True, slots=True)
class Record:
    """One event as a view has it.

    ``place`` says where: an object's key, a line. ``payload`` is its snapshot, ``None`` if it was
    not read along; unless ``keep`` is set the view can be asked for it again by its place. A
    ``partial`` one is a row of some columns:
    its payload is a JSON object from field path to text, and ``sha256`` that of no snapshot.
    ``recipient_event_id`` is the event that feedback refers to.
    """

    event_id: str
    flow_id: str
    lead_id: str | None
    type: str | None
    outcome: str | None
    sha256: bytes
    place: str
    payload: bytes | None = None
    keep: bool = True
    partial: bool = False
    position: int | None = None
    recipient_event_id: str | None = None

    @property
    def made_at(self) -> datetime:
        """The time in its id, to the second."""
        return id_time(self.event_id)

    @property
    def names(self) -> dict[str, Any]:
        """What a finding says of which event it is, and where."""
        return {
            "event_id": self.event_id, "lead_id": self.lead_id, "type": self.type,
            "outcome": self.outcome, "position": self.position,
            # The outbox's place is its position.
            "object_key": self.place if self.position is None else None,
        }  # fmt: skip

    @property
    def key(self) -> Key:
        """What an event is matched by: flow and id."""
        return (self.flow_id, self.event_id)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something in a view that is no event, or not where it belongs."""

    kind: Kind
    detail: str
    place: str
    event_id: str | None = None
    lead_id: str | None = None
    expected: str | None = None
    found: str | None = None


class View(Protocol):
    """One side of a comparison. It may be read more than once.

    ``name`` is for people: "LeadConduit", "the outbox". ``kind`` is one of ``outbox``, ``cloud``,
    ``leadconduit``, ``export`` and ``location``.
    """

    name: str
    kind: str

    def read(self, window: Window) -> Iterator[Record | Trouble]:
        """Everything that counts, in any order; raises an error where it cannot be told."""
        ...

    def payloads(self, places: Iterable[tuple[Key, str]]) -> Iterator[tuple[Key, bytes]]:
        """The snapshots at places that :meth:`read` told; those that are gone are left out."""
        ...


def record_of(
    snapshot: bytes, place: str, *, flow_id: str | None = None, keep: bool = True
) -> Record | Trouble:
    """An event from its snapshot, or why it is none. ``flow_id`` serves events without one."""
    try:
        event = Event.from_json(snapshot, max_bytes=MAX_EVENT_BYTES)
    except FieldRefused as error:
        if flow_id is None or error.field != "vars.flow.id":
            return Trouble(
                Kind.UNREADABLE_LINE, f"it is no event: {error}", place, event_id=error.event_id
            )
        return _record_of_flow(snapshot, place, flow_id, keep=keep)
    return _record(event, place, keep=keep)


def _record_of_flow(snapshot: bytes, place: str, flow_id: str, *, keep: bool) -> Record | Trouble:
    try:
        event = Event.from_json(snapshot, flow_id=flow_id, max_bytes=MAX_EVENT_BYTES)
    except FieldRefused as error:
        return Trouble(
            Kind.UNREADABLE_LINE, f"it is no event: {error}", place, event_id=error.event_id
        )
    return _record(event, place, keep=keep)


def _record(event: Event, place: str, *, keep: bool) -> Record:
    return Record(
        event_id=event.event_id, flow_id=event.flow_id, lead_id=event.lead_id,
        type=event.type, outcome=event.outcome, sha256=event.sha256, place=place,
        payload=event.payload, keep=keep,
        recipient_event_id=_recipient(event.payload) if event.lead_id is None else None,
    )  # fmt: skip


def _recipient(payload: bytes) -> str | None:
    """The event that feedback without a lead refers to."""
    try:
        fields: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    found = fields.get("recipient_event_id") if isinstance(fields, Mapping) else None
    return found.lower() if isinstance(found, str) else None
