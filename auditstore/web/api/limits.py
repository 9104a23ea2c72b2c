"""How much one caller may ask for: requests in a time, and bytes in a body."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditstore.web.api.problems import problem

_MOST_BUCKETS: Final = 10_000


class TokenBuckets:
    """A bucket for each name: ``burst`` requests at once, ``rate`` more every second.

    Of names that were not heard of for longest, the bucket is forgotten, so memory is bounded.
    """

    def __init__(
        self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, name: str) -> int:
        """Take one token: 0, or without one the whole seconds until there is one."""
        with self._lock:
            now = self._clock()
            tokens, at = self._buckets.pop(name, (float(self._burst), now))
            tokens = min(float(self._burst), tokens + (now - at) * self._rate)
            taken = tokens >= 1
            self._buckets[name] = (tokens - 1 if taken else tokens, now)
            if len(self._buckets) > _MOST_BUCKETS:
                self._buckets.popitem(last=False)
        return 0 if taken else max(1, math.ceil((1 - tokens) / self._rate))


class BodyLimit:
    """Refuses a body that is larger than its path takes, whether or not it says so before."""

    def __init__(self, app: ASGIApp, *, most: int, most_at: dict[str, int]) -> None:
        self._app = app
        self._most = most
        self._most_at = most_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most_at.get(scope["path"], self._most)
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > most:
            await _too_large(most)(scope, receive, send)
            return
        body = _Counted(receive, send, most)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if not body.is_over or body.has_begun:
                raise
        if body.is_over and not body.has_begun:
            await _too_large(most)(scope, receive, send)


class _Counted:
    """A body that is being read, and an answer that is held back once it is too large."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive = receive
        self._send = send
        self._left = most
        self.has_begun = False

    @property
    def is_over(self) -> bool:
        """Whether more came than may come."""
        return self._left < 0

    async def receive(self) -> Message:
        """The next piece; past the limit as if the caller had left, so that nobody reads on."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self.is_over:
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """A piece of the answer, unless another one is to be given."""
        if self.is_over and not self.has_begun:
            return
        self.has_begun = True
        await self._send(message)


def _too_large(most: int) -> ASGIApp:
    return problem(
        413, "body-too-large", f"the body is larger than {most} bytes, which is the most here",
        hint="Send less at once.", headers={"connection": "close"},
    )  # fmt: skip
