"""The JSON of a snapshot: is it JSON, and what stands in the fields that the store reads.

Nothing is parsed twice. The usual snapshot is checked to its last byte, and only the fields of
:class:`Fields` become Python objects; building all of them would cost three times as much. What
that quick judge refuses is given to slower and more lenient ones, who say where it is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec
import orjson

#: How deep a snapshot may nest. orjson, and PostgreSQL with it, take 1,024 levels; the second
#: parser recurses on the caller's stack, which has no room for more than this for certain.
MAX_DEPTH: Final = 1024
MAX_LENIENT_DEPTH: Final = 500

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
# Deleting all others in one pass takes half the time of counting two characters.
_NOT_OPENING: Final = bytes(set(range(256)) - set(b"[{"))


class FieldRefused(ValueError):
    """``field`` of an event is wrong for ``reason``; the repository adds which event."""

    def __init__(self, field: str, reason: str, event_id: str | None = None) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.event_id = event_id


class Owner(msgspec.Struct, gc=False):
    """``vars.flow`` or ``vars.lead``."""

    id: Any = None


class Variables(msgspec.Struct, gc=False):
    """Of ``vars``, whose the event is."""

    flow: Owner | msgspec.UnsetType = msgspec.UNSET
    lead: Owner | msgspec.UnsetType = msgspec.UNSET


class Fields(msgspec.Struct, gc=False):
    """What the store reads of a snapshot, of whatever type it is there; ``None`` if it is not."""

    id: Any = None
    type: Any = None
    outcome: Any = None
    reason: Any = None
    step_id: Any = None
    start_timestamp: Any = None
    end_timestamp: Any = None
    vars: Variables | msgspec.UnsetType = msgspec.UNSET

    def owner_id(self, name: str) -> Any:
        """The id in ``vars.flow`` or ``vars.lead``."""
        if self.vars is msgspec.UNSET:
            return None
        owner = self.vars.flow if name == "flow" else self.vars.lead
        return None if owner is msgspec.UNSET else owner.id


_quick: Final = msgspec.json.Decoder(Fields)


def fields_of(payload: bytes) -> Fields:
    """What a snapshot says; raises :class:`FieldRefused` unless it is a JSON object in UTF-8."""
    # How deep the quick one goes depends on Python's version and on who calls.
    if len(payload.translate(None, _NOT_OPENING)) <= MAX_LENIENT_DEPTH:
        try:
            if not payload.isascii():
                # It does not look at the UTF-8 of strings that it skips.
                payload.decode()
            return _quick.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            # Not JSON, or JSON of another shape, or written in a way that it does not know.
            pass
    return _chosen(_parse(payload))


def serialise(fields: Mapping[str, Any]) -> bytes:
    """A mapping as compact JSON; raises :class:`FieldRefused` for what JSON cannot say."""
    try:
        payload = orjson.dumps(fields, default=_mapping, option=orjson.OPT_PASSTHROUGH_DATACLASS)
        if b"null" in payload:
            # orjson writes NaN and Infinity as null, which would alter the event silently.
            json.dumps(fields, allow_nan=False, default=_look_through)
    except (TypeError, ValueError, RecursionError) as error:
        raise FieldRefused("payload", f"cannot be written as JSON: {error}") from error
    return payload


def _chosen(parsed: dict[str, Any]) -> Fields:
    variables = parsed.get("vars")
    owners: dict[str, Any] = {}
    for name in ("flow", "lead"):
        owner = variables.get(name) if isinstance(variables, dict) else None
        if isinstance(owner, dict):
            owners[name] = Owner(owner.get("id"))
    plain = {name: parsed.get(name) for name in Fields.__struct_fields__ if name != "vars"}
    return Fields(**plain, vars=Variables(**owners))


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


def _mapping(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _look_through(value: object) -> object:
    # Types that orjson writes and json does not (datetime, UUID) hold no NaN.
    return dict(value) if isinstance(value, Mapping) else None
