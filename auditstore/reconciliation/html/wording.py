"""Figures and times as the page has them, and text that shows what it holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from unicodedata import category


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
    """The text with every character that a reader would not see as an escape.

    What turns the direction of writing is among them. Spaces of any kind stay.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_seen(c) else json.dumps(c)[1:-1] for c in text)


def _is_seen(character: str) -> bool:
    return character.isprintable() or category(character) == "Zs"
