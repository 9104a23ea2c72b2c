"""The console's pages over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import sqlalchemy as sa
from support.console_server import PASSWORD, Browser, FewPeople, token_in
from support.stores import S3_SECRET, Place

from auditstore import EventRepository, credentials, streams
from auditstore.demo import flow_engine
from auditstore.demo.flow_engine import LeadResult
from auditstore.streams import NewStream
from auditstore.vault import Vault, new_key

PAGES = ("/flow", "/flow/events", "/flow/deliveries", "/flow/lead", "/flow/reconciliation",
         "/flow/activity", "/flow/stream")  # fmt: skip


def append(engine: sa.Engine, flow_id: str = "flow-1") -> LeadResult:
    """A test lead's events."""
    lead = flow_engine.test_lead(flow_id, time.time)
    with engine.begin() as connection:
        EventRepository().append(connection, lead.events, flow_id=flow_id)
    return lead


def test_nobody_sees_a_page_before_logging_in(console_url: str) -> None:
    """Every page leads to the login, which leads back, and only within the console."""
    with httpx.Client(base_url=console_url) as http:
        answer = http.get("/flow/events?id=x")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/login?next=%2Fflow%2Fevents%3Fid%3Dx"
        assert http.get("/flow", headers={"HX-Request": "true"}).status_code == 401
        for wanted, comes_to in (("/flow?id=x", "/flow?id=x"), ("//evil.example", "/")):
            page = http.get("/login", params={"next": wanted})
            form = {"name": "ada", "password": PASSWORD, "next": wanted,
                    "csrf_token": token_in(page.text)}  # fmt: skip
            assert http.post("/login", data=form).headers["location"] == comes_to


def test_a_wrong_password_keeps_the_name_and_never_the_password(console_url: str) -> None:
    """The login's refusal shows the name again, and nothing of the password."""
    with httpx.Client(base_url=console_url) as http:
        token = token_in(http.get("/login").text)
        form = {"name": "ada", "password": "not-this-one", "csrf_token": token}
        answer = http.post("/login", data=form)
    assert answer.status_code == 403
    assert 'value="ada"' in answer.text
    assert "not-this-one" not in answer.text


def test_forms_of_another_session_are_not_taken(ada: Browser, engine: sa.Engine) -> None:
    """Without the session's own token nothing is done."""
    answer = ada.post("/flow/lead", id="flow-1", csrf_token="of-somebody-else")
    assert answer.status_code == 403
    with engine.connect() as connection:
        assert not EventRepository().find(connection)


def test_after_logging_out_the_session_is_over(ada: Browser) -> None:
    """The cookie of a session that was left opens nothing."""
    cookie = ada.http.cookies["auditstore_session"]
    assert ada.post("/logout").headers["location"] == "/login"
    again = httpx.get(ada.http.base_url, cookies={"auditstore_session": cookie})
    assert again.status_code == 303


def test_pages_load_nothing_that_the_policy_would_block(ada: Browser) -> None:
    """No page has an inline script, style or handler, and none is kept in a cache."""
    for path in ("/", *PAGES, "/activity", "/credentials", "/login"):
        answer = ada.get(path, id="flow-1") if path.startswith("/flow") else ada.get(path)
        assert answer.status_code == 200, path
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        for forbidden in (" style=", "<style", " onclick", "javascript:", "hx-on", 'src="http'):
            assert forbidden not in answer.text, path
        assert "<script>" not in answer.text


def test_an_empty_flow_has_pages_that_say_so(ada: Browser) -> None:
    """A flow of which nothing is known is no error, whatever its id."""
    for path in PAGES:
        answer = ada.get(path, id="a flow/with?odd&name")
        assert answer.status_code == 200, path
        assert "a flow/with?odd&amp;name" in answer.text, path


def test_flows_are_listed_with_their_names_states_and_days(ada: Browser, engine: sa.Engine) -> None:
    """A flow with events, and one that has only a stream."""
    lead = append(engine)
    with engine.begin() as connection:
        streams.add(connection, NewStream("flow-2", "s3://some-bucket/two"), actor="test")
    page = ada.get("/", part="rows").text
    assert "flow-1" in page
    assert "flow-2" in page
    assert "no stream" in page
    assert "streaming" in page
    assert f"{len(lead.events)} events in 14 days" in page
    assert "flow-1" not in ada.get("/", part="rows", search="FLOW-2").text
    assert "No flow has" in ada.get("/", search="absent").text


def test_who_may_see_one_flow_sees_no_other(
    come_in: Callable[[str], Browser], engine: sa.Engine
) -> None:
    """Another flow's pages, the activity and the credentials are not there."""
    append(engine)
    append(engine, "flow-2")
    with engine.begin() as connection:
        credentials.add(
            connection, Vault([new_key()]), name="known-elsewhere", kind="s3",
            secret=dict(S3_SECRET), actor="test",
        )  # fmt: skip
    finn = come_in("finn")
    assert "flow-1" in finn.get("/").text
    assert "flow-2" not in finn.get("/").text
    for path in PAGES:
        assert finn.get(path, id="flow-2").status_code == 404
        assert finn.get(path, id="flow-1").status_code == 200
    assert finn.get("/activity").status_code == 403
    assert finn.post("/flow/lead", id="flow-2").status_code == 404
    # What no stream of the flow uses is no choice there.
    assert "known-elsewhere" not in finn.get("/flow/stream", id="flow-1").text
    assert "known-elsewhere" in come_in("olaf").get("/flow/stream", id="flow-1").text


