"""The lock fence, as ``exporters.fence.Fence.advance`` does it: two questions, then arithmetic."""

from __future__ import annotations

from .server import open_writers
from .settings import Settings
from .state import Fence, Mark, State

# The product keeps 64; with few positions a smaller number is what shows the thinning.
_KEPT = 2


def ask_first(state: State, settings: Settings, fence: Fence) -> Fence:
    """The first statement: the position handed out last, and the run."""
    if settings.guards.position_before_writers:
        asked: tuple[object, ...] = (state.tables.high, state.run)
    else:
        asked = (open_writers(state, settings), state.run)
    # A snapshot that is already there when the second question is asked, to be read in later.
    view = () if settings.guards.fresh_snapshot else state.tables.rows
    return fence._replace(asked=asked, view=view)


def ask_second(state: State, settings: Settings, fence: Fence) -> Fence:
    """The second statement: the writers, and the run; and what follows from both."""
    first, run = fence.asked
    if settings.guards.position_before_writers:
        position, writers = first, open_writers(state, settings)
    else:
        position, writers = state.tables.high, first
    assert isinstance(position, int)
    assert isinstance(writers, tuple)
    fence = fence._replace(asked=())
    if not settings.guards.fence_forgets_old_runs:
        fence = fence._replace(run=state.run)
    elif not fence.run == run == state.run:
        fence = fence._replace(run=state.run, position=0, marks=())
        if run != state.run:
            return fence
    if not settings.guards.writers_waited_for:
        return fence._replace(position=position)
    return _advanced(fence, position, writers)


def _advanced(fence: Fence, position: int, writers: tuple[int, ...]) -> Fence:
    marks = [
        Mark(mark.position, tuple(each for each in mark.writers if each in writers))
        for mark in fence.marks
    ]
    if not marks or marks[-1].position != position:
        marks.append(Mark(position, writers))
    safe = fence.position
    for index in range(len(marks) - 1, -1, -1):
        if not marks[index].writers:
            safe = marks[index].position
            del marks[:index]
            break
    if len(marks) > _KEPT:
        marks = [*marks[:-1:2], marks[-1]]
    return fence._replace(position=safe, marks=tuple(marks))
