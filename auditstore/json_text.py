"""The JSON of a snapshot: is it JSON, and what stands in the fields that the store reads.

Nothing is parsed twice. The usual snapshot is checked to its last byte, and only the fields of
:class:`Fields` become Python objects; building all of them would cost three times as much. What
that quick judge refuses is given to slower and more lenient ones, who say where it is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec
import orjson


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
    try:
        if not payload.isascii():
            # The decoder does not look at the UTF-8 of strings that it skips.
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
    try:
        return json.loads(payload.decode(), parse_constant=_refuse_constant, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise FieldRefused("payload", f"not UTF-8: {error.reason} at byte {error.start}") from error
    except FieldRefused:
        raise
    except RecursionError as error:
        raise FieldRefused("payload", "nested too deeply (over about 1,000 levels)") from error
    except ValueError as error:
        raise FieldRefused("payload", f"not JSON: {error}") from error


def _integer(digits: str) -> int | float:
    # Python refuses to make an int of thousands of digits.
    return int(digits) if len(digits) < 20 else float(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise FieldRefused("payload", f"{name} is not JSON")


def _mapping(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _look_through(value: object) -> object:
    # Types that orjson writes and json does not (datetime, UUID) hold no NaN.
    return dict(value) if isinstance(value, Mapping) else None
