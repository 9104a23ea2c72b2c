"""Waiting for what other threads and processes do, never longer than needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
_POLL_S = 0.01


def eventually(look: Callable[[], Found], *, within: float = 10.0, what: str = "") -> Found:
    """The first true answer of ``look``; fails when there is none within so many seconds."""
    give_up_at = time.monotonic() + within
    pause = threading.Event()
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {within} s: {what or look}")
        pause.wait(_POLL_S)


def never(look: Callable[[], object], *, during: float, what: str = "") -> None:
    """Fails as soon as ``look`` gives a true answer within so many seconds."""
    give_up_at = time.monotonic() + during
    pause = threading.Event()
    while time.monotonic() < give_up_at:
        found = look()
        assert not found, f"{what or look}: {found}"
        pause.wait(_POLL_S)
