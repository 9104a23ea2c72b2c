"""A real browser, driven by Playwright: the machine's Chromium, or Playwright's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: What is not a fault of the page: a refused form is answered with 4xx, which Chromium notes; and
#: a preview that another one overtakes is given up, which htmx notes.
_EXPECTED = (
    "Failed to load resource: the server responded with a status of 4",
    "htmx:sendAbort", "htmx:afterRequest", "htmx:responseError",
)  # fmt: skip
_SERIOUS = ("serious", "critical")
_TIMEOUT_MS = 15_000


def chromium() -> str | None:
    """The program, or ``None`` where this machine has no Chromium."""
    if named := os.environ.get("AUDITSTORE_TEST_BROWSER"):
        return named
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    named = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    caches = Path(named) if named else Path.home() / ".cache" / "ms-playwright"
    own = sorted(caches.glob("chromium-*/chrome-linux*/chrome"), reverse=True)
    return str(own[0]) if own else None


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A browser without a window; where there is none the test says so and is skipped.

    ``AUDITSTORE_TEST_BROWSER`` names one; what it names must be there.
    """
    program = chromium()
    if program is None:
        pytest.skip(
            "NO BROWSER HERE: the console was not tried in one. Install chromium, or name one "
            "with AUDITSTORE_TEST_BROWSER"
        )
    # Root has no sandbox of its own; the pages are our own.
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, and all that the browser complained of meanwhile."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._leaves)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(_EXPECTED):
            self.complaints.append(message.text)

    def _leaves(self, request: Any) -> None:
        """Nothing is loaded from elsewhere."""
        if not request.url.startswith(("http://127.0.0.1:", "data:")):
            self.complaints.append(f"asked for {request.url}")

    def accessible(self, what: str) -> None:
        """No serious finding of axe on the page as it is now."""
        found = Axe().run(self.page).response["violations"]
        serious = [
            f"{each['id']}: {each['help']}: {node['html'][:160]} {node.get('failureSummary', '')}"
            for each in found
            if each["impact"] in _SERIOUS
            for node in each["nodes"]
        ]
        assert not serious, f"{what}:\n" + "\n".join(serious)


@contextmanager
def new_page(browser: Browser, **options: Any) -> Iterator[Watched]:
    """A page of a fresh profile; at its end the browser must have had nothing to complain of."""
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(_TIMEOUT_MS)
    try:
        watched = Watched(context.new_page())
        yield watched
        assert not watched.complaints, watched.complaints
    finally:
        context.close()
