"""A proxy in front of a real object store that does to requests what networks and servers do.

Without rules it passes every byte on unchanged, both ways, the ``Host`` of the client too, which
S3 signs; only ``Expect`` it answers itself. A rule says which requests meet which fault, and how
many of them.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Literal
from urllib.parse import unquote, urlsplit

from support import fault_wire
from support.fault_wire import Broken, Head, Message

_SERVER_TIMEOUT_S = 60
_LOOK_S = 0.02


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    With ``status`` the proxy answers itself and the server sees nothing. ``request`` is what
    becomes of it on the way in: ``cut`` loses the connection within the body, on both sides;
    ``corrupt`` changes a byte of it; ``lost`` never arrives; ``late`` arrives when the rule is
    lifted, whatever became of the client. ``answer`` is what becomes of the way back:
    ``never`` comes, ``cut`` is a reset in its place, ``torn`` ends before it tells a status,
    ``clipped`` after its first line, ``half`` in the middle of its body. ``without`` is a header
    that the server does not get to see.
    """

    status: int = 0
    code: str = ""
    message: str = "the server's own words"
    request: Literal["whole", "cut", "corrupt", "lost", "late"] = "whole"
    answer: Literal["whole", "never", "cut", "torn", "clipped", "half"] = "whole"
    without: str = ""


class Rule:
    """Requests with this ``method`` whose path has ``key`` in it meet the fault.

    ``method`` and ``key`` are patterns. At most ``count`` of them, or all until it is lifted;
    ``having`` is a text that their head must hold, ``lacking`` one that it must not, both in
    lower case. ``hits`` counts them.
    """

    def __init__(
        self, fault: Fault, *, method: str, key: str, count: int | None, having: str, lacking: str
    ) -> None:
        self.fault = fault
        self.hits = 0
        self.lifted = threading.Event()
        self._method = method
        self._key = re.compile(key)
        self._left = count
        self._having = having
        self._lacking = lacking

    def takes(self, method: str, path: str, head: str) -> bool:
        """Whether this request is the rule's; it is counted if so."""
        if self.lifted.is_set() or self._left == 0 or not re.fullmatch(self._method, method):
            return False
        if not self._key.search(path) or self._having not in head:
            return False
        if self._lacking and self._lacking in head:
            return False
        self.hits += 1
        if self._left is not None:
            self._left -= 1
        return True

    def lift(self) -> None:
        """From now on nothing meets it; what hangs is let go."""
        self.lifted.set()


@dataclass(frozen=True)
class Passed:
    """A request that came by, and the status that the client was told, 0 for none."""

    method: str
    path: str
    status: int


class FaultProxy:
    """The proxy on a port of its own; ``seen`` has every request that has ended."""

    def __init__(self, upstream_url: str, dialect: Literal["s3", "azure"]) -> None:
        parts = urlsplit(upstream_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.server = (parts.hostname, parts.port)
        self.dialect = dialect
        self.seen: list[Passed] = []
        self.closing = threading.Event()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = int(self._listener.getsockname()[1])
        self._accepting: threading.Thread | None = None
        self._listen()

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self._port}"

    def inject(
        self,
        fault: Fault,
        *,
        method: str = "PUT",
        key: str = "",
        count: int | None = None,
        having: str = "",
        lacking: str = "",
    ) -> Rule:
        """From now on requests meet the fault, as :class:`Rule` says; older rules go first."""
        rule = Rule(fault, method=method, key=key, count=count, having=having, lacking=lacking)
        with self._lock:
            self._rules.append(rule)
        return rule

    def lift_all(self) -> None:
        """Be a proxy that does nothing again."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            rule.lift()

    def go_away(self) -> None:
        """Refuse connections and reset those that are open, as a server that is down does."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._accepting is not None:
            self._accepting.join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    fault_wire.reset(connection)
                    connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._listen()

    def close(self) -> None:
        """End everything, what hangs too."""
        self.closing.set()
        self.lift_all()
        with suppress(OSError):
            self.go_away()

    def tried(self, method: str, key: str) -> list[Passed]:
        """The requests so far with ``key`` in their path."""
        return [each for each in list(self.seen) if each.method == method and key in each.path]

    def _listen(self) -> None:
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(Broken, OSError), client.makefile("rb") as reader:
            while head := fault_wire.read_head(reader):
                if not self._pass_on(Exchange(self, client, reader, head)):
                    break
        with self._lock:
            self._open.discard(client)

    def _pass_on(self, exchange: Exchange) -> bool:
        method, path = exchange.method, exchange.path
        with self._lock:
            head = exchange.head.raw.decode("latin-1").lower()
            rule = next((each for each in self._rules if each.takes(method, path, head)), None)
        try:
            return exchange.run(rule)
        finally:
            self.seen.append(Passed(method, path, exchange.told))


