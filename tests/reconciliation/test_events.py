"""Damage inside of a file, line by line, in a folder."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from support import snapshots
from support.ledger_builder import Scene, kinds
from support.stores import Place

from auditstore.layout import join
from auditstore.reconciliation import Kind


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A scene in a folder."""
    return Scene(engine, folder_place)


def _stranger(lines: list[bytes]) -> list[bytes]:
    return [*lines, snapshots.snapshot(flow="flow-1")]


DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], list[Kind]]] = {
    "a line is gone": (lambda lines: lines[:2] + lines[3:], [Kind.MISSING_EVENT]),
    "the last line is gone": (lambda lines: lines[:-1], [Kind.MISSING_EVENT]),
    "all lines are gone": (lambda _: [], [Kind.MISSING_EVENT] * 6),
    "a line twice": (lambda lines: [*lines, lines[0]], [Kind.DUPLICATE_EVENT]),
    "a line thrice": (
        lambda lines: [lines[3], *lines, lines[3]],
        [Kind.DUPLICATE_EVENT, Kind.DUPLICATE_EVENT],
    ),
    "an altered line": (
        lambda lines: [lines[0].replace(b"recipient", b"filter"), *lines[1:]],
        [Kind.CHANGED_EVENT],
    ),
    "an altered line beside the true one": (
        lambda lines: [*lines, lines[0].replace(b"recipient", b"filter")],
        [Kind.CHANGED_EVENT],
    ),
    "a stranger": (_stranger, [Kind.UNKNOWN_EVENT]),
    "another order": (lambda lines: [lines[1], lines[0], *lines[2:]], []),
    "an empty line": (lambda lines: [*lines[:3], b"", *lines[3:]], [Kind.UNREADABLE_LINE]),
    "no JSON": (
        lambda lines: [*lines[:3], b"{oops", *lines[4:]],
        [Kind.MISSING_EVENT, Kind.UNREADABLE_LINE],
    ),
    "not UTF-8": (lambda lines: [*lines, b'{"id": "\xff"}'], [Kind.UNREADABLE_LINE]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_lines(scene: Scene, name: str) -> None:
    """Each kind of damage to a file's lines is found, beside the changed file, and no other."""
    damage, expected = DAMAGES[name]
    stream = scene.stream(max_events=6)
    scene.append(12)
    file, _ = scene.deliver(stream)
    scene.rewrite(file, damage(scene.lines(file)))

    findings, summary = scene.compare(stream)

    assert kinds(findings) == [Kind.CHANGED_FILE, *expected]
    assert {each.sequence for each in findings} == {1}
    assert summary.files_matched == 1


def test_event_of_another_file(scene: Scene) -> None:
    """An event that a second file holds too is a duplicate there, named with its position."""
    stream = scene.stream(max_events=2)
    ids = scene.append(4)
    first, second = scene.deliver(stream)
    scene.rewrite(second, [*scene.lines(second), scene.lines(first)[0]])

    findings, _ = scene.compare(stream)

    assert kinds(findings) == [Kind.CHANGED_FILE, Kind.DUPLICATE_EVENT]
    assert (findings[1].event_id, findings[1].sequence) == (ids[0], 2)
    assert findings[1].position == first.sealed.first_position


def test_no_line_end(scene: Scene) -> None:
    """A last line without its end is a changed file, though every event is there."""
    stream = scene.stream()
    scene.append(3)
    (file,) = scene.deliver(stream)
    scene.rewrite(file, scene.lines(file), end=b"")

    (found,), summary = scene.compare(stream)

    assert found.kind is Kind.CHANGED_FILE
    assert "no line end" in found.detail
    assert summary.events_matched == 3


@pytest.mark.parametrize("level", ["files", "events"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"plain text",
        b"\x1f\x8b",
        gzip.compress(b"x" * 100_000)[:-9],
        gzip.compress(b"abc\n") + b"garbage",
        gzip.compress(b"abc\n")[:-8] + b"\0" * 8,
    ],
    ids=["empty", "no gzip", "only magic", "truncated", "garbage behind", "wrong checksum"],
)
def test_damaged_gzip(scene: Scene, body: bytes, level: str) -> None:
    """What cannot be decompressed is one changed file with the reason, never a crash."""
    stream = scene.stream()
    scene.append(3)
    (file,) = scene.deliver(stream)
    scene.vandal.write(file.sealed.object_key, body)

    (found,), _ = scene.compare(stream, level=level)

    assert found.kind is Kind.CHANGED_FILE
    assert "gzip" in found.detail


def test_truncated_real_file(scene: Scene) -> None:
    """A file cut at any of its ends is told as such."""
    stream = scene.stream()
    scene.append(4)
    (file,) = scene.deliver(stream)
    body = scene.vandal.read(file.sealed.object_key)
    for size in (0, 1, 5, 10, len(body) // 2, len(body) - 8, len(body) - 1):
        scene.vandal.write(file.sealed.object_key, body[:size])
        assert kinds(scene.compare(stream)[0]) == [Kind.CHANGED_FILE], size


def test_padding_is_no_damage(scene: Scene) -> None:
    """Zeros behind a gzip file are padding, as gzip itself takes them."""
    stream = scene.stream()
    scene.append(4)
    (file,) = scene.deliver(stream)
    key = file.sealed.object_key
    scene.vandal.write(key, scene.vandal.read(key) + b"\0" * 512)

    assert kinds(scene.compare(stream)[0]) == [Kind.RECOMPRESSED]


def test_unknown_file_with_known_events(scene: Scene) -> None:
    """A copy of a file under another name repeats its events; level files does not look inside."""
    stream = scene.stream()
    ids = scene.append(3)
    (file,) = scene.deliver(stream)
    body = scene.vandal.read(file.sealed.object_key)
    copy = join(scene.place.destination.prefix, "copy.ndjson.gz")
    scene.vandal.write(copy, body)
    scene.vandal.write(join(scene.place.destination.prefix, "x/one.json"), scene.lines(file)[1])

    assert kinds(scene.compare(stream, level="files")[0]) == [Kind.UNKNOWN_FILE] * 2
    findings, _ = scene.compare(stream)
    assert kinds(findings) == [Kind.UNKNOWN_FILE] * 2 + [Kind.DUPLICATE_EVENT] * 4
    assert [each.event_id for each in findings if each.kind is Kind.DUPLICATE_EVENT] == [
        *ids,
        ids[1],
    ]


def test_unknown_file_with_unknown_events(scene: Scene) -> None:
    """An unknown file may hold unknown events, other versions of known ones, and nonsense."""
    stream = scene.stream()
    scene.append(2)
    (file,) = scene.deliver(stream)
    altered = scene.lines(file)[0].replace(b"recipient", b"filter")
    body = gzip.compress(b"\n".join([altered, snapshots.snapshot(), b"nonsense", b""]))
    scene.vandal.write(join(scene.place.destination.prefix, "odd.ndjson.gz"), body)
    scene.vandal.write(join(scene.place.destination.prefix, "broken.ndjson.gz"), body[:40])

    findings, _ = scene.compare(stream)

    assert kinds(findings) == [Kind.UNKNOWN_FILE] * 2 + [Kind.UNKNOWN_EVENT] * 2


def test_name_that_is_not_utf8(scene: Scene) -> None:
    """A file with a name of arbitrary bytes is unknown like any other."""
    stream = scene.stream()
    scene.append(2)
    scene.deliver(stream)
    scene.vandal.write(join(scene.place.destination.prefix, "odd-\udcff\x1b[31m.json"), b"{}")

    assert kinds(scene.compare(stream)[0]) == [Kind.UNKNOWN_FILE]


def test_level_files_of_a_folder_reads(scene: Scene) -> None:
    """Where the store has no ETag, a file of the same size with other bytes is found."""
    stream = scene.stream()
    scene.append(4)
    (file,) = scene.deliver(stream)
    body = bytearray(scene.vandal.read(file.sealed.object_key))
    body[len(body) // 2] ^= 1
    scene.vandal.write(file.sealed.object_key, bytes(body))

    assert kinds(scene.compare(stream, level="files")[0]) == [Kind.CHANGED_FILE]
