"""A small HTTP object store that can be told to misbehave as real ones do.

By default it keeps objects in memory, refuses a second create-only write, and checks the
checksum that came with a body, which moto does not. ``script`` is a list of answers for
the next requests, one each; ``requests`` records what came in, ``arrived`` is set with the
first of them, and setting ``released`` ends what hangs.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Answer:
    """What happens to one request.

    ``code`` makes an error answer, ``text`` one that is no store's own (a proxy's). ``then``
    is what goes wrong: ``hang`` never answers, ``cut`` closes the connection instead of
    answering, ``half`` closes it within the body, ``corrupt`` changes a byte of what was
    sent before it is looked at, ``serve`` nothing.
    With ``store`` the request is carried out first.
    """

    status: int = 200
    code: str = ""
    message: str = "the server's own words"
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    then: Literal["answer", "hang", "cut", "half", "corrupt", "serve"] = "answer"
    store: bool = False


@dataclass(frozen=True)
class Request:
    """What came in: ``key`` is the path below bucket or container, decoded."""

    method: str
    key: str
    headers: dict[str, str]
    body: bytes


@dataclass
class StoredObject:
    """What lies under a key, with the headers to give back."""

    body: bytes
    headers: dict[str, str]


class FakeStore:
    """The server's state. ``dialect`` is whose error answers and success codes it gives.

    ``conditions`` is how it takes ``If-None-Match``: honoured, ignored, or refused (501).
    """

    def __init__(self, dialect: Literal["s3", "azure"]) -> None:
        self.dialect = dialect
        self.conditions: Literal["honoured", "ignored", "refused"] = "honoured"
        self.script: list[Answer] = []
        self.requests: list[Request] = []
        self.objects: dict[str, StoredObject] = {}
        self.arrived = threading.Event()
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.url = ""

    def next_answer(self, request: Request) -> Answer:
        """Record the request and take the answer that the script has for it."""
        with self.lock:
            self.requests.append(request)
            self.arrived.set()
            return self.script.pop(0) if self.script else Answer(then="serve")

    def carry_out(self, request: Request) -> tuple[Answer, bytes]:
        """What a well-behaved store answers, and the body that goes with it."""
        with self.lock:
            if request.method == "PUT":
                return self._put(request), b""
            found = self.objects.get(request.key)
            if request.key == "":
                return Answer(), b""
            if found is None:
                missing = "NoSuchKey" if self.dialect == "s3" else "BlobNotFound"
                return Answer(404, missing), b""
            headers = dict(found.headers)
            if request.headers.get("range") or request.headers.get("x-ms-range"):
                size = len(found.body)
                headers["Content-Range"] = f"bytes 0-{size - 1}/{size}"
                return Answer(206, headers=headers), found.body
            return Answer(headers=headers), found.body

    def _put(self, request: Request) -> Answer:
        conditional = "if-none-match" in request.headers
        if conditional and self.conditions == "refused":
            return Answer(501, "NotImplemented", "A header implies what is not implemented")
        if not self._digest_is_right(request):
            return Answer(400, "BadDigest" if self.dialect == "s3" else "Md5Mismatch")
        if conditional and self.conditions == "honoured" and request.key in self.objects:
            return (
                Answer(412, "PreconditionFailed")
                if self.dialect == "s3"
                else Answer(409, "BlobAlreadyExists")
            )
        digest = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
        headers = {"ETag": f'"{digest}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        kept = {k: v for k, v in request.headers.items() if k.startswith("x-amz-meta-")}
        if "content-encoding" in request.headers:
            kept["content-encoding"] = request.headers["content-encoding"]
        self.objects[request.key] = StoredObject(request.body, {**headers, **kept})
        return Answer(200 if self.dialect == "s3" else 201, headers=headers)

    def _digest_is_right(self, request: Request) -> bool:
        sha256 = request.headers.get("x-amz-checksum-sha256")
        md5 = request.headers.get("content-md5")
        body = request.body
        return (sha256 is None or base64.b64decode(sha256) == hashlib.sha256(body).digest()) and (
            md5 is None
            or base64.b64decode(md5) == hashlib.md5(body, usedforsecurity=False).digest()
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: FakeStore

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = unquote(urlsplit(self.path).path).split("/", 2 if self._s3 else 3)
        key = parts[-1] if len(parts) == (3 if self._s3 else 4) else ""
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, key, headers, body)
        answer = self.store.next_answer(request)
        if answer.then == "corrupt":
            request = Request(self.command, key, headers, b"\0" + body[1:])
        content = b""
        if answer.store or answer.then in {"serve", "half", "corrupt"}:
            served, content = self.store.carry_out(request)
            if answer.then not in {"hang", "cut"}:
                answer = replace(served, then=answer.then)
        if answer.then == "hang":
            self.store.released.wait()
        if answer.then in {"hang", "cut"}:
            self.close_connection = True
            return
        self._reply(answer, content)

    do_PUT = do_GET = do_HEAD = _handle  # noqa: N815 - http.server's own names

    @property
    def _s3(self) -> bool:
        return self.store.dialect == "s3"

    def _reply(self, answer: Answer, content: bytes) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.text:
            content = answer.text.encode()
        elif answer.code:
            content = (
                f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{answer.code}</Code>'
                f"<Message>{escape(answer.message)}</Message></Error>"
            ).encode()
            self.send_header("Content-Type", "application/xml")
            if not self._s3:
                self.send_header("x-ms-error-code", answer.code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            if answer.then == "half":
                content = content[: len(content) // 2]
                self.close_connection = True
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
        """Say nothing: ``requests`` has it all."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are what these tests are about."""


@contextmanager
def running_fake_store(
    dialect: Literal["s3", "azure"], *, tls: ssl.SSLContext | None = None
) -> Iterator[FakeStore]:
    """The fake on a free loopback port."""
    store = FakeStore(dialect)
    handler = type("Handler", (_Handler,), {"store": store})
    with _Server(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        store.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield store
        finally:
            store.released.set()
            server.shutdown()
            thread.join()
