"""The console on a fresh database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from support.console_server import PEOPLE, Browser, FewPeople, serving_console

from auditstore.vault import Vault, new_key


@pytest.fixture
def keys() -> tuple[str, ...]:
    """The key under which the console keeps secrets."""
    return (new_key(),)


@pytest.fixture
def people() -> FewPeople:
    """An administrator, an operator, a viewer, and an operator of one flow."""
    return FewPeople(*PEOPLE)


@pytest.fixture
def console_url(engine: sa.Engine, keys: tuple[str, ...], people: FewPeople) -> Iterator[str]:
    """The console's address."""
    with serving_console(engine, Vault(keys), people) as url:
        yield url


@pytest.fixture
def come_in(console_url: str) -> Iterator[Callable[[str], Browser]]:
    """Opens a browser for one of the people."""
    with ExitStack() as stack:

        def opened(name: str) -> Browser:
            browser = Browser(console_url, name)
            stack.callback(browser.http.close)
            return browser

        yield opened


@pytest.fixture
def ada(come_in: Callable[[str], Browser]) -> Browser:
    """The administrator's browser."""
    return come_in("ada")
