"""Every kind of damage, alone and in random combinations: all of it is found, none invented.

A world (a real database, a stream, a store filled by the real exporter) is made once a test and
mended after each case. What must be found is said twice: by each damage for itself, and by
``expectation`` for any picture; both must agree with the product.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from reconciliation.damage.catalogue import KINDS, around, kinds
from reconciliation.damage.checking import LEVELS, Checker, compare
from reconciliation.damage.damages import Damage
from reconciliation.damage.damages_database import ALTERATIONS, AlterFile, EditRow
from reconciliation.damage.damages_objects import Delete, Duplicate
from reconciliation.damage.expectation import Sighting, expectation
from reconciliation.damage.picture import Layout

from auditstore.reconciliation import Kind

MakeChecker = Callable[[str, Layout], Checker]
LAYOUTS: tuple[Layout, ...] = ("ndjson.gz", "json")
QUICK: list[tuple[str, Layout]] = [("memory", "ndjson.gz"), ("folder", "json")]
#: Cases around each kind of damage; over 900 in all, besides each kind alone.
CASES = {"memory": 6, "folder": 5, "s3": 3, "azure": 3}
EVERYWHERE = [(store, layout) for store in CASES for layout in LAYOUTS]


def combined(checker: Checker, cases: int) -> None:
    """So many cases around each kind of damage, drawn by a seed that is told."""
    seed = int(os.environ.get("AUDITSTORE_DAMAGE_SEED", "1"))
    cases = int(os.environ.get("AUDITSTORE_DAMAGE_CASES", str(cases)))
    print(f"seed {seed}, {cases} cases a kind; AUDITSTORE_DAMAGE_SEED and _CASES change them")
    layout = checker.world.untouched.facts.layout
    before = checker.cases
    for number, kind in enumerate(kinds(layout)):
        combined_around(checker, kind, seed=1000 * seed + number, cases=cases)
    checker.see_it_whole()
    checker.see_all_kinds()
    print(checker.told())
    assert checker.cases - before >= cases * len(kinds(layout))


def combined_around(checker: Checker, kind: type[Damage], *, seed: int, cases: int) -> None:
    """One kind of damage amid others."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck), print_blob=True,
    )  # fmt: skip
    @given(around(kind, checker.world.untouched.facts.layout))
    def case(damages: list[Damage]) -> None:
        checker.tell(checker.check(damages))

    case()


def each_alone(checker: Checker) -> None:
    """One of each kind, and each alteration of the ledger; the damage says what it must be."""
    of_layout = kinds(checker.world.untouched.facts.layout)
    made = [drawn(kind) for kind in of_layout]
    made += [AlterFile(file, what) for file, what in enumerate(ALTERATIONS)]
    for damage in made:
        picture = checker.world.untouched.copy()
        assert damage.plant(picture), damage
        for level in LEVELS:
            said = Counter(damage.expected(checker.world.untouched, level))
            compare(said, expectation(picture, level), f"{damage} as modelled, {level}")
        checker.check([damage])
    checker.see_it_whole()


def drawn(kind: type[Damage]) -> Damage:
    """Always the same one of a kind."""
    found: list[Damage] = []

    @hypothesis.seed(1)
    @settings(max_examples=2, database=None, phases=(Phase.generate,))
    @given(KINDS[kind])
    def draw(damage: Damage) -> None:
        found.append(damage)

    draw()
    return found[-1]


@pytest.mark.parametrize(("store", "layout"), QUICK)
def test_damage(make_checker: MakeChecker, store: str, layout: Layout) -> None:
    """Each kind of damage is found as what it is, and whatever else is planted beside it."""
    checker = make_checker(store, layout)
    each_alone(checker)
    combined(checker, 2)


@pytest.mark.long
@pytest.mark.parametrize(("store", "layout"), EVERYWHERE)
def test_damage_everywhere(make_checker: MakeChecker, store: str, layout: Layout) -> None:
    """Every kind of damage, and hundreds of combinations, on each store and layout."""
    checker = make_checker(store, layout)
    each_alone(checker)
    combined(checker, CASES[store])


# --- the suite itself -------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_expected_is_noticed(make_checker: MakeChecker, layout: Layout) -> None:
    """Where damage is planted and the model is told nothing, the findings count as invented."""
    checker = make_checker("memory", layout)
    picture = checker.world.untouched.copy()
    assert Delete(1).plant(picture)
    checker.world.become(picture)
    with pytest.raises(AssertionError, match=r"invented Sighting.*missing-file"):
        checker.see_it_whole()
    checker.world.mend()
    checker.see_it_whole()


def test_what_is_not_found_is_noticed(make_checker: MakeChecker) -> None:
    """Where the model expects damage that nobody planted, it counts as missed."""
    checker = make_checker("memory", "ndjson.gz")
    picture = checker.world.untouched.copy()
    assert EditRow(1, "outbox 1").plant(picture)
    found, _ = checker.world.compare("events")
    with pytest.raises(AssertionError, match=r"missed Sighting.*changed-event"):
        compare(expectation(picture, "events"), found, "nothing planted")


def test_another_name_is_noticed(make_checker: MakeChecker) -> None:
    """A finding of the right kind with another key is one missed and one invented."""
    checker = make_checker("memory", "json")
    picture = checker.world.untouched.copy()
    assert Duplicate(1, "stray/3.json").plant(picture)
    checker.world.become(picture)
    found, _ = checker.world.compare("files")
    with pytest.raises(AssertionError, match=r"missed Sighting[^\n]*\ninvented Sighting"):
        compare(Counter([Sighting(Kind.UNKNOWN_FILE, None, "elsewhere")]), found, "renamed")
