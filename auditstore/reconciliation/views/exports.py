"""A file that somebody exported, as a view: a JSON array, NDJSON or CSV, gzip or not.

What it is, its content says: gzip by its first bytes, then ``[`` begins a JSON array, ``{``
lines of JSON, and anything else a CSV table. A line that is no event is a finding; a file that
ends too early is an error, since nobody knows what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from auditstore.errors import ConfigurationError, ViewUnreadable
from auditstore.reconciliation.byte_stream import ByteStream
from auditstore.reconciliation.decoding import Line, Lines, Undecodable, unpacked
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.views import json_array, table
from auditstore.reconciliation.views.records import (
    MAX_EVENT_BYTES,
    Key,
    Record,
    Trouble,
    Window,
    record_of,
)

_CHUNK: Final = 256 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")


class ExportView:
    """The events of one file. ``flow_id`` serves events that name no flow."""

    kind = "export"

    def __init__(self, path: Path, *, flow_id: str | None = None) -> None:
        self.name = f"the export {path}"
        self._path = path
        self._flow_id = flow_id

    def read(self, window: Window) -> Iterator[Record | Trouble]:
        """Every event of the window, with its snapshot, in the file's order."""
        try:
            with self._path.open("rb") as file:
                for told in self._tell(iter(lambda: file.read(_CHUNK), b"")):
                    if isinstance(told, Trouble) or window.holds(told):
                        yield told
        except Undecodable as error:
            raise self._unreadable(str(error)) from error
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be read: {error.strerror or error}",
                hint="Name a file that this user may read.",
            ) from error

    def payloads(self, places: Iterable[tuple[Key, str]]) -> Iterator[tuple[Key, bytes]]:  # noqa: ARG002  # the protocol's
        """Nothing: the snapshots came along."""
        return iter(())

    def _tell(self, stored: Iterator[bytes]) -> Iterator[Record | Trouble]:
        content = unpacked(stored)
        start, content = _peeked(content)
        if start.startswith(_OTHER_BOMS):
            raise self._unreadable("it is UTF-16; export it as UTF-8")
        if not start.strip():
            raise self._unreadable("it is empty")
        if start.lstrip().startswith(b"["):
            return self._array(content)
        if start.lstrip().startswith(b"{"):
            return self._lines(content)
        return self._table(content)

    def _array(self, content: Iterator[bytes]) -> Iterator[Record | Trouble]:
        number = 0
        try:
            for number, snapshot in enumerate(json_array.elements(ByteStream(content)), start=1):
                yield record_of(snapshot, self._place("item", number), flow_id=self._flow_id)
        except json_array.Broken as error:
            raise self._unreadable(f"the JSON array breaks after item {number}: {error}") from error

    def _lines(self, content: Iterator[bytes]) -> Iterator[Record | Trouble]:
        splitter = Lines(keep=True)
        for line in chain(
            chain.from_iterable(map(splitter.feed, content)), _last(splitter)
        ):  # fmt: skip
            place = self._place("line", line.number)
            if line.content is None:
                yield Trouble(
                    Kind.UNREADABLE_LINE, f"it is longer than {MAX_EVENT_BYTES} bytes", place
                )
            elif snapshot := line.content.strip():
                yield record_of(snapshot, place, flow_id=self._flow_id)

    def _table(self, content: Iterator[bytes]) -> Iterator[Record | Trouble]:
        try:
            for number, row in table.rows(ByteStream(content), flow_id=self._flow_id):
                place = self._place("line", number)
                if isinstance(row, str):
                    yield Trouble(Kind.UNREADABLE_LINE, row, place)
                elif isinstance(row, bytes):
                    yield record_of(row, place, flow_id=self._flow_id)
                else:
                    yield table.record(row, place, flow_id=self._flow_id)
        except table.Broken as error:
            raise self._unreadable(str(error)) from error

    def _place(self, what: str, number: int) -> str:
        return f"{self._path.name}: {what} {number}"

    def _unreadable(self, why: str) -> ViewUnreadable:
        return ViewUnreadable(
            f"the export {self._path} cannot be read: {why}",
            hint="Export it again: a JSON array, one JSON event a line, or CSV; gzip or not. "
            "What was found by then is true, and not all.",
        )


def _peeked(content: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes that are more than white space, and all of it without a mark of UTF-8."""
    start = b""
    for piece in content:
        start += piece
        if start.removeprefix(_BOM).strip():
            break
    start = start.removeprefix(_BOM)
    return start, chain((start,), content)


def _last(splitter: Lines) -> Iterator[Line]:
    """What follows the last line end, looked for once everything before it has passed."""
    yield from splitter.rest()
