"""Figures and times as the page has them, and text that shows what it holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime


def number(count: float) -> str:
    """With thin spaces between thousands, which no language takes for a decimal sign."""
    return f"{count:,}".replace(",", "\u202f")


def moment(text: str | None) -> str:
    """An ISO 8601 time in UTC, to the second."""
    if text is None:
        return "\u2013"
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def words(name: str) -> str:
    """A kind or a result in words, as a sentence begins."""
    text = name.replace("-", " ")
    return text[:1].upper() + text[1:]


def visible(text: str) -> str:
    """JSON in which every unprintable character is an escape that means the same.

    Also what turns the direction of writing, and what a page's reader would never see.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
