"""What a comparison must find in a picture, said once more and independently of the product.

It is what ``docs/reference/reconciliation.md`` promises, over plain values that fit in memory:
no streaming, no SQL, no decoding in pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from reconciliation.damage.picture import (
    Picture,
    Row,
    digest,
    event_id_of,
    readable_part,
    split,
    unpacked,
)

from auditstore.ledger import GENESIS, LedgerFile, row_hash
from auditstore.reconciliation import Finding, Kind

Level = Literal["files", "events"]
_TEST_OBJECT = "auditstore_verification"
_LINES, _EVENT = ".ndjson.gz", ".json"


class Sighting(NamedTuple):
    """A finding by what it names."""

    kind: Kind
    sequence: int | None = None
    key: str | None = None
    event_id: str | None = None
    position: int | None = None

    @classmethod
    def of(cls, finding: Finding) -> Sighting:
        """What the product found."""
        return cls(
            finding.kind, finding.sequence, finding.object_key, finding.event_id, finding.position
        )


def expectation(picture: Picture, level: Level) -> Counter[Sighting]:
    """Every finding that a comparison of the picture must report, and how often."""
    return Counter(_Expectation(picture, level).all())


def possible(picture: Picture, level: Level) -> Counter[Sighting]:
    """What may be reported besides: an unknown object's events up to where it is damaged.

    How many of them come before the damage depends on the pieces in which a store gives it.
    """
    return Counter(_Expectation(picture, level).beyond())


class _Expectation:
    def __init__(self, picture: Picture, level: Level) -> None:
        self._picture = picture
        self._facts = picture.facts
        self._by_id = {row.event_id: row for row in picture.rows.values()}
        self._reads_events = level == "events"
        self._taken: set[str] = set()

    def all(self) -> Iterator[Sighting]:
        """The ledger, its files, and what nobody names."""
        files = [self._picture.ledger[sequence] for sequence in sorted(self._picture.ledger)]
        yield from self._ledger(files)
        yield from self._coverage(files)
        for file in files:
            yield from self._counts(file)
            yield from self._altered(self._range(file), file)
            yield from self._lines(file) if self._picture.is_lines else self._events(file)
        yield from self._unknown()

    def beyond(self) -> Iterator[Sighting]:
        """The events in what is left of damaged objects that nobody names."""
        for _ in self.all():
            pass  # whoever names an object takes it
        for key, body in self._strays():
            if key.endswith(_LINES) and unpacked(body) is None:
                # What has no end was cut off, and is no line.
                yield from self._strange(key, readable_part(body).split(b"\n")[:-1])

    # --- the ledger -------------------------------------------------------------------

    def _ledger(self, files: Sequence[LedgerFile]) -> Iterator[Sighting]:
        before: LedgerFile | None = None
        expected = 1
        for file in files:
            sealed = file.sealed
            broken = Sighting(Kind.BROKEN_CHAIN, sealed.sequence, sealed.object_key)
            if sealed.sequence > expected:
                yield Sighting(Kind.BROKEN_CHAIN, expected)
            if before is not None and sealed.first_position <= before.sealed.last_position:
                yield broken
            if sealed.last_position > self._facts.sealed_position:
                yield broken
            if _hash(file) != file.row_hash:
                yield broken
            chained_to = GENESIS if sealed.sequence == 1 else None
            if before is not None and before.sealed.sequence == sealed.sequence - 1:
                chained_to = before.row_hash
            if chained_to is not None and chained_to != file.previous_hash:
                yield broken
            expected, before = sealed.sequence + 1, file
        last = self._facts.delivered_sequence
        if expected <= last:
            yield Sighting(Kind.BROKEN_CHAIN, expected)
        head = self._picture.ledger.get(last)
        if head is not None and head.row_hash != self._picture.head:
            yield Sighting(Kind.BROKEN_CHAIN, last, head.sealed.object_key)

    def _coverage(self, files: Sequence[LedgerFile]) -> Iterator[Sighting]:
        """Events in no file's range; a gap in the ledger leaves them so."""
        held = {
            position
            for file in files
            for position in range(file.sealed.first_position, file.sealed.last_position + 1)
        }
        lost = [row for position, row in self._picture.rows.items() if position not in held]
        for row in lost:
            yield Sighting(Kind.MISSING_EVENT, None, None, row.event_id, row.position)
        yield from self._altered(lost, None)

    # --- the outbox -------------------------------------------------------------------

    def _counts(self, file: LedgerFile) -> Iterator[Sighting]:
        sealed = file.sealed
        rows = self._range(file)
        size = sum(len(row.payload) + 1 for row in rows)
        if (len(rows), size) != (sealed.event_count, sealed.content_bytes):
            yield Sighting(
                Kind.OUTBOX_DIFFERS, sealed.sequence, sealed.object_key, None, sealed.first_position
            )

    def _altered(self, rows: Sequence[Row], file: LedgerFile | None) -> Iterator[Sighting]:
        """Payloads that are not what their hashes say, whatever became of their objects."""
        where = (None, None) if file is None else (file.sealed.sequence, file.sealed.object_key)
        for row in rows if self._reads_events else ():
            if not row.is_intact:
                yield Sighting(Kind.OUTBOX_DIFFERS, *where, row.event_id, row.position)

    # --- files of many lines ------------------------------------------------------------

    def _lines(self, file: LedgerFile) -> Iterator[Sighting]:
        key, sequence, delivery = file.sealed.object_key, file.sealed.sequence, file.delivery
        assert delivery is not None
        self._taken.add(key)
        body = self._picture.objects.get(key)
        if body is None:
            yield Sighting(Kind.MISSING_FILE, sequence, key)
            return
        if not self._reads_events and digest(body) == delivery.object_sha256:
            return
        content = unpacked(body)
        if content is None:
            yield Sighting(Kind.CHANGED_FILE, sequence, key)
            return
        is_delivered = digest(content) == delivery.content_sha256
        if not is_delivered:
            yield Sighting(Kind.CHANGED_FILE, sequence, key)
        elif digest(body) != delivery.object_sha256:
            yield Sighting(Kind.RECOMPRESSED, sequence, key)
        if self._reads_events:
            yield from self._explained(self._range(file), split(content), sequence, key)

    # --- files of one object an event ---------------------------------------------------

    def _events(self, file: LedgerFile) -> Iterator[Sighting]:
        sequence, delivery = file.sealed.sequence, file.delivery
        assert delivery is not None
        rows = self._range(file)
        keys = [self._facts.keys[row.event_id] for row in rows]
        self._taken.update(keys)
        found = [self._picture.objects.get(key) for key in keys]
        there = [body for body in found if body is not None]
        content = b"".join(body + b"\n" for body in there)
        is_delivered = digest(content) == delivery.content_sha256
        is_delivered = is_delivered and digest(b"".join(there)) == delivery.object_sha256
        differ = False
        for row, key, body in zip(rows, keys, found, strict=True):
            named = (sequence, key, row.event_id, row.position)
            if body is not None and digest(body) == row.sha256:
                continue
            differ = True
            if body is None:
                yield Sighting(Kind.MISSING_FILE, *named)
            elif is_delivered:
                # The ledger proves that the objects are what was delivered.
                kind = Kind.CHANGED_EVENT if self._reads_events else Kind.OUTBOX_DIFFERS
                yield Sighting(kind, *named)
            else:
                yield Sighting(Kind.CHANGED_FILE, *named)
                if self._reads_events:
                    yield from self._explained([row], [body] if body else [], sequence, key)
        if not differ and not is_delivered and len(rows) == file.sealed.event_count:
            yield Sighting(
                Kind.OUTBOX_DIFFERS, sequence, file.sealed.object_key, None,
                file.sealed.first_position,
            )  # fmt: skip

    # --- events ---------------------------------------------------------------------------

    def _explained(
        self, rows: Sequence[Row], lines: Sequence[bytes], sequence: int | None, key: str
    ) -> Iterator[Sighting]:
        """Each event of the outbox against the lines that should be it, and the other lines."""
        expected = {row.event_id: row for row in rows}
        found = [(event_id_of(line), digest(line)) for line in lines]
        for row in rows:
            if row.event_id not in {event_id for event_id, _ in found}:
                yield Sighting(Kind.MISSING_EVENT, sequence, key, row.event_id, row.position)
        seen = set()
        for event_id, sha256 in found:
            if event_id is None:
                yield Sighting(Kind.UNREADABLE_LINE, sequence, key)
            elif event_id not in expected:
                yield self._foreign(event_id, sha256, sequence, key)
            elif sha256 != expected[event_id].sha256:
                position = expected[event_id].position
                yield Sighting(Kind.CHANGED_EVENT, sequence, key, event_id, position)
            elif event_id in seen:
                position = expected[event_id].position
                yield Sighting(Kind.DUPLICATE_EVENT, sequence, key, event_id, position)
            else:
                seen.add(event_id)

    def _foreign(self, event_id: str, sha256: bytes, sequence: int | None, key: str) -> Sighting:
        row = self._by_id.get(event_id)
        if row is None:
            return Sighting(Kind.UNKNOWN_EVENT, sequence, key, event_id)
        kind = Kind.DUPLICATE_EVENT if row.sha256 == sha256 else Kind.UNKNOWN_EVENT
        return Sighting(kind, sequence, key, event_id, row.position)

    # --- objects that nobody names --------------------------------------------------------

    def _unknown(self) -> Iterator[Sighting]:
        for key, body in self._strays():
            yield Sighting(Kind.UNKNOWN_FILE, None, key)
            if key.endswith(_LINES):
                yield from self._strange(key, split(unpacked(body) or b""))
            elif key.endswith(_EVENT):
                yield from self._strange(key, [body])

    def _strays(self) -> Iterator[tuple[str, bytes]]:
        for key, body in self._picture.objects.items():
            if key not in self._taken and not key.rpartition("/")[2].startswith(_TEST_OBJECT):
                yield key, body

    def _strange(self, key: str, lines: Sequence[bytes]) -> Iterator[Sighting]:
        for line in lines if self._reads_events else ():
            event_id = event_id_of(line)
            if event_id is not None:
                yield self._foreign(event_id, digest(line), None, key)

    def _range(self, file: LedgerFile) -> list[Row]:
        first, last = file.sealed.first_position, file.sealed.last_position
        return [
            self._picture.rows[position]
            for position in sorted(self._picture.rows)
            if first <= position <= last
        ]


def _hash(file: LedgerFile) -> bytes:
    assert file.previous_hash is not None
    assert file.delivery is not None
    assert file.delivered_at is not None
    return row_hash(file.previous_hash, file.sealed, file.delivery, file.delivered_at)
