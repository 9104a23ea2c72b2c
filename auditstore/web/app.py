"""What `auditstore serve` serves: the console and the API, put together with the accounts."""

from __future__ import annotations

from sqlalchemy import Engine
from starlette.types import ASGIApp, Receive, Scope, Send

from auditstore.vault import Vault
from auditstore.web.api.app import ROOTS, create_api
from auditstore.web.api.state import Api, ApiSettings
from auditstore.web.console.app import Headers, create_console
from auditstore.web.console.reconcile_jobs import ReconcileJobs
from auditstore.web.gate import AccountsGate


def create_app(engine: Engine, vault: Vault, settings: ApiSettings | None = None) -> ASGIApp:
    """The ASGI application on a database; its lifespan ends what it has begun."""
    jobs = ReconcileJobs(engine, vault)
    return _SideBySide(
        create_console(engine, vault, AccountsGate(engine), jobs),
        # Around all of it, so that an error that nobody expected has the headers too.
        Headers(create_api(Api(engine, vault, jobs, settings or ApiSettings()))),
    )


class _SideBySide:
    """Which of the two a path belongs to; the lifespan is the console's."""

    def __init__(self, console: ASGIApp, api: ASGIApp) -> None:
        self._console = console
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        path = scope.get("path", "")
        is_api = any(path == root or path.startswith(f"{root}/") for root in ROOTS)
        app = self._api if is_api and scope["type"] == "http" else self._console
        await app(scope, receive, send)
