"""Every state of small worlds is visited: the protocol holds in each, and fails without a guard."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

import pytest

from model.explorer import Exploration, explore
from model.mutants import MUTANTS, SECOND_LINES, Mutant, SecondLine
from model.settings import GUARDS, Guards, Settings
from model.state import State
from model.world import check
from model.worlds import WORLDS

known = cache(check)


def explored(name: str, settings: Settings) -> Exploration[State]:
    """Explore a world, and print what was seen of it."""
    began = time.process_time()
    exploration = known(settings)
    print(f"{name}: {exploration}, {time.process_time() - began:.1f} s")
    if exploration.found:
        print(exploration.found)
    return exploration


@pytest.mark.parametrize("name", WORLDS)
def test_every_promise_holds_in_every_state(name: str) -> None:
    """Nothing is skipped, doubled or overwritten, and delivery stays within reach."""
    exploration = explored(name, WORLDS[name])
    assert not exploration.found, f"\n{exploration.found}"
    assert exploration.states > 1000, "the world is too small to show anything"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: "+".join(mutant.without))
def test_without_a_guard_something_goes_wrong(mutant: Mutant) -> None:
    """Each guard is needed: without it there is a way to harm, and a shortest one is printed."""
    exploration = explored(f"without {', '.join(mutant.without)}", mutant.settings)
    assert exploration.found, "the model is too weak to miss this guard"
    assert mutant.problem in exploration.found.problem
    assert not known(mutant.world).found, "this world is broken with the guard, too"


@pytest.mark.parametrize("line", SECOND_LINES, ids=lambda line: line.guard)
def test_a_second_line_of_defence_is_needed_only_behind_the_first(line: SecondLine) -> None:
    """Alone its absence harms nothing; with the first line gone too, it does what it says."""
    alone = replace(line.world, guards=Guards().without(line.guard))
    assert not explored(f"without {line.guard}", alone).found
    first = replace(line.world, guards=Guards().without(*line.behind))
    without_first = explored(f"without {', '.join(line.behind)}", first).found
    assert without_first is None or line.problem not in without_first.problem
    both = replace(line.world, guards=Guards().without(line.guard, *line.behind))
    found = explored(f"without {line.guard}, {', '.join(line.behind)}", both).found
    assert found
    assert line.problem in found.problem


def test_every_guard_is_switched_off_somewhere() -> None:
    """No guard of the model goes untested."""
    tested = {name for mutant in MUTANTS for name in mutant.without}
    tested |= {line.guard for line in SECOND_LINES}
    assert tested == set(GUARDS)


# --- the explorer itself ------------------------------------------------------------


def counter(state: int) -> list[tuple[str, int]]:
    """From 0 up to 9 by steps of one or two; from 7 there is no way on."""
    return [] if state == 7 else [(f"+{by}", state + by) for by in (1, 2) if state + by < 10]


def test_the_explorer_finds_a_shortest_way() -> None:
    """Breadth first: of all ways to what is broken it shows one of the shortest."""
    found = explore(0, counter, broken={5: "five"}.get, done=bool).found
    assert found
    assert (found.problem, len(found.steps), found.state) == ("five", 3, 5)


def test_the_explorer_finds_a_dead_end() -> None:
    """A state from which nothing done can be reached is shown; elsewhere nothing is."""
    nothing: dict[int, str] = {}
    stuck = explore(0, counter, broken=nothing.get, done={9}.__contains__)
    assert stuck.found
    assert stuck.found.state == 7
    free = explore(0, counter, broken=nothing.get, done={7, 9}.__contains__)
    assert free.found is None
    assert (free.states, free.transitions) == (10, 15)
