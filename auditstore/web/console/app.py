"""The console as an ASGI application: which page is where, and what each one is allowed.

Handlers are sync and run in a thread; here is everything that must hold for all of them.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditstore.errors import AuditStoreError, DatabaseUnavailable, NotFound
from auditstore.vault import Vault
from auditstore.web.console import (
    activity,
    credentials,
    deliveries,
    events,
    flows,
    lead,
    reconcile,
    stream_dialog,
)
from auditstore.web.console.day_counts import DayCounts
from auditstore.web.console.gate import Entered, Gate
from auditstore.web.console.pages import Role, Visit, gate, link, shown
from auditstore.web.console.reconcile_jobs import ReconcileJobs

SESSION_COOKIE: Final = "auditstore_session"
_LOGIN_COOKIE: Final = "auditstore_login"
_MOST_FORM_BYTES: Final = 256 * 1024
_SESSION_S: Final = 12 * 3600

Handler = Callable[[Visit], Response]

#: Path, method, the least role, and what answers.
PAGES: Final[tuple[tuple[str, str, Role, Handler], ...]] = (
    ("/", "GET", "viewer", flows.flows),
    ("/flow", "GET", "viewer", flows.flow),
    ("/flow/stream", "GET", "operator", stream_dialog.dialog),
    ("/flow/stream", "POST", "operator", stream_dialog.save),
    ("/flow/stream/preview", "POST", "operator", stream_dialog.preview),
    ("/flow/stream/test", "POST", "operator", stream_dialog.test),
    ("/flow/resume", "POST", "operator", deliveries.resume),
    ("/flow/lead", "GET", "operator", lead.watch),
    ("/flow/lead", "POST", "operator", lead.send),
    ("/flow/events", "GET", "viewer", events.events),
    ("/flow/event", "GET", "viewer", events.event),
    ("/flow/deliveries", "GET", "viewer", deliveries.deliveries),
    ("/flow/reconciliation", "GET", "viewer", reconcile.overview),
    ("/flow/reconciliation", "POST", "operator", reconcile.start),
    ("/flow/reconciliation/report", "GET", "viewer", reconcile.report),
    ("/flow/reconciliation/download", "GET", "viewer", reconcile.download),
    ("/flow/activity", "GET", "viewer", activity.of_flow),
    ("/activity", "GET", "viewer", activity.everywhere),
    ("/credentials", "GET", "administrator", credentials.overview),
    ("/credentials/rotate", "POST", "administrator", credentials.rotate),
    ("/credentials/remove", "POST", "administrator", credentials.remove),
)
#: Of these, people who may see some flows only see nothing.
_OF_ALL_FLOWS: Final = frozenset({"/activity", "/credentials"})


@dataclass(frozen=True, slots=True)
class State:
    """What lives as long as the application."""

    engine: Engine
    vault: Vault
    gate: Gate
    reconcile_jobs: ReconcileJobs
    day_counts: DayCounts


def create_console(
    engine: Engine, vault: Vault, gate_: Gate, jobs: ReconcileJobs | None = None
) -> Starlette:
    """The console on a database; whoever serves it closes it through its lifespan, ``jobs`` too."""
    state = State(engine, vault, gate_, jobs or ReconcileJobs(engine, vault), DayCounts())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(state.reconcile_jobs.close)

    static = StaticFiles(directory=Path(__file__).parent / "static")
    routes: list[Route | Mount] = [
        Mount("/static", static, name="static"),
        Route("/login", partial(_login_page), methods=["GET"]),
        Route("/login", partial(_login, state), methods=["POST"]),
        Route("/logout", partial(_logout, state), methods=["POST"]),
    ]
    routes += [
        Route(path, _page(state, path, role, handler), methods=[method])
        for path, method, role, handler in PAGES
    ]
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Headers)])


# --- one page -------------------------------------------------------------------------


def _page(
    state: State, path: str, role: Role, handler: Handler
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        token = request.cookies.get(SESSION_COOKIE, "")
        entered = await run_in_threadpool(state.gate.entered, token) if token else None
        if entered is None:
            return _to_login(request)
        form = await _form(request)
        return await run_in_threadpool(_answer, state, path, role, handler, request, entered, form)

    return answer


def _answer(  # noqa: PLR0911, PLR0917  # each refusal is an answer of its own; called once, above, with what it says
    state: State, path: str, role: Role, handler: Handler, request: Request, entered: Entered,
    form: Mapping[str, str] | None,
) -> Response:  # fmt: skip
    person = entered.person

    def read(connection: Any, flow_id: str, event_id: str) -> None:
        state.gate.record_reading(connection, person, flow_id, event_id)

    visit = Visit(
        state.engine, state.vault, person, entered.csrf, request.url.path,
        dict(request.query_params), form or {}, request.headers.get("HX-Request") == "true",
        state, read,
    )  # fmt: skip
    if form is None:
        return _refused(visit, 413, "Too much", "the form is larger than any form here")
    if request.method == "POST" and not _same(form.get("csrf_token", ""), entered.csrf):
        return _refused(visit, 403, "Not taken", "this form is not of your session",
                        "Reload the page and send it again.")  # fmt: skip
    if not person.may(role) or (path in _OF_ALL_FLOWS and person.flows is not None):
        return _refused(visit, 403, "Not allowed", f"this needs the role {role}",
                        "Ask an administrator.")  # fmt: skip
    try:
        return handler(visit)
    except NotFound as error:
        return _refused(visit, 404, "Not found", error.message, error.hint)
    except DatabaseUnavailable as error:
        return _refused(visit, 503, "The database does not answer", error.message, error.hint)
    except AuditStoreError as error:
        return _refused(visit, 409, "That did not work", error.message, error.hint)


def _refused(visit: Visit, status: int, title: str, message: str, hint: str = "") -> Response:
    template = "error_part.html" if visit.is_fragment else "error.html"
    return shown(
        visit, template, status=status, title=title, hint=hint,
        message=f"{message[:1].upper()}{message[1:]}.",
    )  # fmt: skip


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a form, or ``None`` where it is too large."""
    if request.method != "POST":
        return {}
    size = 0
    body = bytearray()
    async for chunk in request.stream():
        size += len(chunk)
        if size > _MOST_FORM_BYTES:
            return None
        body += chunk
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=200)
    return dict(pairs)


