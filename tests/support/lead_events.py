"""Small lead events with ids of their own, in a size and order that a seed fixes."""

from __future__ import annotations

import itertools
import random
import time

import orjson

_numbers = itertools.count()
_RUN = random.SystemRandom().getrandbits(40)


def new_id() -> str:
    """An event id that nothing else in any run has."""
    return f"{int(time.time()):08x}{_RUN:010x}{next(_numbers):06x}"


def lead_event(
    flow_id: str,
    *,
    event_id: str | None = None,
    lead_id: str = "lead-1",
    padding: int = 0,
    notes: str = "",
) -> bytes:
    """A recipient event as JSON; ``padding`` more bytes, or ``notes``, make it larger."""
    return orjson.dumps(
        {
            "id": event_id or new_id(),
            "type": "recipient",
            "outcome": "success",
            "reason": "",
            "vars": {
                "flow": {"id": flow_id},
                "lead": {"id": lead_id, "notes": notes or "x" * padding},
            },
        }
    )


def id_of(snapshot: bytes) -> str:
    """The event id in a snapshot of :func:`lead_event`."""
    found = orjson.loads(snapshot)["id"]
    assert isinstance(found, str)
    return found
