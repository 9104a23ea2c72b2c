"""Some fields of an event: what `include` and `exclude` leave of a snapshot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from auditstore.web.api.problems import FieldFault, Refused

#: What is answered for a snapshot.
Shape = Callable[[bytes], bytes]


def fields_of(payload: bytes) -> dict[str, Any]:
    """The fields of a snapshot that is in the store; what orjson refuses, Python's parser takes."""
    try:
        fields: dict[str, Any] = orjson.loads(payload)
    except orjson.JSONDecodeError:
        fields = json.loads(payload)
    return fields


def shape(include: Sequence[str], exclude: Sequence[str]) -> Shape | None:
    """How snapshots are cut down, ``None`` for as they are; Refused where both are asked for."""
    included, excluded = _paths(include), _paths(exclude)
    if included and excluded:
        raise Refused(
            422, "include-and-exclude", "include and exclude cannot be used together",
            hint="Leave one of them out.",
            errors=[FieldFault(field="query.exclude", message="cannot be used with include")],
        )  # fmt: skip
    if included:
        return lambda payload: _written(_only(fields_exactly(payload), included))
    if excluded:
        return lambda payload: _written(_without(fields_exactly(payload), excluded))
    return None


def fields_exactly(payload: bytes) -> dict[str, Any]:
    """As :func:`fields_of`, by the parser that keeps large integers as they are."""
    fields: dict[str, Any] = json.loads(payload)
    return fields


def _paths(names: Sequence[str]) -> list[list[str]]:
    """Repeated, with commas or both; ``vars.lead.state`` is a field within a field."""
    parts = (part.strip() for name in names for part in name.split(","))
    return [part.split(".") for part in parts if part]


def _only(fields: dict[str, Any], paths: Sequence[Sequence[str]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        inner = [path[1:] for path in paths if path[0] == name]
        if not inner:
            continue
        if [] in inner:
            kept[name] = value
        elif isinstance(value, dict):
            kept[name] = _only(value, inner)
    return kept


def _without(fields: dict[str, Any], paths: Sequence[Sequence[str]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        inner = [path[1:] for path in paths if path[0] == name]
        if [] in inner:
            continue
        kept[name] = _without(value, inner) if inner and isinstance(value, dict) else value
    return kept


def _written(fields: dict[str, Any]) -> bytes:
    # ASCII, so that a lone surrogate stays the escape that it was.
    return json.dumps(fields, separators=(",", ":")).encode()
