"""The whole path of the user's document, in a real browser against real servers."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import Engine
from support.azurite import Azurite
from support.browser import new_page, running_chromium
from support.console_site import FLOW, FLOW_NAME, NAME, PASSWORD, ConsoleSite, running_site
from support.eventually import eventually
from support.stores import make_container
from support.strict_s3 import StrictS3

from auditstore import streams
from auditstore.reconciliation import Scope, compare_stream
from exporters.stores import open_store

ALL = ("s3:PutObject", "s3:GetObject", "s3:ListBucket")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests here; each has a profile of its own."""
    with running_chromium() as found:
        yield found


@pytest.fixture
def console_site(engine: Engine, database_url: str) -> Iterator[ConsoleSite]:
    """The console on a fresh database."""
    with running_site(engine, database_url) as site:
        yield site


def policy(bucket: str) -> Mapping[str, Any]:
    """All that delivering and reconciling need in this bucket."""
    arn = f"arn:aws:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": list(ALL), "Resource": [arn, f"{arn}/*"]}],
    }


def log_in(page: Page, site: ConsoleSite) -> None:
    """Through the login page, as a person does."""
    page.goto(site.url)
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Flows")).to_be_visible()


def open_dialog(page: Page) -> Locator:
    """By the icon at the upper right."""
    page.locator("#event-stream").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def test_from_the_login_to_a_disabled_stream_on_s3(
    browser: Browser, console_site: ConsoleSite, strict_s3: StrictS3, engine: Engine
) -> None:
    """A person sets a stream up, mends its secret, sees a test lead arrive, and ends it."""
    site, bucket = console_site, strict_s3.bucket()
    first, second = (strict_s3.user(policy(bucket)) for _ in range(2))
    site.append_leads(3)
    with new_page(browser, viewport={"width": 1280, "height": 900}) as watched, site.exporter():
        page = watched.page
        log_in(page, site)
        watched.accessible("flows")

        page.get_by_role("link", name=FLOW_NAME).click()
        expect(page.get_by_text("not streamed yet")).to_be_visible()
        watched.accessible("a flow without a stream")
        dialog = open_dialog(page)
        dialog.get_by_label("Stream this flow's events").check()
        dialog.get_by_role("checkbox", name="Amazon S3").check()
        s3 = dialog.get_by_role("region", name="Amazon S3")
        s3.get_by_label("Name of the new credential").fill("our-key")
        s3.get_by_label("Access key id").fill(first.secret["access_key_id"])
        s3.get_by_label("Secret access key").fill("not-the-secret-of-this-key")
        s3.get_by_label("Bucket").fill(bucket)
        s3.get_by_label("Prefix").fill("leads/auto")
        s3.get_by_label("Region").fill("us-east-1")
        s3.get_by_label("Endpoint").fill(strict_s3.url)
        expect(dialog.locator("#s3-key")).to_contain_text(f"leads/auto/flow_id={FLOW}/")
        expect(dialog.locator("#stream-plan")).to_contain_text(
            f"Every event appended from now on is delivered to s3://{bucket}/leads/auto"
        )
        watched.accessible("the dialog")

        # The wrong secret, and the right one.
        dialog.get_by_role("button", name="Test connection").click()
        answer = dialog.locator("#stream-answer")
        expect(answer).to_contain_text("the connection does not work")
        expect(answer).to_contain_text("SignatureDoesNotMatch")
        expect(answer).to_contain_text("What to do")
        watched.accessible("a connection that does not work")
        s3.get_by_label("Secret access key").fill(first.secret["secret_access_key"])
        dialog.get_by_role("button", name="Test connection").click()
        expect(answer).to_contain_text("the connection works")

        # Not without the box; nothing that was typed is lost, the secret included.
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.locator("#error-confirm")).not_to_be_empty()
        expect(s3.get_by_label("Prefix")).to_have_value("leads/auto")
        expect(s3.get_by_label("Secret access key")).to_have_value(
            first.secret["secret_access_key"]
        )
        with engine.connect() as connection:
            assert streams.find(connection) == []
        dialog.get_by_label("I have read what changes").check()
        dialog.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved.")).to_be_visible()
        assert first.secret["secret_access_key"] not in page.content()

        # A test lead, to the object that holds each of its events.
        page.get_by_role("link", name="Test lead").first.click()
        page.get_by_role("button", name="Send a test lead").click()
        expect(page.get_by_text("all delivered")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_have_text(FLOW_NAME)
        watched.accessible("a test lead")
        keys = {text.removeprefix(f"s3://{bucket}/")
                for text in page.locator(".object-key").all_inner_texts()}  # fmt: skip
        assert all(key.startswith("leads/auto/") for key in keys)
        sent = [event for key in keys for event in events_in(strict_s3, bucket, key)]
        (lead_id,) = {event["vars"]["lead"]["id"] for event in sent}
        assert [event["type"] for event in sent][-1] == "source"
        # Those of before were appended before the stream began.
        assert len(sent) == page.locator("[data-state=delivered]").count()

        # The Events tab has them, newest first, and shows one beside its lead's way.
        page.get_by_role("link", name="Events", exact=True).first.click()
        page.get_by_label("Lead id").fill(lead_id)
        page.get_by_label("Type").select_option("source")
        page.get_by_role("button", name="Filter").click()
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(1)
        rows.locator("a").first.click()
        article = page.locator("#event article")
        expect(article.locator(".json")).to_contain_text(f'"{lead_id}"')
        expect(article.locator(".timeline li")).to_have_count(len(sent))
        expect(article).to_contain_text("delivered")
        expect(article).to_contain_text(f"s3://{bucket}/leads/auto/")
        watched.accessible("an event")

        page.get_by_role("link", name="Deliveries").first.click()
        expect(page.locator("#deliveries")).to_contain_text("leads/auto/flow_id=")
        watched.accessible("deliveries")

        page.get_by_role("link", name="Reconciliation").first.click()
        page.get_by_label("Compare").select_option("events")
        page.get_by_role("button", name="Reconcile").click()
        expect(page.locator("#report")).to_contain_text("No findings")
        expect(page.locator("#report .chip").first).to_have_text("reconciled")
        watched.accessible("a report")

        # The credential gets the second key; the first may go.
        page.get_by_role("link", name="Credentials").click()
        page.get_by_text("Give it a new secret").click()
        page.get_by_label("Access key id").fill(second.secret["access_key_id"])
        page.get_by_label("Secret access key").fill("wrong")
        page.get_by_role("button", name="Try it").click()
        expect(page.get_by_role("alert")).to_contain_text("stays in force")
        page.get_by_label("Access key id").fill(second.secret["access_key_id"])
        page.get_by_label("Secret access key").fill(second.secret["secret_access_key"])
        page.get_by_role("button", name="Try it").click()
        expect(page.get_by_text("has a new secret")).to_be_visible()
        watched.accessible("credentials")
        strict_s3.delete_key(first)

        page.get_by_role("link", name="Activity").click()
        shown = page.locator("main")
        expect(shown).to_contain_text(f"{NAME} (console)")
        expect(shown).to_contain_text("credential rotate")
        watched.accessible("activity")
        page.get_by_role("link", name="Opened events").click()
        expect(page.locator("tbody tr").first).to_contain_text(NAME)
        expect(page.locator("tbody tr").first).to_contain_text(FLOW)
        watched.accessible("opened events")
        for secret in (*first.secret.values(), *second.secret.values()):
            assert secret not in page.content()

        # Off: what is appended now goes nowhere.
        page.goto(f"{site.url}/flow?id={FLOW}")
        dialog = open_dialog(page)
        dialog.get_by_label("Stream this flow's events").uncheck()
        expect(dialog.locator("#stream-plan")).to_contain_text("stops at once")
        dialog.get_by_label("I have read what changes").check()
        dialog.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved.")).to_be_visible()
        expect(page.locator("#state .chip").first).to_have_text("disabled")
    with engine.connect() as connection:
        (stream,) = streams.find(connection)
        assert not stream.enabled
    store = open_store(stream.destination, region="us-east-1", secret=second.secret)
    summary = compare_stream(
        engine, stream.stream_id, lambda: store, Scope("events"), report=lambda _: None
    )
    assert (summary.result, summary.events_matched) == ("reconciled", len(sent))


def test_the_same_dialog_delivers_to_azure(
    browser: Browser, console_site: ConsoleSite, azurite_server: Azurite
) -> None:
    """On a phone in the dark: a container that is not there, then the right one."""
    site, container = console_site, make_container(azurite_server)
    site.append_leads(1)
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    with new_page(browser, **phone) as watched, site.exporter():
        page = watched.page
        log_in(page, site)
        page.goto(f"{site.url}/flow?id={FLOW}")
        dialog = open_dialog(page)
        dialog.get_by_label("Stream this flow's events").check()
        dialog.get_by_role("checkbox", name="Azure Blob Storage").check()
        azure = dialog.get_by_role("region", name="Azure Blob Storage")
        azure.get_by_label("Name of the new credential").fill("our-account")
        azure.get_by_label("Connection string").fill(azurite_server.connection_string)
        azure.get_by_label("Container").fill("no-such-container")
        azure.get_by_text("Advanced").click()
        azure.get_by_label("Format").select_option("json")
        watched.accessible("the dialog on a phone in the dark")
        dialog.get_by_role("button", name="Test connection").click()
        answer = dialog.locator("#stream-answer")
        expect(answer).to_contain_text("ContainerNotFound")
        azure.get_by_label("Container").fill(container)
        dialog.get_by_role("button", name="Test connection").click()
        expect(answer).to_contain_text("the connection works")
        dialog.get_by_label("I have read what changes").check()
        dialog.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved.")).to_be_visible()
        page.get_by_role("link", name="Test lead").first.click()
        page.get_by_role("button", name="Send a test lead").click()
        expect(page.get_by_text("all delivered")).to_be_visible()
        watched.accessible("a test lead on a phone in the dark")
        key = page.locator(".object-key").first.inner_text()
        assert re.fullmatch(rf"azure://{container}/[0-9a-f]{{24}}/[0-9a-f]{{24}}\.json", key)
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), "it scrolls sideways"


