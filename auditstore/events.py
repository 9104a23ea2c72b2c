"""One lead event: the snapshot's bytes, and the few fields that the store files it under.

The field names and types are those of LeadConduit's event (see ``docs/reference/events.md``).
Nothing here alters a snapshot, with one exception made once, before hashing: raw line breaks,
which valid JSON can only have between tokens, become spaces, so that one event is one line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import orjson

#: The largest snapshot taken unless the caller says otherwise, in bytes.
DEFAULT_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
#: The longest flow or lead id, in bytes of UTF-8: they become parts of an object's key.
MAX_ID_BYTES: Final = 255

#: How deep a snapshot may nest. orjson, and PostgreSQL with it, take 1,024 levels; the second
#: parser recurses on the caller's stack, which has no room for more than this for certain.
MAX_DEPTH: Final = 1024
MAX_LENIENT_DEPTH: Final = 500

_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}", re.ASCII)
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIMESTAMP_MS = 253_402_300_799_999  # the end of year 9999, datetime's last


class FieldRefused(ValueError):
    """``field`` of an event is wrong for ``reason``; the repository adds which event."""

    def __init__(self, field: str, reason: str, event_id: str | None = None) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.event_id = event_id


@dataclass(frozen=True, slots=True)
class Event:
    """A lead event, ready to append or as read back.

    ``payload`` is the snapshot, UTF-8 JSON on one line, ``sha256`` its 32-byte digest.
    ``event_id`` is lower-case hex. ``type``, ``outcome``, ``reason`` and ``step_id`` are
    ``None`` where the snapshot has no such string. Times are aware UTC datetimes.
    """

    event_id: str
    flow_id: str
    lead_id: str | None
    type: str | None
    outcome: str | None
    reason: str | None
    step_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    payload: bytes
    sha256: bytes

    @property
    def created_at(self) -> datetime:
        """The second in which the id was made: an ObjectId's first 8 digits."""
        return id_time(self.event_id)

    @property
    def size_bytes(self) -> int:
        """The snapshot's size in bytes, the line end not counted."""
        return len(self.payload)

    @classmethod
    def from_json(
        cls,
        snapshot: bytes | bytearray | memoryview | str,
        *,
        flow_id: str | None = None,
        lead_id: str | None = None,
        max_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    ) -> Event:
        """Take a snapshot as received; raise :class:`FieldRefused` if it cannot be stored.

        ``flow_id`` and ``lead_id`` stand in for ``vars.flow.id`` and ``vars.lead.id``; given
        both ways they must agree, because a snapshot filed under another flow would be
        delivered to another customer's bucket.
        """
        payload = _encode(snapshot)
        if len(payload) > max_bytes:
            raise FieldRefused(
                "payload", f"{len(payload)} bytes, over the limit of {max_bytes} bytes"
            )
        fields = _parse(payload)
        if b"\n" in payload or b"\r" in payload:
            payload = payload.translate(_LINE_BREAKS)
        return cls._build(fields, payload, flow_id, lead_id)

    @classmethod
    def from_mapping(
        cls,
        fields: Mapping[str, Any],
        *,
        flow_id: str | None = None,
        lead_id: str | None = None,
        max_bytes: int = DEFAULT_MAX_EVENT_BYTES,
    ) -> Event:
        """Serialise a mapping compactly and take that; refusals as :meth:`from_json`."""
        return cls.from_json(
            _serialise(fields), flow_id=flow_id, lead_id=lead_id, max_bytes=max_bytes
        )

    @classmethod
    def _build(
        cls, fields: dict[str, Any], payload: bytes, flow_id: str | None, lead_id: str | None
    ) -> Event:
        event_id = _event_id(fields)
        variables = fields.get("vars")
        return cls(
            event_id=event_id,
            flow_id=_owner_id("flow", variables, flow_id, event_id, required=True) or "",
            lead_id=_owner_id("lead", variables, lead_id, event_id, required=False),
            type=_text(fields.get("type")),
            outcome=_text(fields.get("outcome")),
            reason=_text(fields.get("reason")),
            step_id=_text(fields.get("step_id")),
            started_at=_time(fields.get("start_timestamp")),
            ended_at=_time(fields.get("end_timestamp")),
            payload=payload,
            sha256=hashlib.sha256(payload).digest(),
        )


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the outbox with the place and the time that the server gave it."""

    position: int
    recorded_at: datetime
    event: Event


def id_time(event_id: str) -> datetime:
    """The creation time in an ObjectId, to the second."""
    return _EPOCH + timedelta(seconds=int(event_id[:8], 16))


def first_id_at(moment: datetime) -> str:
    """The smallest event id made at or after ``moment``, rounded up to the second."""
    seconds = -((_EPOCH - moment) // timedelta(seconds=1))  # floor of the negative: rounds up
    if seconds <= 0:
        return "0" * 24
    # Ids hold 32 bits of seconds; past them every id is earlier than the moment.
    return f"{seconds:08x}" + "0" * 16 if seconds < 2**32 else "g"


def is_event_id(text: str) -> bool:
    """Whether ``text`` is 24 hex digits."""
    return _OBJECT_ID.fullmatch(text) is not None


def unusable_owner_id(owner_id: str) -> str | None:
    """Why ``owner_id`` can be no flow's and no lead's id, or ``None`` if it can."""
    try:
        encoded = owner_id.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    if len(encoded) > MAX_ID_BYTES:
        return f"{len(encoded)} bytes, over {MAX_ID_BYTES}"
    return "contains a NUL character" if b"\0" in encoded else None


# --- JSON ---------------------------------------------------------------------------


def _encode(snapshot: bytes | bytearray | memoryview | str) -> bytes:
    if isinstance(snapshot, str):
        try:
            return snapshot.encode()
        except UnicodeEncodeError as error:
            raise FieldRefused("payload", f"not UTF-8: {error.reason}") from error
    return bytes(snapshot)


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        # orjson refuses some valid JSON, a lone surrogate escape or 1e999, that a
        # JavaScript engine may well have written. The slower, more lenient judge decides,
        # and says where it is wrong.
        fields = _parse_leniently(payload)
    if not isinstance(fields, dict):
        raise FieldRefused("payload", "not a JSON object")
    return fields


def _parse_leniently(payload: bytes) -> Any:
    _check_depth(payload)
    try:
        return json.loads(payload.decode(), parse_constant=_refuse_constant, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise FieldRefused("payload", f"not UTF-8: {error.reason} at byte {error.start}") from error
    except FieldRefused:
        raise
    except RecursionError as error:
        raise FieldRefused("payload", _TOO_DEEP) from error
    except ValueError as error:
        raise FieldRefused("payload", f"not JSON: {error}") from error


_TOO_DEEP: Final = (
    f"nested too deeply: over {MAX_DEPTH:,} levels, or over {MAX_LENIENT_DEPTH} beside a lone "
    "surrogate or a number out of range"
)


def _check_depth(payload: bytes) -> None:
    """How far Python's parser gets depends on its version and on who calls; this does not."""
    if payload.count(b"[") + payload.count(b"{") <= MAX_LENIENT_DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(payload):
        bracket = match[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth > MAX_LENIENT_DEPTH:
                raise FieldRefused("payload", _TOO_DEEP)
        elif bracket in (b"]", b"}"):
            depth -= 1


def _integer(digits: str) -> int | float:
    """As orjson has it; thousands of digits are a number too, which ``int`` refuses."""
    return int(digits) if len(digits) <= 20 else float(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise FieldRefused("payload", f"{name} is not JSON")


def _serialise(fields: Mapping[str, Any]) -> bytes:
    try:
        payload = orjson.dumps(fields, default=_mapping, option=orjson.OPT_PASSTHROUGH_DATACLASS)
        if b"null" in payload:
            # orjson writes NaN and Infinity as null, which would alter the event silently.
            json.dumps(fields, allow_nan=False, default=_look_through)
    except (TypeError, ValueError, RecursionError) as error:
        raise FieldRefused("payload", f"cannot be written as JSON: {error}") from error
    return payload


def _mapping(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _look_through(value: object) -> object:
    # Types that orjson writes and json does not (datetime, UUID) hold no NaN.
    return dict(value) if isinstance(value, Mapping) else None


# --- fields -------------------------------------------------------------------------


def _event_id(fields: dict[str, Any]) -> str:
    event_id = fields.get("id")
    if event_id is None:
        raise FieldRefused("id", "missing")
    if not isinstance(event_id, str) or not is_event_id(event_id):
        shown = repr(event_id)[:60]
        raise FieldRefused("id", f"{shown} is not 24 hex digits")
    # An ObjectId is the same in either case; one spelling keeps ids sorting by time.
    return event_id.lower()


def _owner_id(
    name: str, variables: object, given: str | None, event_id: str, *, required: bool
) -> str | None:
    field = f"vars.{name}.id"
    owner = variables.get(name) if isinstance(variables, dict) else None
    found = owner.get("id") if isinstance(owner, dict) else None
    if not isinstance(found, str) or not found:
        found = None
    if given is not None and found is not None and given != found:
        raise FieldRefused(field, f"{found!r}, but the caller says {given!r}", event_id)
    chosen = given if given is not None else found
    if not chosen:
        if required:
            raise FieldRefused(field, "missing, and the caller gave none", event_id)
        return None
    _check_owner_id(field, chosen, event_id)
    return chosen


def _check_owner_id(field: str, owner_id: str, event_id: str) -> None:
    reason = unusable_owner_id(owner_id)
    if reason is not None:
        raise FieldRefused(field, reason, event_id)


def _text(value: object) -> str | None:
    """A searchable copy of a string; what a text column cannot hold becomes U+FFFD."""
    if not isinstance(value, str):
        return None
    if "\0" in value or not value.isascii():
        storable = value.replace("\0", "\ufffd")
        return storable.encode(errors="surrogatepass").decode(errors="replace")
    return value


def _time(value: object) -> datetime | None:
    """Integer epoch milliseconds; anything else stays in the snapshot only."""
    if type(value) is not int or not 0 <= value <= _MAX_TIMESTAMP_MS:
        return None
    return _EPOCH + timedelta(milliseconds=value)
