"""HTTP requests and responses as events record them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


def iso(epoch_ms: int) -> str:
    """ISO 8601 in UTC, as LeadConduit writes times inside strings."""
    at = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{at.isoformat()[:19]}.{epoch_ms % 1000:03d}Z"


def request(uri: str, host: str, body: str, at_ms: int, *, token: str) -> Json:
    """An HTTP request as events record it, with the caller's bearer token in its headers."""
    return {
        "method": "POST", "uri": uri, "version": "1.1",
        "headers": {"Host": host, "Content-Type": "application/json",
                    "Content-Length": str(len(body)), "Authorization": f"Bearer {token}"},
        "body": body, "timestamp": iso(at_ms),
    }  # fmt: skip


def response(status: int, status_text: str, body: str, at_ms: int) -> Json:
    """An HTTP response as events record it."""
    return {
        "status": status, "status_text": status_text, "version": "1.1",
        "headers": {"Content-Type": "application/json", "Content-Length": str(len(body)),
                    "Date": iso(at_ms)},
        "body": body, "timestamp": iso(at_ms),
    }  # fmt: skip


def transaction(asked: Json, answered: Json, ms: int) -> Json:
    """A request with its response, and how long that took."""
    return {"request": asked, "response": answered, "ms": ms}
