"""Is each event in the bucket exactly once? Asked of the bucket itself.

The expected events are what the writers remember of their commits; neither the outbox nor the
ledger is trusted for them. The ledger is then held against what was found in the bucket.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Engine

from auditstore import streams
from auditstore.layout import key_pattern
from auditstore.ledger import GENESIS, LedgerFile, row_hash
from auditstore.objects import VERIFICATION_PREFIX, ObjectStore
from auditstore.sql import ledger as ledger_sql
from auditstore.streams import Stream
from support.lead_events import id_of


@dataclass(frozen=True)
class Checked:
    """How much was found to be right."""

    objects: int
    events: int


def check_bucket(
    engine: Engine,
    stream_id: int,
    store: ObjectStore,
    expected: Mapping[str, bytes],
    *,
    versions: Callable[[str], Mapping[str, int]] | None = None,
) -> Checked:
    """Fail unless the stream's part of the bucket is exactly right.

    ``expected`` has every committed event of the flow by id, as it was appended. ``versions``
    counts the versions of each object below a prefix, where the store keeps versions.
    """
    with engine.connect() as connection:
        stream = streams.get(connection, stream_id)
        ledger = list(ledger_sql.stream_files(connection, stream_id))
        positions = _positions(connection, stream.flow_id)
    objects = _objects(stream, store)
    if versions is not None:
        counted = {
            key: count
            for key, count in versions(stream.destination.prefix).items()
            # Where conditions are ignored the question itself makes two of them.
            if not key.rpartition("/")[2].startswith(VERIFICATION_PREFIX)
        }
        assert set(counted.values()) <= {1}, f"objects with several versions: {counted}"
        assert counted.keys() >= objects.keys()

    lines = _json_lines(objects, positions) if stream.format == "json" else _lines(stream, objects)
    _check_events(lines, expected)
    order = [positions[id_of(line)] for line in lines]
    assert order == sorted(set(order)), "the events do not lie in the order of their positions"
    _check_ledger(stream, ledger, objects, lines, order)
    return Checked(len(objects), len(lines))


def _positions(connection: sa.Connection, flow_id: str) -> dict[str, int]:
    found = connection.execute(
        sa.text("SELECT event_id, position FROM auditstore.events WHERE flow_id = :flow"),
        {"flow": flow_id},
    )
    return {row.event_id: row.position for row in found}


def _objects(stream: Stream, store: ObjectStore) -> dict[str, bytes]:
    """Every object below the stream's prefix; whatever is there is the stream's or an error."""
    prefix = stream.destination.prefix
    listed = [info.key for info in store.list(f"{prefix}/" if prefix else "")]
    keys = [key for key in listed if not key.rpartition("/")[2].startswith(VERIFICATION_PREFIX)]
    assert len(set(keys)) == len(keys)
    return {key: b"".join(store.read(key) or ()) for key in keys}


def _lines(stream: Stream, objects: Mapping[str, bytes]) -> list[bytes]:
    """The events in the bucket, in the order of the files' names."""
    pattern = key_pattern(
        stream.key_template,
        prefix=stream.destination.prefix,
        flow_id=stream.flow_id,
        stream_id=stream.stream_id,
    )
    by_sequence = {}
    for key in sorted(objects):
        match = pattern.fullmatch(key)
        assert match, f"a foreign object: {key}"
        by_sequence[int(match["sequence"])] = key
    assert len(by_sequence) == len(objects), "two objects have one sequence number"
    assert list(by_sequence) == list(range(1, len(objects) + 1)), (
        "the files' names do not sort by sequence, or a number is missing"
    )
    lines: list[bytes] = []
    for key in by_sequence.values():
        content = gzip.decompress(objects[key])
        assert content.endswith(b"\n")
        lines += content[:-1].split(b"\n")
    return lines


def _json_lines(objects: Mapping[str, bytes], positions: Mapping[str, int]) -> list[bytes]:
    """The events of single objects, whose names are in no order: in that of the outbox."""
    for key, body in objects.items():
        assert f"/{key}".endswith(f"/lead-1/{id_of(body)}.json"), f"a foreign object: {key}"
    return sorted(objects.values(), key=lambda body: positions.get(id_of(body), 0))


def _check_events(lines: Iterable[bytes], expected: Mapping[str, bytes]) -> None:
    found = Counter(id_of(line) for line in lines)
    twice = {event_id: count for event_id, count in found.items() if count > 1}
    assert not twice, f"{len(twice)} events lie there more than once: {list(twice)[:5]}"
    missing = expected.keys() - found.keys()
    assert not missing, f"{len(missing)} of {len(expected)} events are lost: {sorted(missing)[:5]}"
    extra = found.keys() - expected.keys()
    assert not extra, f"{len(extra)} events were never committed: {sorted(extra)[:5]}"
    changed = [line for line in lines if expected[id_of(line)] != line]
    assert not changed, f"{len(changed)} events were altered: {changed[:1]}"


def _check_ledger(
    stream: Stream,
    ledger: Sequence[LedgerFile],
    objects: Mapping[str, bytes],
    lines: Sequence[bytes],
    order: Sequence[int],
) -> None:
    """The ledger describes what was found, and its hash chain holds, computed anew."""
    assert [file.sealed.sequence for file in ledger] == list(range(1, len(ledger) + 1))
    chain, start = GENESIS, 0
    for file in ledger:
        sealed, delivery = file.sealed, file.delivery
        assert delivery is not None, f"file {sealed.sequence} is not delivered"
        assert file.delivered_at is not None
        end = start + sealed.event_count
        content = b"".join(line + b"\n" for line in lines[start:end])
        assert len(content) == sealed.content_bytes
        assert hashlib.sha256(content).digest() == delivery.content_sha256
        assert (order[start], order[end - 1]) == (sealed.first_position, sealed.last_position)
        if sealed.format == "ndjson.gz":
            body = objects[sealed.object_key]
        else:
            body = b"".join(lines[start:end])
        assert len(body) == delivery.object_bytes
        assert hashlib.sha256(body).digest() == delivery.object_sha256
        assert file.previous_hash == chain
        chain, start = row_hash(chain, sealed, delivery, file.delivered_at), end
        assert file.row_hash == chain
    assert start == len(lines)
    assert stream.chain_hash == chain
    assert stream.sealed_sequence == stream.delivered_sequence == len(ledger)
    assert stream.sealed_position == stream.delivered_position == (order[-1] if order else 0)
