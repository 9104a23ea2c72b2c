"""Damage to single events in the store: a line of a file, or the object of an event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciliation.damage.damages import LINES, Damage, changed
from reconciliation.damage.expectation import Level, Sighting
from reconciliation.damage.picture import Delivered, Picture, edited, event_id_of

from auditstore.reconciliation import Kind


def _of(kind: Kind, event: int, picture: Picture, at: Delivered | None = None) -> Sighting:
    """A finding of one event, in the object that holds it or in another."""
    row = picture.row(event)
    where = at or picture.holder(row.position)
    return Sighting(kind, where.sequence, where.key, row.event_id, row.position)


def _find(picture: Picture, event: int) -> tuple[str, list[bytes], int] | None:
    """The key, the lines and the index of an event as it was delivered, if it still lies there."""
    row = picture.row(event)
    key = picture.holder(row.position).key
    lines = picture.lines(key)
    if lines is None:
        return None
    return next(
        ((key, lines, at) for at, line in enumerate(lines) if event_id_of(line) == row.event_id),
        None,
    )


@dataclass(frozen=True)
class EditEvent(Damage):
    """An event in the store says something else than it did."""

    event: int
    how: str

    def plant(self, picture: Picture) -> bool:
        found = _find(picture, self.event)
        if found is None:
            return False
        key, lines, at = found
        lines[at] = edited(lines[at], self.how)
        picture.write_lines(key, lines)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each = untouched.holder(untouched.row(self.event).position)
        yield changed(each, untouched)
        if level == "events":
            yield _of(Kind.CHANGED_EVENT, self.event, untouched)


@dataclass(frozen=True)
class NoJson(Damage):
    """Something stands in the place of an event that is no JSON, or JSON and no event."""

    event: int
    text: bytes

    def plant(self, picture: Picture) -> bool:
        found = _find(picture, self.event)
        if found is None:
            return False
        key, lines, at = found
        lines[at] = self.text
        picture.write_lines(key, lines)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each = untouched.holder(untouched.row(self.event).position)
        yield changed(each, untouched)
        if level == "events":
            yield _of(Kind.MISSING_EVENT, self.event, untouched)
            yield Sighting(Kind.UNREADABLE_LINE, each.sequence, each.key)


@dataclass(frozen=True)
class Stranger(Damage):
    """An event that the outbox never had stands in the place of another."""

    event: int
    spare: int

    def plant(self, picture: Picture) -> bool:
        found = _find(picture, self.event)
        if found is None:
            return False
        key, lines, at = found
        lines[at] = picture.facts.spare[self.spare % len(picture.facts.spare)].payload
        picture.write_lines(key, lines)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each = untouched.holder(untouched.row(self.event).position)
        yield changed(each, untouched)
        if level == "events":
            spare = untouched.facts.spare[self.spare % len(untouched.facts.spare)]
            yield _of(Kind.MISSING_EVENT, self.event, untouched)
            yield Sighting(Kind.UNKNOWN_EVENT, each.sequence, each.key, spare.event_id)


@dataclass(frozen=True)
class DropLine(Damage):
    """An event is taken out of its file."""

    event: int
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        found = _find(picture, self.event)
        if found is None:
            return False
        key, lines, at = found
        picture.write_lines(key, lines[:at] + lines[at + 1 :])
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        yield changed(untouched.holder(untouched.row(self.event).position), untouched)
        if level == "events":
            yield _of(Kind.MISSING_EVENT, self.event, untouched)


@dataclass(frozen=True)
class RepeatLine(Damage):
    """An event stands in its file once more."""

    event: int
    at: int
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        found = _find(picture, self.event)
        if found is None:
            return False
        key, lines, index = found
        lines.insert(self.at % (len(lines) + 1), lines[index])
        picture.write_lines(key, lines)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        yield changed(untouched.holder(untouched.row(self.event).position), untouched)
        if level == "events":
            yield _of(Kind.DUPLICATE_EVENT, self.event, untouched)


@dataclass(frozen=True)
class MoveLine(Damage):
    """An event stands in another file than its own."""

    event: int
    step: int
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        found = _find(picture, self.event)
        target = self._target(picture).key
        others = picture.lines(target)
        if found is None or others is None:
            return False
        key, lines, at = found
        picture.write_lines(target, [*others, lines[at]])
        picture.write_lines(key, lines[:at] + lines[at + 1 :])
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        target = self._target(untouched)
        yield changed(untouched.holder(untouched.row(self.event).position), untouched)
        yield changed(target, untouched)
        if level == "events":
            yield _of(Kind.MISSING_EVENT, self.event, untouched)
            yield _of(Kind.DUPLICATE_EVENT, self.event, untouched, target)

    def _target(self, picture: Picture) -> Delivered:
        delivered = picture.facts.delivered
        own = delivered.index(picture.holder(picture.row(self.event).position))
        return picture.target(own + 1 + self.step % (len(delivered) - 1))


@dataclass(frozen=True)
class SwapLines(Damage):
    """The first and the last event of a file stand in each other's place."""

    target: int
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        lines = picture.lines(key)
        if not lines or lines[0] == lines[-1]:
            return False
        lines[0], lines[-1] = lines[-1], lines[0]
        picture.write_lines(key, lines)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        yield changed(untouched.target(self.target), untouched)


@dataclass(frozen=True)
class CutLineEnd(Damage):
    """The last line of a file has no end."""

    target: int
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        lines = picture.lines(key)
        if not lines:
            return False
        picture.write_lines(key, lines, end=b"")
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        yield changed(untouched.target(self.target), untouched)


@dataclass(frozen=True)
class AddLine(Damage):
    """A line that is no event, or empty, stands between the events of a file."""

    target: int
    at: int
    text: bytes
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        lines = picture.lines(key)
        if lines is None:
            return False
        lines.insert(self.at % (len(lines) + 1), self.text)
        picture.write_lines(key, lines)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each = untouched.target(self.target)
        yield changed(each, untouched)
        if level == "events":
            yield Sighting(Kind.UNREADABLE_LINE, each.sequence, each.key)