class Exchange:
    """One request and its answer."""

    def __init__(
        self, proxy: FaultProxy, client: socket.socket, reader: IO[bytes], head: Head
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._reader = reader
        self.head = head
        self.method, target, _ = head.start.split(" ")
        self.path = unquote(target)
        self.told = 0

    def run(self, rule: Rule | None) -> bool:
        """Carry it out; whether the connection may bring another request."""
        fault = Fault() if rule is None else rule.fault
        if fault.request == "cut":
            return self._cut()
        body = self._body(self.head.length)
        if fault.request in {"lost", "late"}:
            self._hang(rule)
            if fault.request == "late":
                self._ask(self.head, body)
            return False
        if fault.request == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        answer = self._answer(fault, body)
        if fault.answer == "never":
            self._hang(rule)
            return False
        return self._tell(answer, fault)

    # --- the way in -----------------------------------------------------------------

    def _body(self, size: int) -> bytes:
        assert "transfer-encoding" not in self.head.fields, "clients say how long their bodies are"
        if self.head.fields.get("expect", "").lower() == "100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return fault_wire.read_body(self._reader, size)

    def _ask(self, head: Head, body: bytes) -> Message:
        # This proxy has told the client to go on already, and the server gets all at once.
        return fault_wire.ask(
            self._proxy.server, head.without("expect").raw + body, method=self.method,
            timeout=_SERVER_TIMEOUT_S,
        )  # fmt: skip

    def _cut(self) -> bool:
        """Half of the body arrives, then both sides lose each other."""
        body = self._body(self.head.length // 2)
        raw = self.head.without("expect").raw + body
        fault_wire.send_part(self._proxy.server, raw, timeout=_SERVER_TIMEOUT_S)
        fault_wire.reset(self._client)
        return False

    # --- the way back ---------------------------------------------------------------

    def _answer(self, fault: Fault, body: bytes) -> Message:
        if fault.request == "corrupt" and not self._is_intact(body):
            # The clouds check what they get. moto does not, and Azurite has a code of its own.
            code = "BadDigest" if self._proxy.dialect == "s3" else "Md5Mismatch"
            fault = replace(fault, status=400, code=code)
        if fault.status:
            return self._refusal(fault)
        return self._ask(self.head.without(fault.without.lower()), body)

    def _is_intact(self, body: bytes) -> bool:
        """Whether the body has the digests that were sent with it, if any were."""
        digests = {
            "x-amz-checksum-sha256": hashlib.sha256(body),
            "content-md5": hashlib.md5(body, usedforsecurity=False),
        }
        sent = {name: self.head.fields.get(name) for name in digests}
        return all(
            base64.b64decode(value) == digests[name].digest()
            for name, value in sent.items()
            if value is not None
        )

    def _refusal(self, fault: Fault) -> Message:
        body = (
            '<?xml version="1.0" encoding="utf-8"?>'
            f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>"
        ).encode()
        own = f"x-ms-error-code: {fault.code}\r\n" if self._proxy.dialect == "azure" else ""
        head = (
            f"HTTP/1.1 {fault.status} Refused\r\nContent-Type: application/xml\r\n{own}"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        return Message(head, b"" if self.method == "HEAD" else body)

    def _tell(self, answer: Message, fault: Fault) -> bool:
        if fault.answer == "cut":
            fault_wire.reset(self._client)
            return False
        if fault.answer in {"torn", "clipped", "half"}:
            start, end, _ = answer.head.partition(b"\r\n")
            parts = {
                "torn": start[:7],
                "clipped": start + end,
                "half": answer.head + answer.body[: len(answer.body) // 2],
            }
            self._client.sendall(parts[fault.answer])
            return False
        self._client.sendall(answer.head + answer.body)
        self.told = int(answer.head.split()[1])
        return not answer.last

    def _hang(self, rule: Rule | None) -> None:
        """Say nothing until the rule is lifted; a client that gives up is let go at once."""
        assert rule is not None
        late = rule.fault.request == "late"
        while not rule.lifted.is_set() and not self._proxy.closing.is_set():
            if not late and select.select([self._client], [], [], 0)[0]:
                return
            rule.lifted.wait(_LOOK_S)


@contextmanager
def running_fault_proxy(upstream_url: str, dialect: Literal["s3", "azure"]) -> Iterator[FaultProxy]:
    """A proxy in front of ``upstream_url``."""
    proxy = FaultProxy(upstream_url, dialect)
    with ExitStack() as stack:
        stack.callback(proxy.close)
        yield proxy
