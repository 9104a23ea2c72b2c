"""Small valid events for tests: every field that the store files an event under."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

_counter = itertools.count()


def event_id(*, at: float | None = None) -> str:
    """A new ObjectId made at ``at`` (seconds since the epoch), now by default."""
    seconds = int(time.time() if at is None else at)
    return f"{seconds:08x}{next(_counter):016x}"


def fields(
    *, flow: str | None = "flow-1", lead: str | None = "lead-1", **more: Any
) -> dict[str, Any]:
    """An event as a mapping; ``more`` replaces or adds top-level fields."""
    variables: dict[str, Any] = {}
    if flow is not None:
        variables["flow"] = {"id": flow, "name": "A flow"}
    if lead is not None:
        variables["lead"] = {"id": lead}
    return {
        "id": event_id(),
        "type": "recipient",
        "outcome": "success",
        "reason": "",
        "step_id": "step-1",
        "start_timestamp": 1_764_000_000_123,
        "end_timestamp": 1_764_000_000_456,
        "vars": variables,
    } | more


def snapshot(**more: Any) -> bytes:
    """An event as JSON bytes."""
    return json.dumps(fields(**more)).encode()
