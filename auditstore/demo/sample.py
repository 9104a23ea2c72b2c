"""One event as it lies in a bucket, held against the outbox."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

from auditstore.demo.run import Stage
from auditstore.errors import AuditStoreError
from auditstore.ledger import SealedFile
from auditstore.repository import EventRepository
from auditstore.sql import ledger as ledger_sql
from auditstore.streams import Stream
from exporters.encoding import decompress

_LONGEST_TEXT: Final = 40
_DEEPEST: Final = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """An event, where it lies (line from 1), and its SHA-256, the same on both sides."""

    event_id: str
    key: str
    line: int
    sha256: str
    size: int
    fields: dict[str, Any]


def newest_delivery(stage: Stage, stream: Stream) -> Sample:
    """The newest accepted delivery in the newest file of a stream that has one.

    Raises unless the outbox holds the same bytes.
    """
    for sealed in _newest_first(stage, stream):
        for number, snapshot in reversed(list(enumerate(_lines(stage, stream, sealed), start=1))):
            fields = orjson.loads(snapshot)
            if (fields["type"], fields["outcome"]) == ("recipient", "success"):
                _compare(stage, stream, fields["id"], snapshot)
                return Sample(
                    fields["id"], sealed.object_key, number,
                    hashlib.sha256(snapshot).hexdigest(), len(snapshot), fields,
                )  # fmt: skip
    raise AuditStoreError(
        "no accepted delivery lies in the bucket",
        hint="This is a defect of auditstore; please report it.",
    )


def shortened(value: Any, depth: int = 0) -> Any:
    """The value with long texts cut short, typed values by their raw form, and what lies deep
    only hinted at.
    """
    if isinstance(value, dict) and "raw" in value:
        return shortened(value["raw"], depth)
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[: _LONGEST_TEXT - 1] + "…"
    if isinstance(value, list):
        many = len(value) > 1
        return [f"… {len(value)} items"] if many else [shortened(one, depth + 1) for one in value]
    if isinstance(value, dict):
        if value and depth >= _DEEPEST:
            return f"… {len(value)} fields"
        return {name: shortened(each, depth + 1) for name, each in value.items()}
    return value


def _newest_first(stage: Stage, stream: Stream) -> list[SealedFile]:
    with stage.engine.connect() as connection:
        found = [each.sealed for each in ledger_sql.stream_files(connection, stream.stream_id)]
    return found[::-1]


def _lines(stage: Stage, stream: Stream, sealed: SealedFile) -> list[bytes]:
    with stage.open_store(stream) as store:
        content = b"".join(decompress(store.read(sealed.object_key) or ()))
    return content.splitlines()


def _compare(stage: Stage, stream: Stream, event_id: str, snapshot: bytes) -> None:
    with stage.engine.connect() as connection:
        (stored,) = EventRepository().get(connection, event_id, flow_id=stream.flow_id)
    if stored.event.payload != snapshot:
        raise AuditStoreError(
            f"event {event_id} is not in the bucket as it was appended",
            hint="This is a defect of auditstore; please report it.",
        )
