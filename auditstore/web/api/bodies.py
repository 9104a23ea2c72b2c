"""An append's body taken apart into its events' own bytes, which are never written anew."""

from __future__ import annotations

import json
from typing import Final, NoReturn

from auditstore.web.api.problems import Refused

JSON: Final = "application/json"
NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_SPACE: Final = " \t\r\n"
_decoder: Final = json.JSONDecoder()


def taken_apart(body: bytes, content_type: str) -> list[bytes] | bytes:
    """One event, or the events of an array or of lines; Refused for what is none of them."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in NDJSON:
        return [line for line in body.split(b"\n") if line.strip()]
    if kind != JSON:
        raise Refused(
            415, "unsupported-media-type", f"a body of the type {kind or '(none)'} is not taken",
            hint=f"Send {JSON} (an event or an array) or {NDJSON[0]} (an event a line).",
        )  # fmt: skip
    return _elements(body) if body.lstrip()[:1] == b"[" else body


def _elements(body: bytes) -> list[bytes]:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        _not_json(f"not UTF-8: {error.reason} at byte {error.start}")
    found: list[bytes] = []
    at = _past_space(text, text.index("[") + 1)
    if text[at : at + 1] == "]":
        return _to_the_end(text, at + 1, found)
    while True:
        try:
            _, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            _not_json(f"element {len(found)} of the array: {error}")
        found.append(text[at:end].encode())
        at = _past_space(text, end)
        if text[at : at + 1] == "]":
            return _to_the_end(text, at + 1, found)
        if text[at : at + 1] != ",":
            _not_json(f"no comma and no end behind element {len(found) - 1} of the array")
        at = _past_space(text, at + 1)


def _to_the_end(text: str, at: int, found: list[bytes]) -> list[bytes]:
    if _past_space(text, at) != len(text):
        _not_json("something stands behind the array")
    return found


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _not_json(reason: str) -> NoReturn:
    raise Refused(
        400, "not-json", f"the body is not JSON: {reason}",
        hint="Nothing was appended. Send it again as it should be.",
    )  # fmt: skip
