"""Remakes the pictures of the console in docs/images.

    .venv/bin/python -m tests.web.console.screenshots

Real servers, a real exporter, a real browser. ``--all FOLDER`` puts every page in light and dark,
at desktop and phone width there instead, to look at.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa
from PIL import Image
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.browser import new_page, running_chromium
from support.console_scene import AUTO, HOME, SOLAR, Scene, console_scene
from support.console_server import PASSWORD
from support.postgres import Cluster, installed_versions
from support.strict_s3 import running_strict_s3

from auditstore.database import migrate

_IMAGES = Path(__file__).parents[3] / "docs" / "images"
_COLOURS = 128
_WIDTHS = {"desktop": (1280, 860), "phone": (390, 844)}


def main() -> None:
    """Set the scene and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="FOLDER")
    folder: Path | None = parser.parse_args().all
    with ExitStack() as stack:
        versions = installed_versions()
        cluster = Cluster.create(versions[max(versions)], settings={"fsync": "off"})
        stack.callback(cluster.destroy)
        cluster.execute("CREATE DATABASE console")
        url = cluster.url("console")
        migrate(url)
        engine = sa.create_engine(url)
        stack.callback(engine.dispose)
        server = stack.enter_context(running_strict_s3())
        scene = stack.enter_context(console_scene(engine, url, server))
        browser = stack.enter_context(running_chromium())
        for width in _WIDTHS:
            for scheme in ("light", "dark") if folder else ("light",):
                _take(browser, scene, folder or _IMAGES, width, scheme, whole=folder is not None)


def _take(
    browser: Browser, scene: Scene, folder: Path, width: str, scheme: str, *, whole: bool
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    size = {"width": _WIDTHS[width][0], "height": _WIDTHS[width][1]}
    with new_page(
        browser, viewport=size, color_scheme=scheme, reduced_motion="reduce"
    ) as watched:  # fmt: skip
        page = watched.page
        for name, shown in _PAGES.items():
            shown(page, scene)
            page.wait_for_load_state("networkidle")
            suffix = f"-{scheme}" if whole else ""
            picture = page.screenshot(full_page=whole, animations="disabled")
            _save(picture, folder / f"console-{name}-{width}{suffix}.png")


def _save(picture: bytes, to: Path) -> None:
    """With few colours, which is all that these pages have, and a third of the size."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(to, optimize=True)


def _at(path: str) -> Callable[[Page, Scene], None]:
    def shown(page: Page, scene: Scene) -> None:
        page.goto(scene.url + path.format(scene=scene))

    return shown


def _login(page: Page, scene: Scene) -> None:
    page.goto(f"{scene.url}/login")


def _flows(page: Page, _: Scene) -> None:
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator("svg.spark").first.wait_for()


def _dialog(page: Page, scene: Scene) -> None:
    page.goto(f"{scene.url}/flow?id={AUTO}")
    page.locator("#event-stream").click()
    page.locator("#dialog[open]").wait_for()


def _dialog_answered(page: Page, scene: Scene) -> None:
    page.goto(f"{scene.url}/flow?id={HOME}")
    page.locator("#event-stream").click()
    page.locator("#dialog[open]").wait_for()
    page.get_by_role("button", name="Test connection").click()
    page.locator("#stream-answer .note").first.wait_for()


def _event(page: Page, scene: Scene) -> None:
    page.goto(f"{scene.url}/flow/events?id={AUTO}")
    page.locator(f"#open-{scene.event_id}").click()
    page.locator("#event article").wait_for()


def _report(page: Page, scene: Scene) -> None:
    page.goto(f"{scene.url}/flow/reconciliation?id={AUTO}")
    page.get_by_role("button", name="Reconcile").click()
    page.locator("#findings").wait_for()


_PAGES: dict[str, Callable[[Page, Scene], None]] = {
    "login": _login,
    "flows": _flows,
    "flow": _at(f"/flow?id={AUTO}"),
    "flow-blocked": _at(f"/flow?id={HOME}"),
    "flow-unstreamed": _at(f"/flow?id={SOLAR}"),
    "stream": _dialog,
    "stream-test": _dialog_answered,
    "lead": _at(f"/flow/lead?id={AUTO}&lead={{scene.lead_id}}"),
    "events": _at(f"/flow/events?id={AUTO}"),
    "event": _event,
    "deliveries": _at(f"/flow/deliveries?id={AUTO}"),
    "report": _report,
    "reconciliation": _at(f"/flow/reconciliation?id={AUTO}"),
    "activity": _at("/activity"),
    "credentials": _at("/credentials"),
}


if __name__ == "__main__":
    main()
