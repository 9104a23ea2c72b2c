"""The HTML report: one file that needs nothing, holds no script, and escapes what others wrote."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from auditstore.errors import ReportDamaged
from auditstore.reconciliation import Finding, Kind, Summary
from auditstore.reconciliation.differing import Differences, FieldChange
from auditstore.reconciliation.document import About, Document
from auditstore.reconciliation.html import render
from auditstore.reconciliation.patterns import Pattern, Period, Sort, Tally, delay
from auditstore.reconciliation.report_file import read_report

HOSTILE = (
    "</pre></style></title><script>alert(1)</script><img src=//x onerror=a>\"'&{{7*7}}\u202e\x1b"
)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
VOID = {"meta", "br", "img", "link", "input"}


def document(*, text: str = "plain", rounds: int = 1, found: int = 1) -> dict[str, Any]:
    """A report with ``text`` wherever somebody else's text may stand."""
    made = Document(
        About(
            NOW, text, text, {"auditstore": text, "schema": text, "server": text},
            {"level": "events", "since": NOW, "until": None, "flow": text, "stream": None,
             "repair": "yes" if rounds > 1 else "no", "views": None},
        )
    )  # fmt: skip
    for number in range(1, rounds + 1):
        summary = Summary(
            1, text, text, "events", intervals=((0, 9),), first_sequence=1, last_sequence=2,
            compared_at=NOW, head_sequence=2, head_hash="ab" * 32, events_expected=9,
            events_found=number, events_matched=number, repaired=2 - number if rounds > 1 else 0,
            pattern=Pattern(
                "hour", (Period(0, Tally(9, number, number)), Period(7200, Tally(0, 3, 0))),
                (Sort(text, None, Tally(9, number, number)),),
                differing=(Sort(text, text, Tally(9, 1, 1), 0),), delay=delay({50: 3, 900: 1}, 880),
            ),
        )  # fmt: skip
        for _ in range(found):
            made.finding(
                Finding(
                    Kind.CHANGED_EVENT, 1, text, text, 1, 2, text, text, text, text, text, text,
                    text, Differences((FieldChange(text, "changed", "text", "number"),)), text,
                    repaired=rounds > 1 and number == 1,
                ),
                number,
            )  # fmt: skip
            summary.counts[Kind.CHANGED_EVENT] += 1
        made.stream(summary, number)
    made.close(1, NOW)
    return made.values()


class Outline(HTMLParser):
    """The elements of a page, checked to be closed in order; its text and its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Noted; ``<rect/>`` comes as a start and an end."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It must be the one that was opened last."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Kept."""
        self.text += data


@pytest.mark.parametrize("rounds", [1, 2])
def test_hostile_text_stays_text(rounds: int) -> None:
    """Wherever it stands it is shown, adds no element, and no character that cannot be seen."""
    plain = Outline(render(document(rounds=rounds)))
    page = render(document(text=HOSTILE, rounds=rounds))
    hostile = Outline(page)

    assert hostile.tags == plain.tags
    assert "<script>alert(1)</script>" in hostile.text
    assert "{{7*7}}" in hostile.text
    assert not re.search("[\u202a-\u202e\x1b]", page)
    assert page.startswith("<!DOCTYPE html>")


def test_nothing_comes_from_elsewhere() -> None:
    """No script, no link, no picture, no address that a browser would go to."""
    page = Outline(render(document()))
    assert {"script", "link", "img", "iframe", "object", "base", "form"}.isdisjoint(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert {"src", "srcset", "action", "data", "xlink:href"}.isdisjoint(names)
    assert [value for name, value in page.attributes if name == "href"] == ["#report"]
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_charts_and_tables_have_words() -> None:
    """Whoever cannot see them is told: a title each, captions, headings in order, a language."""
    text = render(document())
    page = Outline(text)
    assert page.tags.count("table") == page.tags.count("caption")
    assert ("lang", "en") in page.attributes
    assert text.count('role="img"') == 2
    assert text.count('aria-labelledby="chart-') == 2
    assert "2 columns" not in text  # the hour without events has its place too
    assert "3 columns of one hour each" in text


def test_before_and_after() -> None:
    """After a repair both rounds stand side by side, and each has its findings."""
    text = render(document(rounds=2))
    assert "Before the repair" in text
    assert "After the repair" in text
    assert "Found before the repair" in text
    assert "Still found after the repair" in text
    assert "Before the repair" not in render(document())


def test_what_is_left_out_is_said() -> None:
    """More findings of a kind than are kept are counted."""
    values = document(found=130)
    assert (values["findings_total"], values["findings_left_out"]) == (130, 30)
    assert "30 more of this kind" in render(values)


def test_a_page_that_was_altered_is_refused(tmp_path: Path) -> None:
    """In its data or in its figures; untouched it is read, with the hash that it shows."""
    page = tmp_path / "report.html"
    values = document(text=HOSTILE)
    text = render(values)
    page.write_text(text, "utf-8")
    assert read_report(page) == values
    assert values["sha256"] in text

    for old, new in (
        ("Differences were found.", "Everything is there."),
        ("&#34;events_matched&#34;:1,", "&#34;events_matched&#34;:9,"),
        (values["sha256"], "0" * 64),
    ):
        assert old in text
        page.write_text(text.replace(old, new), "utf-8")
        with pytest.raises(ReportDamaged):
            read_report(page)


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    """Another file, a page without data, JSON of something else."""
    file = tmp_path / "file"
    for text in ("", "{}", "[]", "<html></html>", "{oops", '<pre id="report-data">{}</pre>'):
        file.write_text(text)
        with pytest.raises(ReportDamaged):
            read_report(file)