def test_a_viewer_changes_nothing(come_in: Callable[[str], Browser]) -> None:
    """A viewer sees no configuration and can send none."""
    vera = come_in("vera")
    assert 'id="event-stream"' not in vera.get("/flow", id="flow-1").text
    assert vera.get("/flow/stream", id="flow-1").status_code == 403
    for path in ("/flow/stream", "/flow/stream/test", "/flow/lead", "/flow/reconciliation"):
        assert vera.post(path, id="flow-1").status_code == 403


def test_events_are_filtered_and_mistakes_shown_at_their_field(
    ada: Browser, engine: sa.Engine
) -> None:
    """Each filter narrows the list; what cannot be read keeps what was typed."""
    lead = append(engine)
    everything = ada.get("/flow/events", id="flow-1").text
    assert everything.count('class="clickable"') == len(lead.events)
    only = {"type": "source", "outcome": "success", "lead": lead.lead_id, "start": "2020-01-01"}
    assert ada.get("/flow/events", id="flow-1", **only).text.count('class="clickable"') == 1
    assert "No events match" in ada.get("/flow/events", id="flow-1", text="nowhere-in-it").text
    assert "No events match" in ada.get("/flow/events", id="flow-1", end="2020-01-01").text
    wrong = ada.get("/flow/events", id="flow-1", start="yesterdayish", reason="kept <b>")
    assert wrong.status_code == 422
    assert 'value="yesterdayish" placeholder="2026-11-24" aria-invalid="true"' in wrong.text
    assert 'value="kept &lt;b&gt;"' in wrong.text


def test_events_are_paged_without_a_gap(ada: Browser, engine: sa.Engine) -> None:
    """Following the link to older events comes to every event once."""
    expected = {ident for _ in range(20) for ident in ids_of(append(engine))}
    seen: list[str] = []
    path = "/flow/events?id=flow-1"
    while path:
        page = ada.http.get(path).text
        seen += [part.split('"')[0] for part in page.split('id="open-')[1:]]
        path = page.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&") if (
            'rel="next"' in page) else ""  # fmt: skip
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


def ids_of(lead: LeadResult) -> list[str]:
    """The ids of a lead's events."""
    return [event.split(b'"id":"')[1][:24].decode() for event in lead.events]


def test_an_opened_event_is_whole_and_its_opening_is_recorded(
    ada: Browser, engine: sa.Engine, people: FewPeople
) -> None:
    """The snapshot is shown as data, beside every step of its lead; who read it is kept."""
    lead = append(engine)
    first = ids_of(lead)[0]
    page = ada.get("/flow/event", id="flow-1", event=first, htmx=True).text
    assert page.count("<li") == len(lead.events)
    assert lead.lead_id in page
    assert people.read == [("ada", "flow-1", first)]
    assert ada.get("/flow/event", id="flow-1", event="0" * 24).status_code == 404


def test_no_test_lead_is_sent_in_vain(ada: Browser, engine: sa.Engine) -> None:
    """Without a stream or an exporter it says so, and appends nothing."""
    answer = ada.post("/flow/lead", id="flow-1")
    assert answer.status_code == 409
    assert "not streamed" in answer.text
    with engine.begin() as connection:
        streams.add(connection, NewStream("flow-1", "s3://some-bucket/one"), actor="test")
    assert "No exporter is running" in ada.post("/flow/lead", id="flow-1").text
    with engine.connect() as connection:
        assert not EventRepository().find(connection)


def test_a_reconciliation_runs_and_is_there_as_page_and_file(
    ada: Browser, engine: sa.Engine, folder_place: Place
) -> None:
    """It is started for a period, ends by itself, and every form of its report is whole."""
    with engine.begin() as connection:
        new = NewStream("flow-1", folder_place.destination.url)
        streams.add(connection, new, actor="test")
    wrong = ada.post(
        "/flow/reconciliation", id="flow-1", since="2026-02-30", until="", level="files"
    )
    assert wrong.status_code == 422
    assert 'value="2026-02-30" placeholder="2026-11-01" aria-invalid="true"' in wrong.text
    started = ada.post("/flow/reconciliation", id="flow-1", since="", until="", level="events")
    path = started.headers["location"]
    page = ada.http.get(path).text
    while "how-far" in page:
        page = ada.http.get(path).text
    assert "reconciled" in page
    assert "Kept as report 1" in page
    for form, content in (("text", "RECONCILED"), ("json", '"stream_id"'), ("csv", "kind"),
                          ("html", "<html")):  # fmt: skip
        report = ada.http.get(path.replace("report", "download") + f"&form={form}")
        assert report.headers["content-disposition"].startswith("attachment")
        assert content in report.text
    # It is kept, beyond the console's own life, and for this flow alone.
    assert "report 1" in ada.get("/flow/reconciliation", id="flow-1").text
    kept = ada.get("/flow/reconciliation/report", id="flow-1", job="1").text
    assert "Kept as report 1, SHA-256" in kept
    assert "No findings" in kept
    page = ada.get("/flow/reconciliation/download", id="flow-1", job="1", form="html")
    assert page.headers["content-disposition"].endswith('.html"')
    assert ada.get("/flow/reconciliation/report", id="flow-2", job="1").status_code == 404
    assert ada.get("/flow/reconciliation/report", id="flow-1", job="2").status_code == 404
