"""What lies in a bucket, as a view: files of many events, or one object an event.

An object says by its content what it is, whoever wrote it: gzip is unpacked, and a name that
ends in ``.json`` holds one event, one in ``.ndjson`` one a line. Where LeadConduit's layout
``<prefix>/<lead id>/<event id>.json`` names an event, the object must hold that event, and the
name tells its time, so that objects outside of an interval are not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Final
from urllib.parse import unquote

from auditstore.events import is_event_id
from auditstore.layout import EVENT_TEMPLATE, encode_part, event_key, join
from auditstore.objects import VERIFICATION_PREFIX, ObjectInfo, ObjectStore
from auditstore.reconciliation.decoding import Line, Lines, Undecodable, unpacked
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.views.records import (
    MAX_EVENT_BYTES,
    Key,
    Record,
    Trouble,
    Window,
    record_of,
)

_READERS: Final = 8
_AHEAD: Final = 64
#: Larger objects are read alone, in pieces.
_SMALL: Final = 256 * 1024
#: What LeadConduit names the objects with which it checks a configuration.
LEADCONDUIT_VERIFICATION: Final = "leadconduit_verification"
assert EVENT_TEMPLATE == "{lead}/{event}.json"  # noqa: S101  # what `_named` takes apart


class BucketView:
    """The objects below a prefix. ``only_flow`` leaves out, silently, those of other flows."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        *,
        name: str,
        kind: str = "location",
        flow_id: str | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self._store = store
        self._prefix = prefix
        self._flow_id = flow_id

    def read(self, window: Window) -> Iterator[Record | Trouble]:
        """Every event below the prefix, and every object that is none."""
        listed = self._store.list(join(self._prefix, "") if self._prefix else "")
        for info, chunks in self._fetched(each for each in listed if self._counts(each, window)):
            yield from self._tell(info.key, chunks, window)

    def payloads(self, places: Iterable[tuple[Key, str]]) -> Iterator[tuple[Key, bytes]]:
        """The snapshots again, each object read once a run of places."""
        located = ((*_apart(place), key) for key, place in places)
        for object_key, group in groupby(located, key=itemgetter(0)):
            wanted = {number: key for _, number, key in group}
            chunks = self._store.read(object_key)
            if chunks is None:
                continue
            try:
                for line in _lines(object_key, chunks):
                    if line.number in wanted and line.content is not None:
                        found = record_of(line.content, object_key, flow_id=self._flow_id)
                        if isinstance(found, Record) and found.payload is not None:
                            yield wanted[line.number], found.payload
            except Undecodable:
                continue  # it was readable a moment ago; the caller names what it did not get

    def _counts(self, info: ObjectInfo, window: Window) -> bool:
        name = info.key.rpartition("/")[2]
        if name.startswith((VERIFICATION_PREFIX, LEADCONDUIT_VERIFICATION)):
            return False
        named = _named(info.key)
        return named is None or window.holds_id(named[1])

    def _fetched(
        self, infos: Iterable[ObjectInfo]
    ) -> Iterator[tuple[ObjectInfo, Iterator[bytes] | None]]:
        """Objects with their chunks, in order; small ones are fetched ahead, several at once."""
        ahead: deque[tuple[ObjectInfo, Future[bytes | None] | None]] = deque()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="bucket") as pool:
            try:
                for info in infos:
                    small = info.size <= _SMALL
                    ahead.append((info, pool.submit(self._whole, info.key) if small else None))
                    if len(ahead) > _AHEAD:
                        yield self._next(ahead)
                while ahead:
                    yield self._next(ahead)
            finally:
                for _, coming in ahead:
                    if coming is not None:
                        coming.cancel()

    def _next(
        self, ahead: deque[tuple[ObjectInfo, Future[bytes | None] | None]]
    ) -> tuple[ObjectInfo, Iterator[bytes] | None]:
        info, coming = ahead.popleft()
        if coming is None:
            return info, self._store.read(info.key)
        body = coming.result()
        return info, None if body is None else iter((body,))

    def _whole(self, key: str) -> bytes | None:
        chunks = self._store.read(key)
        return None if chunks is None else b"".join(chunks)

    def _tell(
        self, key: str, chunks: Iterator[bytes] | None, window: Window
    ) -> Iterator[Record | Trouble]:
        if chunks is None:
            yield Trouble(Kind.CHANGED_FILE, "the object went away while it was being read", key)
            return
        if _form(key) is None:
            yield Trouble(
                Kind.UNKNOWN_FILE, "its name is none of a file of events: .json, .ndjson, .gz", key
            )
            return
        try:
            found = False
            for line in _lines(key, chunks):
                found = True
                yield from self._tell_line(key, line, window)
            if not found:
                yield Trouble(Kind.CHANGED_FILE, "the object is empty", key)
        except Undecodable as error:
            yield Trouble(Kind.CHANGED_FILE, f"the object cannot be read to its end: {error}", key)

    def _tell_line(self, key: str, line: Line, window: Window) -> Iterator[Record | Trouble]:
        one = _form(key) == "event"
        place = key if one else f"{key}#{line.number}"
        if line.content is None:
            yield Trouble(Kind.UNREADABLE_LINE, f"it is longer than {MAX_EVENT_BYTES} bytes", place)
            return
        told = record_of(line.content, place, flow_id=self._flow_id, keep=False)
        if isinstance(told, Trouble):
            yield told
            return
        if one:
            yield from _misplaced(key, told)
        if self._flow_id in {None, told.flow_id} and window.holds(told):
            yield told


