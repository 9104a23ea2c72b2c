"""TLS in front of a PostgreSQL server whose own build has none, as a pooler or a proxy gives it.

It answers PostgreSQL's SSLRequest, encrypts, and passes bytes on; clients that ask for no TLS
are passed on in clear, as a server with ``ssl = on`` does.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_GSS_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x30"


@contextlib.contextmanager
def running_tls_front(pem: Path, backend: int) -> Iterator[int]:
    """Listen on a free loopback port for the server on the port ``backend``; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, context, backend))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listener: socket.socket, context: ssl.SSLContext, backend: int) -> None:
    sessions = []
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # shut down
            break
        session = threading.Thread(target=_serve, args=(client, context, backend))
        session.start()
        sessions.append(session)
    for session in sessions:
        session.join()


def _serve(client: socket.socket, context: ssl.SSLContext, backend: int) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        stack.enter_context(client)
        first = client.recv(8, socket.MSG_WAITALL)
        while first == _GSS_REQUEST:
            client.sendall(b"N")
            first = client.recv(8, socket.MSG_WAITALL)
        if first == _SSL_REQUEST:
            client.sendall(b"S")
            client = stack.enter_context(context.wrap_socket(client, server_side=True))
            first = b""
        server = stack.enter_context(socket.create_connection(("127.0.0.1", backend)))
        server.sendall(first)
        back = threading.Thread(target=_pass_on, args=(server, client))
        back.start()
        _pass_on(client, server)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
