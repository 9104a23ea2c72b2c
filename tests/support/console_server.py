"""The console, served over HTTP on a loopback port, with people who may come in."""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import sqlalchemy as sa
import uvicorn
from sqlalchemy import Connection

from auditstore.errors import ConfigurationError
from auditstore.vault import Vault
from auditstore.web.console.app import create_console
from auditstore.web.console.gate import Entered
from auditstore.web.console.pages import Person

PASSWORD = "a long enough password"


class FewPeople:
    """Accounts in memory; remembers which events were opened by whom."""

    def __init__(self, *people: Person) -> None:
        self.people = {person.name: person for person in people}
        self.read: list[tuple[str, str, str]] = []
        self._sessions: dict[str, Entered] = {}

    def enter(self, name: str, password: str, address: str) -> str:  # noqa: ARG002  # the protocol's
        """One password opens all."""
        if name not in self.people or password != PASSWORD:
            raise ConfigurationError("name or password is wrong", hint="Try again.")
        token = secrets.token_urlsafe(16)
        self._sessions[token] = Entered(self.people[name], secrets.token_urlsafe(16))
        return token

    def entered(self, token: str) -> Entered | None:
        """Whose session it is."""
        return self._sessions.get(token)

    def leave(self, token: str) -> None:
        """End it."""
        self._sessions.pop(token, None)

    def record_reading(
        self,
        connection: Connection,  # noqa: ARG002  # the protocol's
        person: Person,
        flow_id: str,
        event_id: str,
    ) -> None:
        """Remember it."""
        self.read.append((person.name, flow_id, event_id))


PEOPLE = (
    Person("ada", "administrator"), Person("olaf", "operator"), Person("vera", "viewer"),
    Person("finn", "operator", frozenset({"flow-1"})),
)  # fmt: skip


class Browser:
    """An HTTP client that is signed in and sends forms with their token, as a browser does."""

    def __init__(self, url: str, name: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        answer = self.http.get("/login")
        form = {"name": name, "password": PASSWORD, "csrf_token": token_in(answer.text)}
        answer = self.http.post("/login", data=form)
        assert answer.status_code == 303, answer.text
        self.csrf = token_in(self.get("/").text)

    def get(self, path: str, *, htmx: bool = False, **query: str) -> httpx.Response:
        """Open a page, or the part of it that htmx asks for."""
        return self.http.get(path, params=query, headers=_headers(htmx=htmx))

    def post(self, path: str, *, htmx: bool = False, **form: str) -> httpx.Response:
        """Send a form."""
        data = {"csrf_token": self.csrf, **form}
        return self.http.post(path, data=data, headers=_headers(htmx=htmx))


def token_in(page: str) -> str:
    """The token in the page's first form."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found, page
    return found[1]


def _headers(*, htmx: bool) -> dict[str, str]:
    return {"HX-Request": "true"} if htmx else {}


@contextmanager
def serving_console(engine: sa.Engine, vault: Vault, people: FewPeople) -> Iterator[str]:
    """The console at a loopback URL."""
    config = uvicorn.Config(
        create_console(engine, vault, people), log_level="warning", lifespan="on", ws="none"
    )
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        started = threading.Event()
        own_startup = server.startup

        async def startup(sockets: list[socket.socket] | None = None) -> None:
            await own_startup(sockets=sockets)
            started.set()

        server.startup = startup  # type: ignore[method-assign]  # uvicorn has no other signal
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            assert started.wait(30), "the console does not start"
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