def events_in(server: StrictS3, bucket: str, key: str) -> list[dict[str, Any]]:
    """The events of a delivered file."""
    body = server.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return [orjson.loads(line) for line in gzip.decompress(body).splitlines()]


def test_what_a_page_shows_renews_itself(browser: Browser, console_site: ConsoleSite) -> None:
    """An event that is appended while somebody looks is there without a reload."""
    site = console_site
    site.append_leads(1)
    with new_page(browser) as watched:
        page = watched.page
        log_in(page, site)
        page.goto(f"{site.url}/flow/events?id={FLOW}")
        before = page.locator("tbody tr").count()
        assert before > 0
        site.append_leads(1, seed=2)
        eventually(lambda: page.locator("tbody tr").count() > before, within=20, what="the row")


def test_the_keyboard_alone_reaches_and_leaves_the_dialog(
    browser: Browser, console_site: ConsoleSite
) -> None:
    """The skip link comes first; Escape gives the focus back to where it was."""
    site = console_site
    site.append_leads(1)
    with new_page(browser) as watched:
        page = watched.page
        log_in(page, site)
        page.goto(f"{site.url}/flow?id={FLOW}")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        icon = page.locator("#event-stream")
        for _ in range(4):
            page.keyboard.press("Tab")
            if icon.evaluate("each => each === document.activeElement"):
                break
        expect(icon).to_be_focused()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        inside = "each => each.contains(document.activeElement)"
        for _ in range(3):
            assert dialog.evaluate(inside), "the focus has left the dialog"
            page.keyboard.press("Tab")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(icon).to_be_focused()
