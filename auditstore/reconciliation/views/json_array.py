"""The elements of a JSON array that is larger than memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ijson
import orjson

_MAX_INT = 2**64 - 1
_MIN_INT = -(2**63)


class Broken(ValueError):
    """The array is damaged or ends too early."""


def elements(raw: io.RawIOBase) -> Iterator[bytes]:
    """Each element as compact JSON; numbers keep every digit they were written with."""
    try:
        for element in ijson.items(io.BufferedReader(raw), "item"):
            yield _dumps(element)
    except ijson.JSONError as error:
        raise Broken(str(error).splitlines()[0] if str(error) else "it ends too early") from error
    except UnicodeDecodeError as error:
        raise Broken(f"it is not UTF-8: {error.reason}") from error


def _dumps(element: Any) -> bytes:
    try:
        return orjson.dumps(element, default=_exact)
    except TypeError:
        # An integer beyond 64 bits, which orjson does not write.
        return orjson.dumps(_embedded(element), default=_exact)


def _exact(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value).encode())
    raise TypeError(f"{type(value).__name__} is not of JSON")


def _embedded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _embedded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_embedded(each) for each in value]
    if type(value) is int and not _MIN_INT <= value <= _MAX_INT:
        return Decimal(value)
    return value