# --- coming and going -----------------------------------------------------------------


def _to_login(request: Request) -> Response:
    if request.headers.get("HX-Request") == "true":
        return Response(status_code=401)
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    wanted = here if request.method == "GET" and here != "/" else None
    return RedirectResponse(link("/login", next=wanted), status_code=303)


async def _login_page(request: Request) -> Response:
    return _gate_page(request, next_=request.query_params.get("next", ""))


def _gate_page(
    request: Request, *, next_: str = "", name: str = "", error: str = "", hint: str = "",
    status: int = 200,
) -> Response:  # fmt: skip
    csrf = request.cookies.get(_LOGIN_COOKIE) or secrets.token_urlsafe(32)
    answer = gate("login.html", status=status, csrf=csrf, next=next_, name=name, error=error,
                  hint=hint)  # fmt: skip
    _set(answer, request, _LOGIN_COOKIE, csrf, 3600)
    return answer


async def _login(state: State, request: Request) -> Response:
    form = await _form(request) or {}
    name, next_ = form.get("name", ""), form.get("next", "")
    expected = request.cookies.get(_LOGIN_COOKIE, "")
    if not expected or not _same(form.get("csrf_token", ""), expected):
        return _gate_page(request, next_=next_, name=name, status=403,
                          error="The form was too old. Please try again.")  # fmt: skip
    address = request.client.host if request.client else ""
    try:
        token = await run_in_threadpool(
            state.gate.enter, name, form.get("password", ""), address
        )  # fmt: skip
    except AuditStoreError as error:
        return _gate_page(
            request, next_=next_, name=name, status=403, hint=error.hint,
            error=f"{error.message[:1].upper()}{error.message[1:]}.",
        )  # fmt: skip
    # Only to a page of our own: `//elsewhere` is another host.
    is_ours = next_.startswith("/") and not next_.startswith(("//", "/\\"))
    answer = RedirectResponse(next_ if is_ours else "/", status_code=303)
    _set(answer, request, SESSION_COOKIE, token, _SESSION_S)
    answer.delete_cookie(_LOGIN_COOKIE)
    return answer


async def _logout(state: State, request: Request) -> Response:
    token = request.cookies.get(SESSION_COOKIE, "")
    entered = await run_in_threadpool(state.gate.entered, token) if token else None
    form = await _form(request) or {}
    answer = RedirectResponse("/login", status_code=303)
    if entered is not None and _same(form.get("csrf_token", ""), entered.csrf):
        await run_in_threadpool(state.gate.leave, token)
        answer.delete_cookie(SESSION_COOKIE)
    return answer


def _set(answer: Response, request: Request, name: str, value: str, seconds: int) -> None:
    answer.set_cookie(
        name, value, max_age=seconds, httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


# --- headers --------------------------------------------------------------------------

_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    b" form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)  # fmt: skip


class Headers:
    """Adds the headers that keep a page to itself; lead data is kept by no cache."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caching = b"max-age=3600" if scope["path"].startswith("/static/") else b"no-store"

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"], *_HEADERS, (b"cache-control", caching),
                ]  # fmt: skip
            await send(message)

        await self._app(scope, receive, with_headers)
