"""Damage to whole objects: gone, cut, altered, copied, renamed, exchanged, added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciliation.damage.damages import LINES, OBJECTS, Damage, changed, events, missing, named
from reconciliation.damage.expectation import Level, Sighting
from reconciliation.damage.picture import Delivered, Picture, event_id_of, packed

from auditstore.reconciliation import Kind

_GZIP_TRAILER = 8
#: Bytes of a gzip header that say when and where it was made, and nothing of its content.
_IDLE_HEADER = frozenset(range(4, 10))
_FLAGS = 3


@dataclass(frozen=True)
class Delete(Damage):
    """An object is taken away."""

    target: int

    def plant(self, picture: Picture) -> bool:
        return picture.objects.pop(picture.target(self.target).key, None) is not None

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        yield missing(untouched.target(self.target), untouched)


@dataclass(frozen=True)
class Truncate(Damage):
    """An object is half written: its first bytes, or none at all."""

    target: int
    per_mille: int

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        body = picture.objects.get(key)
        if not body:
            return False
        picture.objects[key] = body[: len(body) * self.per_mille // 1000]
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each = untouched.target(self.target)
        yield changed(each, untouched)
        if level == "events" and not untouched.is_lines:
            yield from events(Kind.MISSING_EVENT, each, each.key, each.sequence)
            if len(untouched.objects[each.key]) * self.per_mille >= 1000:
                yield Sighting(Kind.UNREADABLE_LINE, each.sequence, each.key)


@dataclass(frozen=True)
class Empty(Damage):
    """An object has no byte any more."""

    target: int

    def plant(self, picture: Picture) -> bool:
        return Truncate(self.target, 0).plant(picture)

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        return Truncate(self.target, 0).expected(untouched, level)


@dataclass(frozen=True)
class FlipBit(Damage):
    """One bit of an object is another."""

    target: int
    at: int
    bit: int

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        body = bytearray(picture.objects.get(key, b""))
        if not body:
            return False
        body[self.at % len(body)] ^= 1 << self.bit
        picture.objects[key] = bytes(body)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each = untouched.target(self.target)
        if untouched.is_lines:
            kind = Kind.RECOMPRESSED if self._is_idle(untouched) else Kind.CHANGED_FILE
            yield Sighting(kind, each.sequence, each.key)
            return
        yield changed(each, untouched)
        if level == "events":
            yield from self._of_event(untouched)

    def _is_idle(self, untouched: Picture) -> bool:
        body = untouched.objects[untouched.target(self.target).key]
        at = self.at % len(body)
        # Of the flags, the lowest calls the content text; the others announce more of a header.
        return at in _IDLE_HEADER or (at == _FLAGS and self.bit == 0)

    def _of_event(self, untouched: Picture) -> Iterator[Sighting]:
        each = untouched.target(self.target)
        after = untouched.copy()
        self.plant(after)
        its = event_id_of(after.objects[each.key])
        if its == each.rows[0].event_id:
            yield named(Kind.CHANGED_EVENT, each, untouched)
            return
        yield named(Kind.MISSING_EVENT, each, untouched)
        if its is None:
            yield Sighting(Kind.UNREADABLE_LINE, each.sequence, each.key)
        else:
            # The bit made it the id of another event, most likely of none.
            positions = {row.event_id: row.position for row in untouched.rows.values()}
            yield Sighting(Kind.UNKNOWN_EVENT, each.sequence, each.key, its, positions.get(its))


@dataclass(frozen=True)
class WrongTrailer(Damage):
    """A gzip file ends in another checksum or size than its content has."""

    target: int
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        body = picture.objects.get(key, b"")
        if len(body) < _GZIP_TRAILER:
            return False
        picture.objects[key] = body[:-_GZIP_TRAILER] + bytes(
            byte ^ 0x55 for byte in body[-_GZIP_TRAILER:]
        )
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        yield changed(untouched.target(self.target), untouched)


@dataclass(frozen=True)
class Garbage(Damage):
    """Something follows a gzip file that is no gzip, or the start of another one."""

    target: int
    text: bytes
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        if key not in picture.objects:
            return False
        picture.objects[key] += self.text
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        yield changed(untouched.target(self.target), untouched)


@dataclass(frozen=True)
class Recompress(Damage):
    """The same content is packed anew: told, and no difference.

    In two members, cut anywhere, or one, and padded with zeros or not, as gzip allows.
    """

    target: int
    level: int
    padding: int
    cut: int
    layouts = LINES

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        content = picture.content(key)
        if content is None:
            return False
        members = (content[: self.cut], content[self.cut :]) if self.cut else (content,)
        body = b"".join(packed(member, self.level) for member in members)
        picture.objects[key] = body + bytes(self.padding)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # the same at both
        each = untouched.target(self.target)
        yield Sighting(Kind.RECOMPRESSED, each.sequence, each.key)


@dataclass(frozen=True)
class Duplicate(Damage):
    """An object lies under another name too."""

    target: int
    name_as: str

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        if key not in picture.objects:
            return False
        picture.objects[picture.named(self.name_as)] = picture.objects[key]
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each, key = untouched.target(self.target), untouched.named(self.name_as)
        yield Sighting(Kind.UNKNOWN_FILE, None, key)
        if level == "events" and key.endswith(f".{untouched.facts.layout}"):
            yield from events(Kind.DUPLICATE_EVENT, each, key, None)


@dataclass(frozen=True)
class Rename(Damage):
    """An object lies under another name, and not under its own."""

    target: int
    name_as: str

    def plant(self, picture: Picture) -> bool:
        copied = Duplicate(self.target, self.name_as).plant(picture)
        return copied and Delete(self.target).plant(picture)

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        yield from Delete(self.target).expected(untouched, level)
        yield from Duplicate(self.target, self.name_as).expected(untouched, level)


@dataclass(frozen=True)
class Add(Damage):
    """An object that nobody knows is there: with an unknown event, or with none."""

    spare: int
    name_as: str
    content: bytes | None

    def plant(self, picture: Picture) -> bool:
        picture.objects[picture.named(self.name_as)] = self._body(picture)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        key = untouched.named(self.name_as)
        yield Sighting(Kind.UNKNOWN_FILE, None, key)
        if level == "events" and self.content is None and not key.endswith(".bak"):
            row = untouched.facts.spare[self.spare % len(untouched.facts.spare)]
            yield Sighting(Kind.UNKNOWN_EVENT, None, key, row.event_id)

    def _body(self, picture: Picture) -> bytes:
        if self.content is not None:
            return self.content
        row = picture.facts.spare[self.spare % len(picture.facts.spare)]
        packs = self.name_as.endswith(".gz")
        return packed(row.payload + b"\n") if packs else row.payload


@dataclass(frozen=True)
class AddTest(Damage):
    """A connection test leaves its object behind, which is nobody's damage."""

    number: int

    def plant(self, picture: Picture) -> bool:
        picture.objects[picture.named(f"auditstore_verification_{self.number}.txt")] = b"test"
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:  # noqa: ARG002  # nothing
        return iter(())


