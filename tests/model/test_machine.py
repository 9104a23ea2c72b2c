"""The real exporters, writers and database, step by step in orders that Hypothesis makes up.

What the model takes for granted is tried here: that the product's steps are the model's.
"""

from __future__ import annotations

import os
from collections import Counter

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from support.fixtures_postgres import Database

from model.machine import BETWEEN, GATES, Protocol

EXAMPLES = 30
STEPS = 50


@pytest.mark.timeout(600)
def test_the_real_exporters_keep_every_promise_in_any_order(database: Database) -> None:
    """Late commits, rollbacks, prepared transactions, kills at every gate, cuts, late requests."""
    seed = int(os.environ.get("AUDITSTORE_MODEL_SEED", "1"))
    examples = int(os.environ.get("AUDITSTORE_MODEL_EXAMPLES", str(EXAMPLES)))
    print(f"seed {seed}, {examples} examples; AUDITSTORE_MODEL_SEED and _EXAMPLES change them")
    seen: Counter[str] = Counter()

    @hypothesis.seed(seed)
    class Seeded(Protocol):
        pass

    Seeded.database, Seeded.seen = database, seen
    run_state_machine_as_test(
        Seeded,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            # Shrinking takes minutes; the steps of what was found are printed in any case.
            phases=[
                Phase.generate,
                *([Phase.shrink] if "AUDITSTORE_MODEL_SHRINK" in os.environ else []),
            ],
            suppress_health_check=list(HealthCheck),
        ),
    )
    for what, count in sorted(seen.items()):
        print(f"{count:6} {what}")
    for gate in GATES:
        assert seen[f"killed at {gate}"], f"none was killed at {gate}"
    for what in (
        *(f"a writer {what} between the fence's two questions" for what in BETWEEN),
        "connections cut", "requests of the dead, first", "requests of the dead, too late",
        "objects found there already", "stood at blocked",
        "turns that ended with the database away",
    ):  # fmt: skip
        assert seen[what], f"the examples never came to: {what}"
    assert seen["files delivered"] > 2 * examples