def _form(key: str) -> str | None:
    """``event`` or ``lines`` by the object's name; ``None`` for a foreign one."""
    name = key.rpartition("/")[2].lower().removesuffix(".gz")
    if name.endswith(".json"):
        return "event"
    return "lines" if name.endswith((".ndjson", ".jsonl")) else None


def _named(key: str) -> tuple[str, str] | None:
    """Lead (as it is spelled there) and event id of a key in LeadConduit's layout."""
    folder, _, name = key.rpartition("/")
    event_id = name.removesuffix(".json")
    if name == event_id or not folder or not is_event_id(event_id):
        return None
    return folder.rpartition("/")[2], event_id.lower()


def _misplaced(key: str, record: Record) -> Iterator[Trouble]:
    """An object whose name says another event or lead than its content."""
    named = _named(key)
    if named is None:
        return
    lead, event_id = named
    # LeadConduit writes the id as it is; this store encodes what a path must not hold.
    ours = event_key(prefix="", lead_id=record.lead_id, event_id=record.event_id).partition("/")[0]
    right = record.lead_id is None or lead in {
        ours, record.lead_id, encode_part(record.lead_id)
    } or unquote(lead) == record.lead_id  # fmt: skip
    if event_id != record.event_id or not right:
        yield Trouble(
            Kind.CHANGED_FILE, "the object holds another event than its name says", key,
            event_id=record.event_id, lead_id=record.lead_id,
            expected=f"event {event_id} of lead {lead}",
            found=f"event {record.event_id} of lead {record.lead_id}",
        )  # fmt: skip


def _lines(key: str, chunks: Iterator[bytes]) -> Iterator[Line]:
    """The events in an object, unpacked; Undecodable where gzip is damaged.

    A line end after the one event of an object is no part of it.
    """
    splitter = Lines(keep=True)
    one = _form(key) == "event"
    for piece in unpacked(chunks):
        if one:
            splitter.hold(piece)
        else:
            yield from splitter.feed(piece)
    for line in splitter.rest():
        content = line.content.rstrip(b"\r\n") if one and line.content is not None else line.content
        yield replace(line, content=content)


def object_of(place: str) -> str:
    """The key of the object that a place is in."""
    return _apart(place)[0]


def _apart(place: str) -> tuple[str, int]:
    """An object's key and the line in it, from a place that was told."""
    key, separator, number = place.rpartition("#")
    if separator and number.isascii() and number.isdigit() and _form(key) == "lines":
        return key, int(number)
    return place, 1
