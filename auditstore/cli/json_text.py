"""A JSON text laid out over lines, every literal as it was written.

Parsing and printing again would change numbers (``1.50``, ``1e3``), drop repeated keys and
rewrite escapes; an audit store shows what it holds.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_STEP: Final = "  "


def laid_out(text: str) -> str:
    """Valid JSON with two spaces a level; empty objects and arrays stay on one line."""
    out: list[str] = []
    depth = 0
    before = ""
    for part in _TOKEN.findall(text):
        if part in "}]":
            depth -= 1
            if before not in {"{", "["}:
                out.append("\n" + _STEP * depth)
        elif before in {"{", "[", ","}:
            out.append("\n" + _STEP * depth)
        out.append(part)
        if part == ":":
            out.append(" ")
        if part in "{[":
            depth += 1
        before = part
    return "".join(out)
