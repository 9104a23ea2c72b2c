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

from auditstore.reconciliation.executors import threads

MakeChecker = Callable[[str, Layout], Checker]


@pytest.fixture
def make_checker(engine: sa.Engine, request: pytest.FixtureRequest) -> Iterator[MakeChecker]:
    """Makes a world on a kind of store (``memory``, ``folder``, ``s3``, ``azure``)."""
    workers = threads(2)
    with ExitStack() as stack:
        stack.callback(workers.close)

        def make(store: str, layout: Layout) -> Checker:
            if store == "memory":
                return Checker(World(engine, MemoryHands(), layout), workers)
            place = request.getfixturevalue(f"{store}_place")
            world = World(engine, stack.enter_context(hands_on(place)), layout)
            return Checker(world, workers)

        yield make
