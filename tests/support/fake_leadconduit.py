"""LeadConduit's Events API over real HTTP, small, which can be told to misbehave.

It checks the key, sorts and pages as the real one does, and records each request. ``script`` is
a list of answers for the next requests, one each; after it, it serves.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import orjson

KEY = "1f1b96c9150d8050e858c043d543bb4e"


@dataclass(frozen=True)
class Answer:
    """What happens to one request: a status, or a page that is not what it should be.

    ``half`` stops within the body that was announced, ``cut`` closes without an answer, ``text``
    sends other text than a page. ``ignoring`` are parameters that the server takes no notice of.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    then: Literal["answer", "half", "cut", "reversed", "repeated"] = "answer"
    ignoring: Sequence[str] = ()


class FakeLeadConduit:
    """The account's events, and what the server was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.events: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.asked: list[dict[str, str]] = []
        self.page = 1000
        self.lock = threading.Lock()

    def add(self, *snapshots: bytes) -> None:
        """Events that happened in the account."""
        for snapshot in snapshots:
            self.events[orjson.loads(snapshot)["id"]] = snapshot

    def wanted(self, query: dict[str, str]) -> list[bytes]:
        """The page that LeadConduit would give."""
        ids = sorted(self.events, reverse=query.get("sort", "desc") == "desc")
        if "after_id" in query:
            ids = [each for each in ids if each > query["after_id"]]
        if "before_id" in query:
            ids = [each for each in ids if each < query["before_id"]]
        limit = min(int(query.get("limit", "100")), self.page)
        return [self.events[each] for each in ids[:limit]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeLeadConduit

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self.fake.lock:
            self.fake.asked.append(query)
            answer = self.fake.script.pop(0) if self.fake.script else Answer()
        right = base64.b64encode(f"API:{KEY}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {right}":
            answer = Answer(401)
        elif parts.path != "/events":
            answer = Answer(404)
        self._send(answer, query)

    def _send(self, answer: Answer, query: dict[str, str]) -> None:
        if answer.then == "cut":
            self.close_connection = True
            return
        seen = {name: value for name, value in query.items() if name not in answer.ignoring}
        page = self.fake.wanted(seen)
        if answer.then == "reversed":
            page = page[::-1]
        if answer.then == "repeated":
            page = [*page, page[-1]]
        body = b"[" + b",\n".join(page) + b"]"
        if answer.text is not None or answer.status != 200:
            body = (answer.text or "").encode(errors="surrogateescape")
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if answer.then == "half" else body)
        self.close_connection = answer.then == "half"


@contextmanager
def running_leadconduit() -> Iterator[FakeLeadConduit]:
    """A server of the test's own on a free loopback port."""
    fake = FakeLeadConduit()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        host, port = server.server_address[:2]
        fake.url = f"http://{host!s}:{port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
