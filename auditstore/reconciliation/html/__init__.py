"""The report as one HTML file that needs nothing else: no script, no font, no picture, no network.

:func:`render` makes it from a report's values; whatever text they hold is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TextIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from auditstore.reconciliation.document import Document, canonical
from auditstore.reconciliation.findings import Finding
from auditstore.reconciliation.html import wording
from auditstore.reconciliation.html.page import Page
from auditstore.reconciliation.report_text import moment
from auditstore.reconciliation.summary import Summary


class HtmlReport:
    """Written at the end, from the document: like it, it shows the first findings of each kind."""

    def __init__(self, out: TextIO, document: Document) -> None:
        self._out = out
        self._document = document

    def finding(self, finding: Finding, comparison_round: int) -> None:
        """Nothing: the document has it."""

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """Nothing: the document has it."""

    def end(self, result: int) -> None:  # noqa: ARG002  # the document has it
        """Write the whole."""
        self._out.write(render(self._document.values()))


def render(values: Mapping[str, Any]) -> str:
    """The page for a report's values, which it holds too, as their hash is made of them."""
    environment = Environment(
        loader=PackageLoader("auditstore.reconciliation.html", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=wording.number, moment=wording.moment, hour=moment, words=wording.words,
    )  # fmt: skip
    body = {name: value for name, value in values.items() if name != "sha256"}
    style = files("auditstore.reconciliation.html").joinpath("report.css").read_text("utf-8")
    text: str = environment.get_template("report.html.j2").render(
        page=Page(values),
        values=values,
        data=canonical(body).decode(),
        style=Markup(style),  # noqa: S704  # our own file
    )
    # What stands before the page defines its parts.
    return text.lstrip()


def _shown(value: Any) -> Any:
    """Whatever the template writes down, before it is escaped; its own parts are left alone."""
    return (
        wording.visible(value)
        if isinstance(value, str) and not isinstance(value, Markup)
        else value
    )
