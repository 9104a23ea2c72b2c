"""In which fields two snapshots of an event differ, named by their paths.

Only names are told, and what kind of value stands on each side: events are full of people's data.
The values themselves are told where somebody asked for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import orjson

#: How many fields of one event are named; the others are counted.
SHOWN: Final = 50
_LONGEST_VALUE: Final = 200
_LONGEST_PATH: Final = 300
#: Larger snapshots are not taken apart: both sides would stand in memory several times.
_LARGEST: Final = 32 * 1024 * 1024
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field: its path, what became of it, and what kind of value each side has.

    The values themselves, as JSON, are ``None`` unless they were asked for.
    """

    path: str
    change: Literal["changed", "added", "removed"]
    expected: str | None
    found: str | None
    expected_value: str | None = None
    found_value: str | None = None

    def __str__(self) -> str:
        """In words."""
        if self.expected is None and self.found is None:
            return f"{self.path} {self.change}"
        before = self.expected_value or self.expected
        after = self.found_value or self.found
        if self.change == "added":
            return f"{self.path} added ({after})"
        if self.change == "removed":
            return f"{self.path} removed ({before})"
        return f"{self.path} changed ({before} to {after})"


@dataclass(frozen=True, slots=True)
class Differences:
    """The first fields that differ, and how many more do. ``note`` says why there is none."""

    changes: tuple[FieldChange, ...] = ()
    left_out: int = 0
    note: str | None = None

    def __str__(self) -> str:
        """In words."""
        if self.note is not None:
            return self.note
        more = f"; and {self.left_out} more" if self.left_out else ""
        return "; ".join(map(str, self.changes)) + more

    def masked(self) -> Differences:
        """The same without any value."""
        changes = (replace(each, expected_value=None, found_value=None) for each in self.changes)
        return replace(self, changes=tuple(changes))


def differences(
    expected: bytes, found: bytes, *, values: bool = False, by_value: bool = False
) -> Differences:
    """Compare two snapshots; paths are like ``vars.lead.email`` and ``transactions[0].ms``.

    Items of an array are compared by their index. With ``values`` the two sides are told too, cut
    off after 200 characters. With ``by_value`` 1 and 1.0 are the same.
    """
    if max(len(expected), len(found)) > _LARGEST:
        return Differences(note="the snapshots are too large to be taken apart")
    try:
        sides = _parse(expected), _parse(found)
    except (ValueError, RecursionError):
        return Differences(note="one of the snapshots cannot be taken apart")
    shown: list[FieldChange] = []
    left_out = 0
    for path, one, other in _walk(*sides):
        if by_value and _is_number(one) and _is_number(other) and one == other:
            continue
        if len(shown) == SHOWN:
            left_out += 1
        else:
            shown.append(_change(path, one, other, values=values))
    if not shown:
        return Differences(note="only the spelling differs: white space, order or repeated names")
    return Differences(tuple(shown), left_out)


def column_change(name: str, cell: str, value: Any, *, values: bool) -> FieldChange:
    """One column of a table against the event's field; an empty cell is none, as is ``None``."""
    return _change(name, cell or _ABSENT, _ABSENT if value is None else value, values=values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse(snapshot: bytes) -> Any:
    try:
        return orjson.loads(snapshot)
    except orjson.JSONDecodeError:
        # A lone surrogate, or 1e999: valid JSON that orjson refuses and the store takes.
        return json.loads(snapshot)


def _walk(expected: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each smallest part that differs. Without recursion: a snapshot may be nested deeply."""
    waiting: list[tuple[str, Any, Any]] = [("", expected, found)]
    while waiting:
        path, one, other = waiting.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            names = dict.fromkeys([*one, *other])
            waiting.extend(
                (_named(path, name), one.get(name, _ABSENT), other.get(name, _ABSENT))
                for name in reversed(names)
            )
        elif isinstance(one, list) and isinstance(other, list):
            longest = max(len(one), len(other))
            waiting.extend(
                (f"{path}[{index}]", _item(one, index), _item(other, index))
                for index in reversed(range(longest))
            )
        elif type(one) is not type(other) or one != other:
            # By type too: for Python 1 is True, and 1.0 is 1.
            yield path, one, other


def _named(path: str, name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return f"{path}.{name}" if path else name
    return f"{path}[{json.dumps(name)}]"


def _item(items: list[Any], index: int) -> Any:
    return items[index] if index < len(items) else _ABSENT


def _change(path: str, one: Any, other: Any, *, values: bool) -> FieldChange:
    return FieldChange(
        _cut(path or "(the whole snapshot)", _LONGEST_PATH),
        "added" if one is _ABSENT else "removed" if other is _ABSENT else "changed",
        _kind(one), _kind(other),
        _value(one) if values else None, _value(other) if values else None,
    )  # fmt: skip


def _kind(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "text", int: "number", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def _value(value: Any) -> str | None:
    return None if value is _ABSENT else _cut(json.dumps(value, ensure_ascii=False), _LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= longest else text[: longest - 3] + "..."
