"""Some fields of an event: what `include` and `exclude` leave of a snapshot.

What stays is copied, never written anew: a number keeps all its digits, a name that is there
twice stays twice, whatever a parser would make of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from auditstore.web.api.problems import FieldFault, Refused

#: What is answered for a snapshot.
Shape = Callable[[bytes], bytes]

#: How deep a field may lie that is asked for.
_MOST_DEPTH: Final = 32
_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],]', re.DOTALL)
_NAME: Final = re.compile(rb'\s*("(?:[^"\\]++|\\.)*+")\s*:\s*', re.DOTALL)
#: Of longer numbers only that they are large matters here.
_MOST_DIGITS: Final = 300


def fields_of(payload: bytes) -> dict[str, Any]:
    """The fields of a snapshot that is in the store; what orjson refuses, Python's parser takes."""
    try:
        fields: dict[str, Any] = orjson.loads(payload)
    except orjson.JSONDecodeError:
        fields = json.loads(payload, parse_int=_integer)
    return fields


def _integer(digits: str) -> int | float:
    # `int` refuses thousands of digits, and so does writing them.
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def shape(include: Sequence[str], exclude: Sequence[str]) -> Shape | None:
    """How snapshots are cut down, ``None`` for as they are; Refused where both are asked for."""
    included, excluded = _paths("include", include), _paths("exclude", exclude)
    if included and excluded:
        raise Refused(
            422, "include-and-exclude", "include and exclude cannot be used together",
            hint="Leave one of them out.",
            errors=[FieldFault(field="query.exclude", message="cannot be used with include")],
        )  # fmt: skip
    if included:
        return lambda payload: _only(payload, included)
    if excluded:
        return lambda payload: _without(payload, excluded)
    return None


def _paths(parameter: str, names: Sequence[str]) -> list[list[str]]:
    """Repeated, with commas or both; ``vars.lead.state`` is a field within a field."""
    parts = (part.strip() for name in names for part in name.split(","))
    paths = [part.split(".") for part in parts if part]
    if any(len(path) > _MOST_DEPTH for path in paths):
        message = f"a field may lie {_MOST_DEPTH} deep at most"
        raise Refused(
            422, "field-too-deep", f"{parameter}: {message}",
            hint="Name the object that it lies in.",
            errors=[FieldFault(field=f"query.{parameter}", message=message)],
        )  # fmt: skip
    return paths


class _Member(NamedTuple):
    name: str
    written_name: bytes
    value: bytes


def _members(written: bytes) -> Iterator[_Member]:
    """The members of an object, each as it is written."""
    depth = start = 0
    for mark in _MARK.finditer(written):
        kind = mark[0]
        if kind in b"{[":
            depth += 1
            if depth == 1:
                start = mark.end()
        elif kind in b"}]":
            depth -= 1
        if depth == (0 if kind == b"}" else 1) and kind in {b"}", b","}:
            part, start = written[start : mark.start()], mark.end()
            if name := _NAME.match(part):
                yield _Member(json.loads(name[1]), name[1], part[name.end() :].rstrip())


def _only(written: bytes, paths: Sequence[Sequence[str]]) -> bytes:
    kept: list[bytes] = []
    for member in _members(written):
        inner = [path[1:] for path in paths if path[0] == member.name]
        if [] in inner:
            kept.append(member.written_name + b":" + member.value)
        elif inner and member.value.startswith(b"{"):
            kept.append(member.written_name + b":" + _only(member.value, inner))
    return b"{" + b",".join(kept) + b"}"


def _without(written: bytes, paths: Sequence[Sequence[str]]) -> bytes:
    kept: list[bytes] = []
    for member in _members(written):
        inner = [path[1:] for path in paths if path[0] == member.name]
        if [] in inner:
            continue
        value = member.value
        if inner and value.startswith(b"{"):
            value = _without(value, inner)
        kept.append(member.written_name + b":" + value)
    return b"{" + b",".join(kept) + b"}"
