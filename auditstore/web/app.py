"""What `auditstore serve` serves: the console, put together with the accounts."""

from __future__ import annotations

from sqlalchemy import Engine
from starlette.applications import Starlette

from auditstore.vault import Vault
from auditstore.web.console.app import create_console
from auditstore.web.gate import AccountsGate


def create_app(engine: Engine, vault: Vault) -> Starlette:
    """The ASGI application on a database; its lifespan ends what it has begun."""
    return create_console(engine, vault, AccountsGate(engine))
