"""Breadth-first through every state that a world can come to; nothing is sampled."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Found(Generic[S]):
    """A promise that does not hold, and a shortest way there from the beginning."""

    problem: str
    steps: tuple[str, ...]
    state: S

    def __str__(self) -> str:
        """The way, a line a step."""
        lines = [f"{number:3}. {step}" for number, step in enumerate(self.steps, 1)]
        return "\n".join([*lines, f"  => {self.problem}"])


@dataclass(frozen=True)
class Exploration(Generic[S]):
    """How much was explored: all there is, unless something was ``found`` on the way."""

    states: int
    transitions: int
    depth: int
    found: Found[S] | None

    def __str__(self) -> str:
        """The figures in a line."""
        return f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}"


def explore(
    initial: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    *,
    broken: Callable[[S], str | None],
    done: Callable[[S], bool],
    alike: Callable[[S], Hashable] = lambda state: state,
) -> Exploration[S]:
    """Visit every state; stop at the first that is ``broken``, else at one that can never be
    ``done`` any more.

    States with equal ``alike`` differ in names only; one of them is followed.
    """
    number = {alike(initial): 0}
    states, came_from, by = [initial], array("q", [-1]), [""]
    sources, targets = array("q"), array("q")
    depth_ends, depth, at = 1, 0, 0

    def found(index: int, problem: str) -> Exploration[S]:
        way, end = [], states[index]
        while index > 0:
            way.append(by[index])
            index = came_from[index]
        return Exploration(
            len(states), len(targets), len(way), Found(problem, tuple(reversed(way)), end)
        )

    while at < len(states):
        if at == depth_ends:
            depth, depth_ends = depth + 1, len(states)
        if problem := broken(states[at]):
            return found(at, problem)
        for label, after in steps(states[at]):
            key = alike(after)
            index = number.get(key)
            if index is None:
                index = number[key] = len(states)
                states.append(after)
                came_from.append(at)
                by.append(label)
            sources.append(at)
            targets.append(index)
        at += 1

    stuck = _never_done([done(state) for state in states], sources, targets)
    if stuck is not None:
        return found(stuck, "from here on it is NEVER DELIVERED, whatever happens")
    return Exploration(len(states), len(targets), depth, None)


def _never_done(done: list[bool], sources: array[int], targets: array[int]) -> int | None:
    """The first state from which no done one can be reached: walked backwards from those."""
    # The edges into each state, laid end to end.
    starts = array("q", bytes(8 * (len(done) + 1)))
    for target in targets:
        starts[target + 1] += 1
    for index in range(len(done)):
        starts[index + 1] += starts[index]
    into, filled = array("q", bytes(8 * len(targets))), array("q", starts)
    for source, target in zip(sources, targets, strict=True):
        into[filled[target]] = source
        filled[target] += 1

    reached = bytearray(done)
    waiting = [index for index, is_done in enumerate(done) if is_done]
    while waiting:
        index = waiting.pop()
        for source in into[starts[index] : starts[index + 1]]:
            if not reached[source]:
                reached[source] = 1
                waiting.append(source)
    return None if all(reached) else reached.index(0)
