"""Random combinations of damage: exactly what was planted is found."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import snapshots
from support.ledger_builder import FLOW, Scene
from support.stores import Place

from auditstore.ledger import LedgerFile
from auditstore.reconciliation import Kind

FILES, EVENTS = 4, 4

# Edits of lines, applied in this order; each names its event by number.
EDITS = ("drop", "alter", "repeat")


@st.composite
def file_damage(draw: st.DrawFn) -> object:
    """What is done to one file: nothing, the whole of it, or its lines."""
    whole = draw(st.sampled_from(["intact", "deleted", "cut", "recompressed", "edited"]))
    if whole != "edited":
        return whole
    edits = draw(st.dictionaries(st.integers(0, EVENTS - 1), st.sampled_from(EDITS)))
    strangers = draw(st.integers(0, 2))
    nonsense = draw(st.integers(0, 2))
    swap = draw(st.booleans())
    return (edits, strangers, nonsense, swap)


class Planted:
    """Damages a file and knows what that should be found as."""

    def __init__(self, scene: Scene, file: LedgerFile, original: bytes) -> None:
        self._scene = scene
        self._key = file.sealed.object_key
        self._original = original
        self.at_files: Counter[Kind] = Counter()
        self.at_events: Counter[Kind] = Counter()

    def damage(self, how: object) -> None:
        body: bytes | None = self._original
        if how == "deleted":
            body = None
            self._both(Kind.MISSING_FILE)
        elif how == "cut":
            body = self._original[:-5]
            self._both(Kind.CHANGED_FILE)
        elif how == "recompressed":
            body = gzip.compress(gzip.decompress(self._original))
            self._both(Kind.RECOMPRESSED)
        elif isinstance(how, tuple):
            body = self._edit(*how)
        if body is None:
            self._scene.vandal.delete(self._key)
        else:
            self._scene.vandal.write(self._key, body)

    def _edit(self, edits: dict[int, str], strangers: int, nonsense: int, swap: bool) -> bytes:
        original = gzip.decompress(self._original).splitlines()
        lines: list[bytes] = []
        repeated: list[bytes] = []
        for number, line in enumerate(original):
            edit = edits.get(number)
            if edit == "drop":
                self.at_events[Kind.MISSING_EVENT] += 1
            elif edit == "alter":
                lines.append(line.replace(b"recipient", b"filter"))
                self.at_events[Kind.CHANGED_EVENT] += 1
            else:
                lines.append(line)
            if edit == "repeat":
                repeated.append(line)
                self.at_events[Kind.DUPLICATE_EVENT] += 1
        if swap:
            lines.reverse()
        lines += repeated
        lines += [snapshots.snapshot(flow=FLOW) for _ in range(strangers)]
        lines += [b"nonsense"] * nonsense
        self.at_events[Kind.UNKNOWN_EVENT] += strangers
        self.at_events[Kind.UNREADABLE_LINE] += nonsense
        content = b"".join(line + b"\n" for line in lines)
        changed = content != gzip.decompress(self._original)
        self._both(Kind.CHANGED_FILE if changed else Kind.RECOMPRESSED)
        return gzip.compress(content)

    def _both(self, kind: Kind) -> None:
        self.at_files[kind] += 1
        self.at_events[kind] += 1


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A scene in a folder."""
    return Scene(engine, folder_place)


def test_combinations(scene: Scene) -> None:
    """Whatever is planted in several files at once is found, at both levels, and no more."""
    stream = scene.stream(max_events=EVENTS)
    scene.append(FILES * EVENTS)
    files = scene.deliver(stream)
    originals = [scene.vandal.read(file.sealed.object_key) for file in files]
    root = Path(scene.place.destination.bucket)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*[file_damage()] * FILES), st.integers(0, 2))
    def check(damages: tuple[object, ...], strays: int) -> None:
        planted = [
            Planted(scene, file, original) for file, original in zip(files, originals, strict=True)
        ]
        for each, file, original, how in zip(planted, files, originals, damages, strict=True):
            scene.vandal.write(file.sealed.object_key, original)
            each.damage(how)
        for number in range(2):
            (root / f"stray-{number}").unlink(missing_ok=True)
            if number < strays:
                scene.vandal.write(f"stray-{number}", b"")
        unknown = Counter({Kind.UNKNOWN_FILE: strays})
        for level in ("files", "events"):
            expected = sum((getattr(each, f"at_{level}") for each in planted), unknown)
            findings, summary = scene.compare(stream, level=level)
            assert Counter(each.kind for each in findings) == +expected
            assert summary.result == (
                "differences" if any(kind.is_difference for kind in +expected) else "reconciled"
            )

    check()
