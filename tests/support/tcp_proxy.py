"""A TCP proxy in front of PostgreSQL that cuts connections at a chosen byte, or moves elsewhere."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import make_url

# Closed with this, a socket sends a reset, not an orderly end.
_RESET = struct.pack("ii", 1, 0)
_CHUNK = 16 * 1024


@dataclass(slots=True)
class Cut:
    """Reset a connection ``after()`` bytes that flow ``to`` one side.

    Counted from where ``marker`` was seen on its way to the server. Only every ``every``-th
    time, as otherwise nothing would ever get through.
    """

    marker: bytes
    to: Literal["server", "client"]
    after: Callable[[], int]
    every: int = 1
    seen: int = 0
    done: int = 0


@dataclass(eq=False, slots=True)
class _Link:
    """One connection: both sockets, and the cut that burns on it, with the bytes left to go."""

    client: socket.socket
    server: socket.socket
    burning: Cut | None = None
    left: int = 0
    tail: bytes = b""
    over: threading.Event = field(default_factory=threading.Event)

    def wake(self) -> None:
        """Let the thread that serves it see that it is over; nothing goes out on the wire."""
        self.over.set()
        with suppress(OSError):
            self.client.shutdown(socket.SHUT_RD)

    def close(self, *, reset: bool) -> None:
        """By the thread that serves it."""
        for side in (self.client, self.server):
            with suppress(OSError):
                if reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            side.close()


class TcpProxy:
    """Forwards to ``port`` of this machine; ``port`` may be changed while it runs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._cut: Cut | None = None
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.own_port: int = self._listener.getsockname()[1]

    def url(self, url: str) -> str:
        """The same database, reached through this proxy."""
        through = make_url(url).set(host="127.0.0.1", port=self.own_port, query={})
        return through.update_query_dict({"sslmode": "disable"}).render_as_string(
            hide_password=False
        )

    @contextmanager
    def cutting(self, cut: Cut) -> Iterator[Cut]:
        """Cut connections while the block runs."""
        with self._lock:
            self._cut = cut
        try:
            yield cut
        finally:
            with self._lock:
                self._cut = None

    def reset_all(self) -> int:
        """Reset every connection there is; how many."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.wake()
        return len(links)

    @contextmanager
    def running(self) -> Iterator[TcpProxy]:
        """Accept connections while the block runs; none outlives it."""
        accepting = threading.Thread(target=self._accept, name="proxy", daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            accepting.join()
            self.reset_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.port))
        except OSError:
            client.close()
            return
        link = _Link(client, server)
        with self._lock:
            self._links.add(link)
        try:
            self._forward(link)
        except OSError:
            link.close(reset=True)
        finally:
            with self._lock:
                self._links.discard(link)

    def _forward(self, link: _Link) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(link.client, selectors.EVENT_READ)
            selector.register(link.server, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    from_client = key.fileobj is link.client
                    data = (link.client if from_client else link.server).recv(_CHUNK)
                    if not data:
                        link.close(reset=link.over.is_set())
                        return
                    if not self._pass_on(link, data, from_client=from_client):
                        return

    def _pass_on(self, link: _Link, data: bytes, *, from_client: bool) -> bool:
        """Send ``data`` on, up to where the cut comes; whether the connection lives on."""
        target = link.server if from_client else link.client
        begins = 0
        if from_client and link.burning is None:
            begins = self._light(link, data)
        cut = link.burning
        if cut is None or (cut.to == "server") != from_client:
            target.sendall(data)
            return True
        if begins + link.left > len(data):
            link.left -= len(data) - begins
            target.sendall(data)
            return True
        target.sendall(data[: begins + link.left])
        with self._lock:
            cut.done += 1
        link.close(reset=True)
        return False

    def _light(self, link: _Link, data: bytes) -> int:
        """Begin to count where the marker ends in ``data``; where that is."""
        with self._lock:
            cut = self._cut
            if cut is None:
                return 0
            joined = link.tail + data
            at = joined.find(cut.marker)
            if at < 0:
                link.tail = joined[-len(cut.marker) + 1 :]
                return 0
            begins = at + len(cut.marker) - len(link.tail)
            link.tail = b""
            cut.seen += 1
            if cut.seen % cut.every:
                return 0
            link.burning, link.left = cut, cut.after()
            return begins


@contextmanager
def tcp_proxy(port: int) -> Iterator[TcpProxy]:
    """A proxy in front of a port of this machine."""
    with TcpProxy(port).running() as proxy:
        yield proxy
