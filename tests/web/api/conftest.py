"""The API on a fresh database, served as `auditstore serve` serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from support.asgi_server import serving

from auditstore import accounts
from auditstore.accounts import Role
from auditstore.vault import Vault, new_key
from auditstore.web.api.state import ApiSettings
from auditstore.web.app import create_app


@pytest.fixture
def settings() -> ApiSettings:
    """No limit that a test runs into unasked."""
    return ApiSettings(rate=10_000, burst=10_000)


@pytest.fixture
def vault() -> Vault:
    """The key under which secrets are kept."""
    return Vault([new_key()])


@pytest.fixture
def api_url(engine: sa.Engine, vault: Vault, settings: ApiSettings) -> Iterator[str]:
    """The server's address."""
    with serving(create_app(engine, vault, settings)) as url:
        yield url


@pytest.fixture
def new_api_key(engine: sa.Engine) -> Callable[..., str]:
    """Makes a key."""

    def made(role: Role = "administrator", flows: Sequence[str] | None = None) -> str:
        with engine.begin() as connection:
            _, key = accounts.add_key(
                connection, name=f"a-{role}", role=role, flows=flows, lasts=None, actor="test"
            )  # fmt: skip
        return key

    return made


@pytest.fixture
def client_of(api_url: str) -> Iterator[Callable[[str], httpx.Client]]:
    """A program that calls with a key."""
    with ExitStack() as stack:
        yield lambda key: stack.enter_context(
            httpx.Client(base_url=api_url, auth=("API", key), timeout=30)
        )


@pytest.fixture
def client(
    client_of: Callable[[str], httpx.Client], new_api_key: Callable[..., str]
) -> httpx.Client:
    """A program that may do everything."""
    return client_of(new_api_key())


@pytest.fixture
def refused() -> Callable[..., dict[str, Any]]:
    """A response that must be a problem of this status; what it says."""

    def check(response: httpx.Response, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        said: dict[str, Any] = response.json()
        assert said["status"] == status
        assert said["detail"] == said["message"]
        assert said["message"]
        return said

    return check
