"""What intake must say of a snapshot, judged without it: by ``json`` and by PostgreSQL itself."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa

from auditstore import EventRepository
from auditstore.errors import EventRefused
from auditstore.events import Event, FieldRefused

#: Below this depth nesting is no reason to refuse; above the other one it must be one.
SURELY_TAKEN, SURELY_REFUSED = 450, 1025
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """``field`` is what a refusal must name, ``None`` where the snapshot must be taken.

    ``fields`` are what it must be filed under.
    """

    field: str | None
    fields: dict[str, Any] | None = None


def depth(payload: bytes) -> int:
    """How deep brackets nest, those in strings left out."""
    level = deepest = 0
    for match in _TOKEN.finditer(payload):
        level += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match[0], 0)
        deepest = max(deepest, level)
    return deepest


def judge(payload: bytes) -> Verdict:
    """The verdict by Python's parser, and the fields as the documentation defines them."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        document = json.loads(payload.decode("utf-8"), parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError):
        return Verdict("payload")
    finally:
        sys.setrecursionlimit(limit)
    if not isinstance(document, dict):
        return Verdict("payload")
    event_id = document.get("id")
    if not isinstance(event_id, str) or not re.fullmatch("[0-9a-fA-F]{24}", event_id):
        return Verdict("id")
    owners = {}
    for name in ("flow", "lead"):
        owner = _inner(_inner(document, "vars"), name)
        found = _inner(owner, "id")
        if not isinstance(found, str) or not found:
            if name == "flow":
                return Verdict("vars.flow.id")
            found = None
        elif not _is_owner_id(found):
            return Verdict(f"vars.{name}.id")
        owners[f"{name}_id"] = found
    texts = {name: _text(document.get(name)) for name in ("type", "outcome", "reason", "step_id")}
    return Verdict(None, {"event_id": event_id.lower(), **owners, **texts,
                          "started_at": _milliseconds(document.get("start_timestamp")),
                          "ended_at": _milliseconds(document.get("end_timestamp"))})  # fmt: skip


def check_snapshot(connection: sa.Connection, payload: bytes, *, beside: int = 0) -> Verdict:
    """Fail unless intake, judge and database agree about the snapshot; nothing stays stored.

    ``beside`` is how many ordinary events are appended in the same call: from two on they take
    the way of COPY.
    """
    verdict, refusal = judge(payload), _refusal(payload)
    nested = depth(payload)
    if nested > SURELY_TAKEN and refusal == "payload":
        verdict = Verdict("payload")
    assert not (nested >= SURELY_REFUSED and refusal is None), "no limit to nesting"
    assert refusal == verdict.field, f"intake says {refusal or 'yes'}, {verdict.field} is right"
    repository = EventRepository()
    batch = [_ordinary(number) for number in range(beside)] + [payload]
    with connection.begin():
        before = _count(connection)
        if verdict.field is None:
            assert repository.append(connection, batch).appended == len(batch)
            _check_stored(connection, payload, verdict)
        else:
            with pytest.raises(EventRefused) as refused:
                repository.append(connection, batch)
            error = refused.value
            assert (error.field, error.index) == (verdict.field, beside)
            assert error.reason
            assert error.field in str(error)
            # The transaction still works, and nothing of the call is in it.
            assert _count(connection) == before
        connection.get_transaction().rollback()  # type: ignore[union-attr]  # begun above
    is_json = _is_json_to_the_server(connection, payload)
    assert is_json or verdict.field == "payload", "taken, and PostgreSQL says it is not JSON"
    if verdict.field == "payload" and nested <= SURELY_TAKEN:
        assert not is_json or not _is_object(payload), "refused, and PostgreSQL takes it"
    return verdict


def _refusal(payload: bytes) -> str | None:
    try:
        event = Event.from_json(payload)
    except FieldRefused as error:
        return error.field
    # What was taken is taken again as the same, also when it comes back out of a file.
    assert Event.from_json(event.payload, flow_id=event.flow_id, lead_id=event.lead_id) == event
    return None


def _check_stored(connection: sa.Connection, payload: bytes, verdict: Verdict) -> None:
    assert verdict.fields is not None
    row = connection.execute(
        sa.text(
            "SELECT event_id, flow_id, lead_id, type, outcome, reason, step_id, size_bytes, sha256,"
            " (extract(epoch FROM started_at) * 1000)::bigint AS started_at,"
            " (extract(epoch FROM ended_at) * 1000)::bigint AS ended_at,"
            " convert_to(payload::text, 'UTF8') AS payload"
            " FROM auditstore.events WHERE event_id = :event_id AND flow_id = :flow_id"
        ),
        {"event_id": verdict.fields["event_id"], "flow_id": verdict.fields["flow_id"]},
    ).one()
    kept = payload.replace(b"\n", b" ").replace(b"\r", b" ")
    assert bytes(row.payload) == kept, "PostgreSQL gives back other bytes"
    assert (row.size_bytes, bytes(row.sha256)) == (len(kept), hashlib.sha256(kept).digest())
    filed = {name: getattr(row, name) for name in verdict.fields}
    assert filed == verdict.fields, "filed under other fields than the snapshot has"


def _is_json_to_the_server(connection: sa.Connection, payload: bytes) -> bool:
    try:
        with connection.begin():
            connection.execute(
                sa.text("SELECT convert_from(CAST(:payload AS bytea), 'UTF8')::json"),
                {"payload": payload},
            )
    except sa.exc.DBAPIError:
        return False
    return True


def _is_object(payload: bytes) -> bool:
    return payload.lstrip(b" \t\r\n").startswith(b"{")


def _count(connection: sa.Connection) -> int:
    return int(connection.scalar(sa.text("SELECT count(*) FROM auditstore.events")) or 0)


def _ordinary(number: int) -> bytes:
    return b'{"id":"%024x","vars":{"flow":{"id":"beside"}}}' % number


# --- the fields, as docs/reference/events.md has them ---------------------------------


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> float:
    return int(digits) if len(digits) < 1000 else float("inf")


def _inner(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _is_owner_id(text: str) -> bool:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return False
    return len(text.encode()) <= 255


def _text(value: object) -> str | None:
    """What a text column can hold of it: U+FFFD for each NUL and each lone surrogate's bytes."""
    if not isinstance(value, str):
        return None
    return "".join(
        "\ufffd" if c == "\0" else "\ufffd" * 3 if "\ud800" <= c <= "\udfff" else c for c in value
    )


def _milliseconds(value: object) -> int | None:
    is_time = type(value) is int and 0 <= value <= 253_402_300_799_999
    return value if is_time else None  # type: ignore[return-value]  # an int by the line above
