"""A server's or an SDK's own words, made fit for a message: no secret, one short line."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 300


def redacted(text: str | None, secrets: Iterable[str]) -> str:
    """``text`` without any of ``secrets``, control characters and what is beyond 300."""
    text = text or ""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    line = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."
