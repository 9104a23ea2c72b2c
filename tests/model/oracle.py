"""What is compared after every step: the outbox, the ledger and the store, each read anew."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy import Connection
from support.lead_events import id_of

from auditstore import streams
from auditstore.ledger import LedgerFile
from auditstore.sql import ledger as ledger_sql
from auditstore.streams import Stream


class Oracle:
    """Holds one stream against its promises; remembers every object as it was seen first."""

    def __init__(
        self, connection: Connection, stream_id: int, objects: Mapping[str, bytes]
    ) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._objects = objects
        self._seen: dict[str, bytes] = {}

    def check(self) -> None:
        """Fail if a promise does not hold at this moment."""
        with self._connection.begin():
            stream = streams.get(self._connection, self._stream_id)
            files = list(ledger_sql.stream_files(self._connection, self._stream_id))
            rows = self._rows(stream.flow_id)
        assert stream.status.state != "halted", stream.status.cause
        _check_ledger(stream, files)
        _check_coverage(stream, files, rows)
        self._check_store(files, rows)

    def _rows(self, flow_id: str) -> dict[int, str]:
        found = self._connection.execute(
            sa.text(
                "SELECT position, event_id FROM auditstore.events WHERE flow_id = :flow"
                " ORDER BY position"
            ),
            {"flow": flow_id},
        )
        return {row.position: row.event_id for row in found}

    def _check_store(self, files: Sequence[LedgerFile], rows: Mapping[int, str]) -> None:
        sealed = {file.sealed.object_key: file.sealed for file in files}
        for key, body in self._objects.items():
            assert self._seen.setdefault(key, body) == body, f"{key} was overwritten"
            assert key in sealed, f"{key} is in no ledger row"
            range_ = range(sealed[key].first_position, sealed[key].last_position + 1)
            expected = [rows[position] for position in rows if position in range_]
            assert [id_of(line) for line in gzip.decompress(body).splitlines()] == expected
        assert self._seen.keys() == self._objects.keys(), "an object was deleted"
        for file in files:
            if file.delivery is not None:
                assert file.sealed.object_key in self._objects, "recorded, and not there"


def _check_ledger(stream: Stream, files: Sequence[LedgerFile]) -> None:
    """Sequences without a gap; recorded in order; one file in flight."""
    assert [file.sealed.sequence for file in files] == list(range(1, len(files) + 1))
    recorded = [file.delivery is not None for file in files]
    assert recorded == sorted(recorded, reverse=True), "recorded out of order"
    assert recorded.count(False) <= 1, "two files in flight"
    assert stream.sealed_sequence == len(files)
    assert stream.delivered_sequence == sum(recorded)


def _check_coverage(stream: Stream, files: Sequence[LedgerFile], rows: Mapping[int, str]) -> None:
    """Every event at or below the sealed mark was counted when its file was sealed."""
    covered = 0
    for file in files:
        range_ = range(file.sealed.first_position, file.sealed.last_position + 1)
        inside = [rows[position] for position in rows if position in range_]
        assert len(inside) == file.sealed.event_count, (
            f"file {file.sealed.sequence} was sealed with {file.sealed.event_count} events, and"
            f" {len(inside)} lie in its range now"
        )
        covered += len(inside)
    below = [position for position in rows if position <= stream.sealed_position]
    assert len(below) == covered, f"skipped: {len(below) - covered} events below the sealed mark"
