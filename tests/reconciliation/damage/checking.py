"""One case: damages are planted, both levels compared, and everything is mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from hypothesis import event
from reconciliation.damage.catalogue import kinds
from reconciliation.damage.damages import Damage
from reconciliation.damage.expectation import Level, Sighting, expectation, possible
from reconciliation.damage.picture import Picture
from reconciliation.damage.world import World

from auditstore.reconciliation import Workers

LEVELS: Final[tuple[Level, ...]] = ("files", "events")
#: After so many cases it is seen that mending leaves nothing behind.
_MENDED_EVERY: Final = 10


class Checker:
    """Checks cases in one world, and counts which kinds of damage were planted there."""

    def __init__(self, world: World, workers: Workers) -> None:
        self.world = world
        self._workers = workers
        self.cases = 0
        self.planted: Counter[str] = Counter()

    def check(self, damages: Sequence[Damage]) -> list[Damage]:
        """Plant what can be, and find exactly that; what was planted."""
        picture = self.world.untouched.copy()
        planted = [damage for damage in damages if damage.plant(picture)]
        self.cases += 1
        self.planted.update(damage.name for damage in planted)
        self.find(picture, planted)
        if self.cases % _MENDED_EVERY == 0:
            self.see_it_whole()
        return planted

    def find(self, picture: Picture, planted: Sequence[Damage]) -> None:
        """The product finds in the picture what must be found, at both levels, and no more."""
        try:
            self.world.become(picture)
            for level in LEVELS:
                expected = expectation(picture, level)
                # Every second case is read ahead by threads: what is found is the same.
                workers = self._workers if self.cases % 2 else None
                found, summary = self.world.compare(level, workers)
                # Of what may be told or not, take what was.
                also = (found - expected) & possible(picture, level)
                compare(expected + also, found, f"at the level {level}, with {planted}")
                clean = not any(each.kind.is_difference for each in expected)
                assert summary.result == ("reconciled" if clean else "differences"), planted
        finally:
            self.world.mend()

    def see_it_whole(self) -> None:
        """Nothing is found where nothing is planted."""
        for level in LEVELS:
            found, summary = self.world.compare(level)
            compare(Counter(), found, f"at the level {level}, mended")
            assert summary.events_matched == summary.events_expected > 0

    def see_all_kinds(self) -> None:
        """Every kind that the layout can have was planted."""
        never = {kind.__name__ for kind in kinds(self.world.untouched.facts.layout)}
        never -= self.planted.keys()
        assert not never, f"never planted in {self.cases} cases: {sorted(never)}"

    def told(self) -> str:
        """How often each kind was planted."""
        return f"{self.cases} cases; " + ", ".join(
            f"{name} {count}" for name, count in sorted(self.planted.items())
        )

    @staticmethod
    def tell(planted: Sequence[Damage]) -> None:
        """For Hypothesis' statistics (``--hypothesis-show-statistics``)."""
        for name in sorted({damage.name for damage in planted}):
            event(f"planted {name}")
        event(f"{len(planted)} at once")


def compare(expected: Counter[Sighting], found: Counter[Sighting], where: str) -> None:
    """Fail with what was missed and what was made up, by name."""
    missed, invented = expected - found, found - expected
    said = [f"missed {each} x{count}" for each, count in missed.items()]
    said += [f"invented {each} x{count}" for each, count in invented.items()]
    assert not said, f"{where}:\n" + "\n".join(said)
