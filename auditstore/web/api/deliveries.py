"""Deliveries over HTTP: a stream's files, as the ledger has them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from auditstore.errors import NotFound
from auditstore.ledger import LedgerFile
from auditstore.sql.console import latest_files
from auditstore.sql.ledger import one_file
from auditstore.web.api.auth import Viewer
from auditstore.web.api.problems import answers
from auditstore.web.api.state import InApi
from auditstore.web.api.streams import StreamId, seen_stream

router = APIRouter(prefix="/streams/{stream_id}/files", tags=["Deliveries"])

_BIGGEST = 2**63 - 1


class FileShown(BaseModel):
    """A row of the ledger. What a file has only once it is delivered is `null` until then."""

    stream_id: int
    sequence: int
    first_position: int
    last_position: int
    event_count: int
    content_bytes: int = Field(description="Uncompressed, line ends included.")
    first_recorded_at: datetime
    last_recorded_at: datetime
    format: str
    encoder: str
    object_key: str = Field(description="The full key; in the format json the keys' pattern.")
    sealed_at: datetime
    delivered_at: datetime | None
    content_sha256: str | None
    object_bytes: int | None
    object_sha256: str | None
    etag: str | None
    version_id: str | None
    previous_hash: str | None
    row_hash: str | None


@router.get("", responses=answers())
def list_files(
    api: InApi, caller: Viewer, stream_id: StreamId,
    before: Annotated[
        int | None, Query(ge=1, le=_BIGGEST, description="Only sequences below it (exclusive).")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[FileShown]:  # fmt: skip
    """The files of a stream, the newest first. Page with `before`."""
    with api.reading() as connection:
        seen_stream(connection, caller, stream_id)
        return [
            _shown(each) for each in latest_files(connection, stream_id, before=before, limit=limit)
        ]


@router.get("/{sequence}", responses=answers())
def get_file(
    api: InApi, caller: Viewer, stream_id: StreamId,
    sequence: Annotated[int, Path(ge=1, le=_BIGGEST)],
) -> FileShown:  # fmt: skip
    """One file of a stream."""
    with api.reading() as connection:
        seen_stream(connection, caller, stream_id)
        found = one_file(connection, stream_id, sequence)
    if found is None:
        raise NotFound(f"stream {stream_id} has no file {sequence}")
    return _shown(found)


def _shown(file: LedgerFile) -> FileShown:
    sealed, done = file.sealed, file.delivery

    def hexed(digest: bytes | None) -> str | None:
        return None if digest is None else digest.hex()

    return FileShown(
        stream_id=sealed.stream_id, sequence=sealed.sequence,
        first_position=sealed.first_position, last_position=sealed.last_position,
        event_count=sealed.event_count, content_bytes=sealed.content_bytes,
        first_recorded_at=sealed.first_recorded_at, last_recorded_at=sealed.last_recorded_at,
        format=sealed.format, encoder=sealed.encoder, object_key=sealed.object_key,
        sealed_at=sealed.sealed_at, delivered_at=file.delivered_at,
        content_sha256=hexed(done.content_sha256 if done else None),
        object_bytes=done.object_bytes if done else None,
        object_sha256=hexed(done.object_sha256 if done else None),
        etag=done.etag if done else None, version_id=done.version_id if done else None,
        previous_hash=hexed(file.previous_hash), row_hash=hexed(file.row_hash),
    )  # fmt: skip