@dataclass(frozen=True)
class Swap(Damage):
    """Two objects have each other's content."""

    one: int
    other: int

    def plant(self, picture: Picture) -> bool:
        first, second = (each.key for each in self._pair(picture))
        if not {first, second} <= picture.objects.keys():
            return False
        bodies = picture.objects
        bodies[first], bodies[second] = bodies[second], bodies[first]
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        pair = self._pair(untouched)
        for each, other in (pair, pair[::-1]):
            yield changed(each, untouched)
            if level == "events":
                yield from events(Kind.MISSING_EVENT, each, each.key, each.sequence)
                yield from events(Kind.DUPLICATE_EVENT, other, each.key, each.sequence)

    def _pair(self, picture: Picture) -> tuple[Delivered, Delivered]:
        count = len(picture.facts.delivered)
        step = 1 + self.other % (count - 1)
        return picture.target(self.one), picture.target(self.one + step)


@dataclass(frozen=True)
class LineEnd(Damage):
    """An event's object ends in a line end, which the event has not."""

    target: int
    layouts = OBJECTS

    def plant(self, picture: Picture) -> bool:
        key = picture.target(self.target).key
        if key not in picture.objects:
            return False
        picture.objects[key] += b"\n"
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        each = untouched.target(self.target)
        yield changed(each, untouched)
        if level == "events":
            yield named(Kind.CHANGED_EVENT, each, untouched)


@dataclass(frozen=True)
class Merge(Damage):
    """Two events of a file lie in the object of the first, as two lines; the second has none.

    Laid end to end with a line end behind each, the objects are what was delivered.
    """

    target: int
    layouts = OBJECTS

    def plant(self, picture: Picture) -> bool:
        first, second = (each.key for each in self._pair(picture))
        if not {first, second} <= picture.objects.keys():
            return False
        picture.objects[first] += b"\n" + picture.objects.pop(second)
        return True

    def expected(self, untouched: Picture, level: Level) -> Iterator[Sighting]:
        first, second = self._pair(untouched)
        yield changed(first, untouched)
        yield missing(second, untouched)
        if level == "events":
            yield named(Kind.MISSING_EVENT, first, untouched)
            yield Sighting(Kind.UNREADABLE_LINE, first.sequence, first.key)

    def _pair(self, picture: Picture) -> tuple[Delivered, Delivered]:
        first = picture.target(self.target)
        of_file = [each for each in picture.facts.delivered if each.sequence == first.sequence]
        at = min(of_file.index(first), len(of_file) - 2)
        return of_file[at], of_file[at + 1]
