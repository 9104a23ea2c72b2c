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
        size, is_over, has_begun = 0, False, False

        async def counted() -> Message:
            nonlocal size, is_over
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > most:
                    is_over = True
                    # As if it had left: whoever reads the body stops, and says no word.
                    return {"type": "http.disconnect"}
            return message

        async def unless_over(message: Message) -> None:
            nonlocal has_begun
            if is_over and not has_begun:
                return
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counted, unless_over)
        except Exception:
            if not is_over or has_begun:
                raise
        if is_over and not has_begun:
            await _too_large(most)(scope, receive, send)


def _too_large(most: int) -> ASGIApp:
    return problem(
        413, "body-too-large", f"the body is larger than {most} bytes, which is the most here",
        hint="Send less at once.", headers={"connection": "close"},
    )  # fmt: skip
