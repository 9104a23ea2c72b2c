"""Worlds to damage: each kind of store, in each layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from reconciliation.damage.checking import Checker
from reconciliation.damage.hands import MemoryHands, hands_on
from reconciliation.damage.picture import Layout
from reconciliation.damage.world import World

MakeChecker = Callable[[str, Layout], Checker]


@pytest.fixture
def make_checker(engine: sa.Engine, request: pytest.FixtureRequest) -> Iterator[MakeChecker]:
    """Makes a world on a kind of store (``memory``, ``folder``, ``s3``, ``azure``)."""
    with ExitStack() as stack:

        def make(store: str, layout: Layout) -> Checker:
            if store == "memory":
                return Checker(World(engine, MemoryHands(), layout))
            place = request.getfixturevalue(f"{store}_place")
            return Checker(World(engine, stack.enter_context(hands_on(place)), layout))

        yield make
