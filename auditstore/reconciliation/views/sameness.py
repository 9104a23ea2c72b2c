"""Are two snapshots the same event, written differently, or different in which fields?

JSON that an API gives need not have the bytes that were once received: spaces, the order of
names, escapes and the spelling of numbers may differ. Compared by content, numbers count by
their exact value (``1.0`` is ``1``, and no digit of a long one is dropped), names in any order,
lists in theirs. A name that stands twice in one object is kept twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

#: How many differing fields a finding names.
MAX_NAMED: Final = 20
_MISSING: Final = object()


class _Number(str):
    """A number's exact value, spelled in one way, told apart from every text."""

    __slots__ = ()


class _Pairs(list[Any]):
    """An object in which a name stands twice."""


def digest(payload: bytes) -> bytes | None:
    """The same for every spelling of one content; ``None`` where it cannot be taken apart."""
    content = _parsed(payload)
    if content is None:
        return None
    try:
        text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
    except RecursionError:
        return None
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def differing_fields(one: bytes, other: bytes) -> list[str] | None:
    """The paths of the fields that differ, ``vars.lead.email``; ``None`` where nobody can say."""
    left, right = _parsed(one), _parsed(other)
    if left is None or right is None:
        return None
    try:
        return sorted(set(_differences(left, right, "")))
    except RecursionError:
        return None


def differing_columns(row: bytes, whole: bytes) -> list[str] | None:
    """The columns of a partial event whose text is not what the whole event has there.

    Columns tell no types: an empty cell stands for null, an empty text and nothing at all, and a
    number for every spelling of its value.
    """
    content = _parsed(whole)
    if content is None:
        return None
    return sorted(name for name, text in cells(row).items() if not _shows(text, _at(content, name)))


def cells(row: bytes) -> dict[str, str]:
    """A partial event: the text in each column."""
    found: dict[str, str] = json.loads(row)
    return found


def value_at(whole: bytes, path: str) -> Any:
    """What a snapshot has at a dotted path, as JSON's own types; ``None`` for nothing."""
    found = _at(json.loads(whole), path)
    return None if found is _MISSING else found


def in_words(fields: list[str] | None) -> str:
    """Which fields differ, for a sentence: their names, never their values."""
    if fields is None:
        return "the content cannot be taken apart to say where it differs"
    named = ", ".join(fields[:MAX_NAMED])
    more = len(fields) - MAX_NAMED
    return f"differs in {named or 'the whole'}" + (f" and {more} more" if more > 0 else "")


def _parsed(payload: bytes) -> Any:
    try:
        return json.loads(
            payload.decode(), parse_int=_number, parse_float=_number, object_pairs_hook=_object
        )
    except (ValueError, RecursionError):
        return None


def _number(literal: str) -> _Number:
    try:
        value = Decimal(literal)
    except InvalidOperation:
        return _Number(literal)
    if not value.is_finite():
        return _Number(literal)
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101  # finite, as checked
    text = "".join(map(str, digits)).lstrip("0")
    bare = text.rstrip("0")
    if not bare:
        return _Number("0")
    return _Number(f"{'-' if sign else ''}{bare}e{exponent + len(text) - len(bare)}")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Pairs([name, value] for name, value in pairs)


def _plain(content: Any) -> Any:
    """What json can write so that nothing of one type looks like another's."""
    if isinstance(content, _Number):
        return {"#": str(content)}
    if isinstance(content, _Pairs):
        return {"##": [[name, _plain(value)] for name, value in content]}
    if isinstance(content, dict):
        # A name of ours cannot be told from the event's own unless all of those are marked.
        return {f".{name}": _plain(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_plain(each) for each in content]
    return content


def _differences(left: Any, right: Any, path: str) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in left.keys() | right.keys():
            here = f"{path}.{name}" if path else name
            yield from _differences(left.get(name, _MISSING), right.get(name, _MISSING), here)
    elif type(left) is list and type(right) is list and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif type(left) is not type(right) or left != right:
        yield path


def _at(content: Any, path: str) -> Any:
    """The value at a dotted path; a name may itself hold dots, so the longest one is tried."""
    if not path:
        return content
    if isinstance(content, list):
        head, _, rest = path.partition(".")
        index = int(head) if head.isascii() and head.isdigit() else len(content)
        return _at(content[index], rest) if index < len(content) else _MISSING
    if not isinstance(content, dict):
        return _MISSING
    if path in content:
        return content[path]
    for cut in (index for index, character in enumerate(path) if character == "."):
        if path[:cut] in content:
            found = _at(content[path[:cut]], path[cut + 1 :])
            if found is not _MISSING:
                return found
    return _MISSING


def _shows(text: str, value: Any) -> bool:
    if value is _MISSING or value is None or value == "":
        return not text
    if isinstance(value, bool):
        return text.lower() == str(value).lower()
    if isinstance(value, _Number):
        return _number(text.strip()) == value
    if isinstance(value, str):
        return text == value
    # An object or a list in one cell: as JSON, in any spelling.
    inner = _parsed(text.encode(errors="surrogatepass"))
    return inner is not None and not list(_differences(inner, value, ""))
