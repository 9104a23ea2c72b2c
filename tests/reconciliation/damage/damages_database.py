"""Damage to the outbox and to the ledger, behind the guards of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from reconciliation.damage.damages import Damage, changed, events, named
from reconciliation.damage.damages_lines import EditEvent
from reconciliation.damage.expectation import Level, Sighting
from reconciliation.damage.picture import Picture, Row, edited

from auditstore.ledger import LedgerFile, row_hash
from auditstore.reconciliation import Kind


def _counts(sequence: int, untouched: Picture) -> Sighting:
    """The range of a file that does not hold what was sealed."""
    sealed = untouched.ledger[sequence].sealed
    return Sighting(
        Kind.OUTBOX_DIFFERS, sequence, sealed.object_key, None, sealed.first_position
    )  # fmt: skip


# --- the outbox -----------------------------------------------------------------------


@dataclass(frozen=True)
class DropRow(Damage):
    """An event is gone from the outbox."""

    event: int

    def plant(self, picture: Picture) -> bool:
        return picture.rows.pop(picture.row(self.event).position, None) is not None

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        row = untouched.row(self.event)
        each = untouched.holder(row.position)
        yield _counts(each.sequence, untouched)
        # An object of one event is named by nobody then; in a file of many one is unknown.
        sequence = each.sequence if untouched.is_lines else None
        if sequence is None:
            yield Sighting(Kind.UNKNOWN_FILE, None, each.key)
        if level == "events":
            yield Sighting(Kind.UNKNOWN_EVENT, sequence, each.key, row.event_id)


@dataclass(frozen=True)
class AddRow(Damage):
    """An event is in the outbox that was never appended, amid those of a file."""

    spare: int

    def plant(self, picture: Picture) -> bool:
        row = self._row(picture)
        picture.rows[row.position] = row
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        row = self._row(untouched)
        (sequence,) = (
            file.sealed.sequence
            for file in untouched.ledger.values()
            if file.sealed.first_position <= row.position <= file.sealed.last_position
        )
        yield _counts(sequence, untouched)
        if untouched.is_lines:
            if level == "events":
                key = untouched.ledger[sequence].sealed.object_key
                yield Sighting(Kind.MISSING_EVENT, sequence, key, row.event_id, row.position)
        else:
            key = untouched.facts.keys[row.event_id]
            yield Sighting(Kind.MISSING_FILE, sequence, key, row.event_id, row.position)

    def _row(self, picture: Picture) -> Row:
        return picture.facts.spare[self.spare % len(picture.facts.spare)]


@dataclass(frozen=True)
class EditRow(Damage):
    """An event of the outbox says something else than it did, and its hash with it."""

    event: int
    how: str

    def plant(self, picture: Picture) -> bool:
        row = picture.rows.get(picture.row(self.event).position)
        if row is None:
            return False
        picture.rows[row.position] = row.now(edited(row.payload, self.how))
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        row = untouched.row(self.event)
        each = untouched.holder(row.position)
        if len(edited(row.payload, self.how)) != len(row.payload):
            yield _counts(each.sequence, untouched)
        if level == "events":
            yield Sighting(Kind.CHANGED_EVENT, each.sequence, each.key, row.event_id, row.position)
        elif not untouched.is_lines:
            yield named(Kind.OUTBOX_DIFFERS, each, untouched)


@dataclass(frozen=True)
class AlterPayload(Damage):
    """An event of the outbox says something else than its hash was taken of."""

    event: int
    how: str

    def plant(self, picture: Picture) -> bool:
        row = picture.rows.get(picture.row(self.event).position)
        if row is None:
            return False
        picture.rows[row.position] = replace(row, payload=edited(row.payload, self.how))
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        row = untouched.row(self.event)
        sequence = untouched.holder(row.position).sequence
        if len(edited(row.payload, self.how)) != len(row.payload):
            yield _counts(sequence, untouched)
        if level == "events":
            key = untouched.ledger[sequence].sealed.object_key
            yield Sighting(Kind.OUTBOX_DIFFERS, sequence, key, row.event_id, row.position)


@dataclass(frozen=True)
class EditBoth(Damage):
    """An event is edited in the outbox and in the store alike; only the ledger knows better."""

    event: int
    how: str

    def plant(self, picture: Picture) -> bool:
        row = picture.row(self.event)
        held = picture.lines(picture.holder(row.position).key) or []
        # Where either was edited before, they would not come out alike.
        if picture.rows.get(row.position) != row or row.payload not in held:
            return False
        EditRow(self.event, self.how).plant(picture)
        return EditEvent(self.event, self.how).plant(picture)

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        row = untouched.row(self.event)
        each = untouched.holder(row.position)
        if len(edited(row.payload, self.how)) != len(row.payload):
            yield _counts(each.sequence, untouched)
        if untouched.is_lines:
            yield changed(each, untouched)
        else:
            yield _counts(each.sequence, untouched)


# --- the ledger -----------------------------------------------------------------------


@dataclass(frozen=True)
class DropFile(Damage):
    """A row is gone from the ledger: nobody names its objects, and its events are in no file."""

    file: int

    def plant(self, picture: Picture) -> bool:
        return picture.ledger.pop(_sequence(self.file, picture), None) is not None

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        sequence = _sequence(self.file, untouched)
        yield Sighting(Kind.BROKEN_CHAIN, sequence)
        for each in untouched.facts.delivered:
            if each.sequence == sequence:
                yield Sighting(Kind.UNKNOWN_FILE, None, each.key)
                yield from events(Kind.MISSING_EVENT, each, None, None)
                if level == "events":
                    yield from events(Kind.DUPLICATE_EVENT, each, each.key, None)


#: Ways to alter a row of the ledger.
ALTERATIONS: Final[dict[str, Callable[[LedgerFile], LedgerFile]]] = {
    "etag": lambda file: _delivery(file, etag="another"),
    "encoder": lambda file: _sealed(file, encoder="another"),
    "sealed at": lambda file: _sealed(
        file, sealed_at=file.sealed.sealed_at + timedelta(seconds=1)
    ),
    "stored bytes": lambda file: _delivery(
        file, object_bytes=file.delivery.object_bytes + 1 if file.delivery else 0
    ),
    "count": lambda file: _sealed(file, event_count=file.sealed.event_count + 1),
    "range": lambda file: _sealed(file, last_position=file.sealed.last_position - 1),
    "content": lambda file: _delivery(file, content_sha256=bytes(32)),
    "key": lambda file: _sealed(file, object_key=f"{file.sealed.object_key}.elsewhere"),
}  # fmt: skip


@dataclass(frozen=True)
class AlterFile(Damage):
    """A row of the ledger was altered, and is not what its hash says."""

    file: int
    what: str

    def plant(self, picture: Picture) -> bool:
        sequence = _sequence(self.file, picture)
        if sequence not in picture.ledger:
            return False
        altered = ALTERATIONS[self.what](picture.ledger[sequence])
        if altered.sealed.last_position < altered.sealed.first_position:
            return False  # which the table's own checks refuse
        picture.ledger[sequence] = altered
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        sequence = _sequence(self.file, untouched)
        after = untouched.copy()
        self.plant(after)
        key = after.ledger[sequence].sealed.object_key
        yield Sighting(Kind.BROKEN_CHAIN, sequence, key)
        held = [each for each in untouched.facts.delivered if each.sequence == sequence]
        if self.what == "count":
            yield _counts(sequence, untouched)
        elif self.what == "content" and untouched.is_lines:
            # What was stored is as it was; only who reads it can tell that this is not told so.
            if level == "events":
                yield Sighting(Kind.CHANGED_FILE, sequence, key)
        elif self.what == "content":
            yield _counts(sequence, untouched)
        elif self.what == "key" and untouched.is_lines:
            yield Sighting(Kind.MISSING_FILE, sequence, key)
            yield Sighting(Kind.UNKNOWN_FILE, None, held[0].key)
            if level == "events":
                yield from events(Kind.DUPLICATE_EVENT, held[0], held[0].key, None)
        elif self.what == "range":
            yield from self._shrunk(untouched, level)

    def _shrunk(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        """The last event of the range is in none now; what holds it holds a stranger."""
        sequence = _sequence(self.file, untouched)
        each = [each for each in untouched.facts.delivered if each.sequence == sequence][-1]
        row = each.rows[-1]
        yield _counts(sequence, untouched)
        yield Sighting(Kind.MISSING_EVENT, None, None, row.event_id, row.position)
        if not untouched.is_lines:
            yield Sighting(Kind.UNKNOWN_FILE, None, each.key)
        if level == "events":
            yield Sighting(
                Kind.DUPLICATE_EVENT, sequence if untouched.is_lines else None, each.key,
                row.event_id, row.position,
            )  # fmt: skip


@dataclass(frozen=True)
class ForgeFile(Damage):
    """A row was altered together with its hash: nothing is chained to it any more."""

    file: int

    def plant(self, picture: Picture) -> bool:
        sequence = _sequence(self.file, picture)
        if sequence not in picture.ledger:
            return False
        file = ALTERATIONS["encoder"](picture.ledger[sequence])
        assert file.previous_hash is not None
        assert file.delivery is not None
        assert file.delivered_at is not None
        forged = row_hash(file.previous_hash, file.sealed, file.delivery, file.delivered_at)
        picture.ledger[sequence] = replace(file, row_hash=forged)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        # Found at the next one, or else at the stream's own mark, which names the newest.
        sequence = _sequence(self.file, untouched)
        following = min(sequence + 1, untouched.facts.delivered_sequence)
        key = untouched.ledger[following].sealed.object_key
        yield Sighting(Kind.BROKEN_CHAIN, following, key)


@dataclass(frozen=True)
class ForgeHead(Damage):
    """The stream's own mark names another row than the ledger's newest."""

    byte: int

    def plant(self, picture: Picture) -> bool:
        picture.head = bytes([self.byte]) * 32
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        last = untouched.facts.delivered_sequence
        yield Sighting(Kind.BROKEN_CHAIN, last, untouched.ledger[last].sealed.object_key)


def _sequence(number: int, picture: Picture) -> int:
    return 1 + number % picture.facts.delivered_sequence


def _sealed(file: LedgerFile, **changes: object) -> LedgerFile:
    return replace(file, sealed=replace(file.sealed, **changes))  # type: ignore[arg-type]  # a field each


def _delivery(file: LedgerFile, **changes: object) -> LedgerFile:
    assert file.delivery is not None
    return replace(file, delivery=replace(file.delivery, **changes))  # type: ignore[arg-type]  # a field each
