"""HTTP/1.1 as bytes on a socket: what a proxy needs to pass a message on unchanged, or in part."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

_LONGEST_HEAD = 64 * 1024


class Broken(Exception):
    """The other side went away within a message."""


@dataclass(frozen=True)
class Head:
    """The bytes up to the empty line, and what can be read in them; names in lower case."""

    raw: bytes
    start: str
    fields: dict[str, str]

    @property
    def length(self) -> int:
        """How many bytes of body are promised."""
        return int(self.fields.get("content-length", "0"))

    def without(self, name: str) -> Head:
        """The same head with one field left out, if it is there."""
        if name not in self.fields:
            return self
        lines = self.raw.split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].decode().lower() != name]
        fields = {each: value for each, value in self.fields.items() if each != name}
        return Head(b"\r\n".join(kept), self.start, fields)


@dataclass(frozen=True)
class Message:
    """A whole answer as it came; ``last`` when the connection ends with it."""

    head: bytes
    body: bytes
    last: bool = False


def read_head(reader: IO[bytes]) -> Head | None:
    """The next head, or ``None`` where the connection ends instead."""
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        line = reader.readline(_LONGEST_HEAD)
        if not line:
            if raw:
                raise Broken
            return None
        raw += line
    start, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return Head(raw, start, {name.lower(): value.strip() for name, _, value in pairs})


def read_body(reader: IO[bytes], size: int) -> bytes:
    """Exactly so many bytes."""
    body = reader.read(size)
    if len(body) < size:
        raise Broken
    return body


def ask(server: tuple[str, int], request: bytes, *, method: str, timeout: float) -> Message:
    """Send a request on a connection of its own; the answer, byte for byte."""
    with (
        socket.create_connection(server, timeout) as connection,
        connection.makefile("rb") as reader,
    ):
        connection.sendall(request)
        while True:
            head = read_head(reader)
            if head is None:
                raise Broken
            status = int(head.start.split()[1])
            if status >= 200:  # those below announce another one
                return _answer(head, status, reader, method)


def send_part(server: tuple[str, int], request: bytes, *, timeout: float) -> None:
    """Send what there is of a request and hang up, as the server sees a client die."""
    with socket.create_connection(server, timeout) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while connection.recv(65536):
                pass


def reset(connection: socket.socket) -> None:
    """End a connection with a reset, as a crash or a firewall does, once it is closed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _answer(head: Head, status: int, reader: IO[bytes], method: str) -> Message:
    version = head.start.split()[0]
    wish = head.fields.get("connection", "").lower()
    last = wish == "close" or (version == "HTTP/1.0" and wish != "keep-alive")
    if method == "HEAD" or status in {204, 304}:
        return Message(head.raw, b"", last)
    if "chunked" in head.fields.get("transfer-encoding", "").lower():
        return Message(head.raw, _chunks(reader), last)
    if "content-length" in head.fields:
        return Message(head.raw, read_body(reader, head.length), last)
    return Message(head.raw, reader.read(), last=True)


def _chunks(reader: IO[bytes]) -> bytes:
    raw = b""
    while True:
        line = reader.readline()
        size = int(line.split(b";")[0], 16)
        raw += line + read_body(reader, size + 2)
        if not size:
            return raw
