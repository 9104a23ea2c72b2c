"""Small valid snapshots."""

from __future__ import annotations

from typing import Any

import orjson


def snapshot(
    number: int, *, flow_id: str = "flow-1", lead_id: str = "lead-1", **more: Any
) -> bytes:
    """The snapshot of a source event whose id ends in ``number``."""
    fields = {
        "id": f"6900000000000000{number:08x}",
        "type": "source",
        "outcome": "success",
        "reason": "",
        "vars": {"flow": {"id": flow_id}, "lead": {"id": lead_id}},
    }
    return orjson.dumps(fields | more)
