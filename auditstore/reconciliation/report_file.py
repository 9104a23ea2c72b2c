"""A report read from a file, whoever kept it: JSON, or the HTML page that holds it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

from auditstore.errors import ConfigurationError, ReportDamaged
from auditstore.reconciliation.document import sealed

_DATA: Final = "report-data"


def read_report(path: Path) -> dict[str, Any]:
    """The values in a file. Raises ConfigurationError, or ReportDamaged where it holds no report.

    A page must also be what its data gives, if this is the version that wrote it: the data may be
    whole and the figures above it not.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the report cannot be read: {error}", hint="Name a report in JSON or HTML."
        ) from error
    if not text.lstrip().startswith("<"):
        return _parsed(text)
    return _page(text)


def _page(text: str) -> dict[str, Any]:
    from auditstore.reconciliation.html import render  # noqa: PLC0415  # slow to import

    found = _Data()
    found.feed(text)
    found.close()
    values = sealed(_parsed("".join(found.pieces)))
    if render(values) == text:
        return values
    made_by = values.get("versions", {}).get("auditstore")
    raise ReportDamaged(
        "the page is not what this version of auditstore makes of the data in it, whose SHA-256 "
        f"is {values['sha256']}",
        hint=f"It was altered, or made by another version ({made_by}): make it anew with "
        "`auditstore report show NUMBER --format html`.",
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ReportDamaged(
            f"there is no report in the file: {error}", hint="Name a report in JSON or HTML."
        ) from error
    if not isinstance(values, dict) or not {"version", "streams", "result"} <= values.keys():
        raise ReportDamaged("there is no report in the file", hint="Name a report in JSON or HTML.")
    return values


class _Data(HTMLParser):
    """Collects the text of the element that holds the data."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """It begins."""
        self._inside = tag == "pre" and ("id", _DATA) in attrs

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # any tag ends it
        """It ends."""
        self._inside = False

    def handle_data(self, data: str) -> None:
        """Its text, in pieces."""
        if self._inside:
            self.pieces.append(data)
