"""How things look on a terminal, and what a program reads instead.

A terminal's width decides which columns a listing shows; piped, all of them, unwrapped.
Text from events is made harmless: an event may hold control sequences.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

import orjson
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

_GAP = "  "
_NARROWEST = 10
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Column:
    """A listing's column. The higher ``optional``, the sooner a narrow terminal goes without;
    a ``shrinking`` one is cut short rather.
    """

    title: str
    right: bool = False
    optional: int = 0
    shrinking: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Cells, one a column, and lines to show below them."""

    cells: Sequence[Text]
    details: Sequence[Text] = field(default=())


def harmless(value: object) -> str:
    """One line of printable text: control characters become visible escapes."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def harmless_json(text: str) -> str:
    """The same JSON, its lines kept, with every unprintable character as an escape.

    In JSON such a character can only stand in a string, where the escape means the same.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if not character.isascii() else f"\\u{ord(character):04x}"


def plain(value: object, style: str = "") -> Text:
    """A harmless cell; nothing for ``None``."""
    return Text("" if value is None else harmless(value), style=style)


def console() -> Console:
    """Where output goes now; colours only on a terminal, and not with NO_COLOR."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)


def show(text: Text | str = "", *, style: str = "", indent: str = "") -> None:
    """A paragraph: wrapped on a terminal, one line when piped."""
    out = console()
    line = text if isinstance(text, Text) else Text(harmless(text), style=style)
    if not out.is_terminal:
        out.print(Text(indent) + line)
        return
    for part in line.wrap(out, max(out.width - len(indent), _NARROWEST), overflow="fold"):
        part.rstrip()
        out.print(Text(indent) + part)


def pairs(items: Iterable[tuple[str, Text | str | None]]) -> None:
    """Names and values, aligned; those without a value are left out."""
    kept = [(name, value) for name, value in items if value is not None]
    width = max((len(name) for name, _ in kept), default=0) + len(_GAP)
    out = console()
    for name, value in kept:
        text = value if isinstance(value, Text) else plain(value)
        lines = (
            text.wrap(out, max(out.width - width, _NARROWEST), overflow="fold")
            if out.is_terminal
            else [text]
        )
        for number, part in enumerate(lines):
            part.rstrip()
            lead = f"{name:<{width}}" if number == 0 else " " * width
            out.print(Text(lead, style="dim") + part)


def heading(title: str) -> None:
    """A line that begins a section."""
    out = console()
    out.print()
    out.print(Text(title, style="bold"))


def listing(columns: Sequence[Column], rows: Sequence[Row], *, indent: str = "") -> list[str]:
    """A table without lines. Returns the titles of the columns that found no room."""
    out = console()
    widths = [
        max([cell_len(column.title), *(cell_len(row.cells[number].plain) for row in rows)])
        for number, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if out.is_terminal:
        shown, widths = _fit(columns, widths, out.width - len(indent))
    titles = [Text(columns[number].title, style="bold") for number in shown]
    out.print(Text(indent) + _line(columns, shown, widths, titles))
    # Below a number, details begin under the column after it.
    below = " " * widths[0] + _GAP if columns[0].right else _INDENT
    for row in rows:
        cells = [row.cells[number] for number in shown]
        out.print(Text(indent) + _line(columns, shown, widths, cells))
        for detail in row.details:
            show(detail, indent=indent + below)
    return [column.title.lower() for n, column in enumerate(columns) if n not in shown]


def _fit(
    columns: Sequence[Column], widths: list[int], available: int
) -> tuple[list[int], list[int]]:
    shown = list(range(len(columns)))
    widths = list(widths)

    def excess() -> int:
        return sum(widths[n] for n in shown) + len(_GAP) * (len(shown) - 1) - available

    while excess() > 0 and any(columns[n].optional for n in shown):
        shown.remove(max(shown, key=lambda n: columns[n].optional))
    for number in shown:
        if columns[number].shrinking and excess() > 0:
            widths[number] = max(widths[number] - excess(), _NARROWEST)
    return shown, widths


def _line(
    columns: Sequence[Column], shown: list[int], widths: list[int], cells: Sequence[Text]
) -> Text:
    line = Text()
    for place, (number, cell) in enumerate(zip(shown, cells, strict=True)):
        room = widths[number]
        text = cell.plain
        if cell_len(text) > room:
            text = set_cell_size(text, room - 1) + "…"
        space = " " * (room - cell_len(text))
        padded = space + text if columns[number].right else text + space
        if place:
            line.append(_GAP)
        line.append(padded, style=cell.style)
    line.rstrip()
    return line


def write_json(value: Any) -> None:
    """One indented JSON document on stdout; times in UTC with Z."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
    write_bytes(orjson.dumps(value, option=options))


def write_bytes(data: bytes) -> None:
    """JSON on stdout, byte for byte; on a terminal with unprintable characters escaped."""
    sys.stdout.flush()
    if sys.stdout.isatty():
        data = harmless_json(data.decode(errors="replace")).encode()
    sys.stdout.buffer.write(data)


class HarmlessText(io.TextIOBase):
    """A terminal that shows every unprintable character as an escape; lines stay lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def write(self, text: str) -> int:
        """Write the text, made harmless."""
        self._out.write(harmless_json(text))
        return len(text)

    def flush(self) -> None:
        """What was written is seen."""
        self._out.flush()


def note(what: str) -> None:
    """A remark on stderr, so that what is piped stays data only."""
    err = Console(stderr=True, highlight=False, markup=False)
    err.print(Text(harmless(what), style="dim"), soft_wrap=not err.is_terminal)


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on a terminal that work goes on; yields a function that says with what."""
    err = Console(stderr=True, highlight=False, markup=False)
    if not err.is_terminal:
        yield lambda _: None
        return
    with err.status(Text(harmless(what))) as status:
        yield lambda text: status.update(Text(harmless(text)))
