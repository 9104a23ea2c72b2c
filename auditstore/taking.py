"""What a caller offers, taken as events, or refused with its place in the call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from auditstore.errors import EventConflict, EventRefused
from auditstore.events import Event, FieldRefused

Snapshot = Event | Mapping[str, Any] | bytes | bytearray | memoryview | str
#: Flow id and event id: what the outbox keeps an event under.
Key = tuple[str, str]

#: Snapshots that can be read whenever and wherever.
SELF_CONTAINED = (bytes, str, Event, bytearray, memoryview)
_ONE = (*SELF_CONTAINED, Mapping)


def key(event: Event) -> Key:
    """What the outbox keeps it under."""
    return (event.flow_id, event.event_id)


class Taken:
    """The distinct events of a call, taken one by one as they are asked for, each once.

    So the server stores the first while the last are still being checked. Once it has been
    iterated to its end, ``events`` holds all of them, and ``given`` says how many came.
    """

    def __init__(
        self,
        offered: Sequence[Snapshot],
        *,
        flow_id: str | None,
        lead_id: str | None,
        max_bytes: int,
    ) -> None:
        self.events: list[Event] = []
        self.given = len(offered)
        self._coming = self._take(offered, flow_id, lead_id, max_bytes)

    def __iter__(self) -> Iterator[Event]:
        return self._coming

    def all(self) -> list[Event]:
        """Take what is not taken yet; every distinct event."""
        for _ in self._coming:
            pass
        return self.events

    def _take(
        self, offered: Sequence[Snapshot], flow_id: str | None, lead_id: str | None, max_bytes: int
    ) -> Iterator[Event]:
        seen: dict[Key, Event] = {}
        for index, snapshot in enumerate(offered):
            event = _take_one(index, snapshot, flow_id, lead_id, max_bytes)
            other = seen.setdefault((event.flow_id, event.event_id), event)
            if other is event:
                self.events.append(event)
                yield event
            elif other.sha256 != event.sha256:
                raise conflict(event, other.sha256)


def offered(events: Snapshot | Iterable[Snapshot]) -> Sequence[Snapshot]:
    """One snapshot or many as a sequence, whatever they came in."""
    if isinstance(events, _ONE):
        return [events]
    return list(events)


def unstored(offered: Iterable[Event], stored: Mapping[Key, bytes]) -> list[Event]:
    """Those of ``offered`` that are not stored; stored with other content is a conflict."""
    left = []
    for event in offered:
        sha256 = stored.get(key(event))
        if sha256 is None:
            left.append(event)
        elif bytes(sha256) != event.sha256:
            raise conflict(event, bytes(sha256))
    return left


def conflict(event: Event, stored: bytes) -> EventConflict:
    """The refusal of an event whose id is taken."""
    return EventConflict(
        event_id=event.event_id, flow_id=event.flow_id,
        stored_sha256=stored.hex(), offered_sha256=event.sha256.hex(),
    )  # fmt: skip


def _take_one(
    index: int, snapshot: Snapshot, flow_id: str | None, lead_id: str | None, max_bytes: int
) -> Event:
    try:
        if isinstance(snapshot, Event):
            # Anybody can make one; what is stored has passed the same judge.
            flow_id, lead_id = flow_id or snapshot.flow_id, lead_id or snapshot.lead_id
            snapshot = snapshot.payload
        if isinstance(snapshot, bytes) or not isinstance(snapshot, Mapping):
            return Event.from_json(snapshot, flow_id=flow_id, lead_id=lead_id, max_bytes=max_bytes)
        return Event.from_mapping(snapshot, flow_id=flow_id, lead_id=lead_id, max_bytes=max_bytes)
    except FieldRefused as error:
        raise EventRefused(
            index=index, event_id=error.event_id, field=error.field, reason=error.reason
        ) from error
    except TypeError as error:
        raise EventRefused(
            index=index, event_id=None, field="payload",
            reason=f"a {type(snapshot).__name__} is neither JSON nor a mapping",
        ) from error  # fmt: skip
