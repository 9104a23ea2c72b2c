"""The soak, for a moment: that it runs, injects and finds nothing. Its half hour is by hand."""

from __future__ import annotations

import pytest
from support.azurite import Azurite
from support.fault_run import chosen_seed
from support.postgres import Cluster

from tests.faults import soak

pytestmark = pytest.mark.long


def test_a_short_soak_is_clean(
    restartable_cluster: Cluster, moto_server: str, azurite_server: Azurite
) -> None:
    """One round of a few steps, with a seed by chance."""
    total = soak.Total()
    servers = soak.Servers(restartable_cluster, moto_server, azurite_server)
    soak.soak_round(servers, chosen_seed(), total, steps=2)
    assert total.faults.total() >= 2
    assert total.events
    print(total)
