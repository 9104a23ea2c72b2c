"""LeadConduit as a server of the tests' own, and views of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fake_leadconduit import KEY, FakeLeadConduit, running_leadconduit
from support.views import Waits

from auditstore.reconciliation.views.events_api import Access
from auditstore.reconciliation.views.leadconduit import LeadConduitView


@pytest.fixture
def leadconduit() -> Iterator[FakeLeadConduit]:
    """LeadConduit's API without any event."""
    with running_leadconduit() as fake:
        yield fake


@pytest.fixture
def waits() -> Waits:
    """A clock that only sleeping moves."""
    return Waits()


@pytest.fixture
def api_view(leadconduit: FakeLeadConduit, waits: Waits) -> Callable[..., LeadConduitView]:
    """Makes views of the fake LeadConduit that wait for nothing."""

    def make(*, key: str = KEY, **settings: Any) -> LeadConduitView:
        checkpoint = settings.pop("checkpoint", None)
        access = Access(key, leadconduit.url, **settings)
        return LeadConduitView(access, checkpoint=checkpoint, open_api=waits.open_api)

    return make
