"""A small HTTP server in the exporter: ``/metrics``, ``/healthz`` and ``/readyz``, and no more.

It only answers GET, reads no body, and holds a bounded number of threads for a bounded time:
whoever reaches the port cannot keep the exporter from its work.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from auditstore.errors import ConfigurationError
from auditstore.settings import ListenAddress
from exporters.readiness import Reason

_AT_ONCE: Final = 16
_CLIENT_LIMIT: Final = 10.0
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"

RenderMetrics = Callable[[str], tuple[bytes, str]]
FindReasons = Callable[[], list[Reason]]


class Listener:
    """Listens from the moment it is made; raises ConfigurationError where it cannot."""

    def __init__(self, address: ListenAddress, metrics: RenderMetrics, ready: FindReasons) -> None:
        handler = type("Handler", (_Handler,), {"metrics": metrics, "ready": ready})
        try:
            # The first of the addresses that the name has; None is every interface.
            found = socket.getaddrinfo(
                address.host or None, address.port, type=socket.SOCK_STREAM,
                flags=socket.AI_PASSIVE,
            )  # fmt: skip
            self._server = _Server(found[0][0], found[0][4], handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {address}: {error.strerror or error}",
                hint="Stop what listens there, or choose another address with --metrics-listen"
                " or AUDITSTORE_METRICS_LISTEN.",
            ) from error
        host, port = self._server.server_address[:2]
        self.address: Final = ListenAddress(str(host), int(port))
        """Where it listens; with the port that was free, if any was asked for."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="listener", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Those that hang are left behind when the exporter ends.
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: Any, handler: Any) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the base class's look-up of the host's name, which can take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_port = self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread a request, as far as there is room."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Make room again when it is over."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no trouble of ours."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_LIMIT
    server_version = "auditstore"
    sys_version = ""
    metrics: RenderMetrics
    ready: FindReasons

    def do_GET(self) -> None:
        """Answer; http.server's own name."""
        path, _, query = self.path.partition("?")
        kind = type(self)
        if path == "/metrics":
            self._answer(200, *kind.metrics(self.headers.get("Accept", "")))
        elif path == "/healthz":
            self._answer(200, b"alive\n", _TEXT)
        elif path == "/readyz":
            self._readyz(as_json=query == "json" or _JSON in self.headers.get("Accept", ""))
        else:
            self._answer(404, b"There are /metrics, /healthz and /readyz.\n", _TEXT)

    do_HEAD = do_GET  # noqa: N815  # http.server's own name

    def _readyz(self, *, as_json: bool) -> None:
        reasons = type(self).ready()
        status = 503 if reasons else 200
        if as_json:
            body = json.dumps(
                {"ready": not reasons, "reasons": [asdict(reason) for reason in reasons]}
            )
            self._answer(status, f"{body}\n".encode(), _JSON)
        else:
            lines = [f"not ready: {reason.text}" for reason in reasons] or ["ready"]
            self._answer(status, "".join(f"{line}\n" for line in lines).encode(), _TEXT)

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its signature
        """Say nothing: the log is about files."""
