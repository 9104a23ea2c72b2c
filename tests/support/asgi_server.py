"""An ASGI application, served at a loopback URL by the server that serves it for people."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The application's URL, for as long as it is served."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", ws="none"))
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
            assert started.wait(30), "the application does not start"
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
