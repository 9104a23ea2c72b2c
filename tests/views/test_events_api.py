"""LeadConduit's API as it should be, and as it should not: a clear error, or patience."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.fake_leadconduit import Answer, FakeLeadConduit
from support.snapshots import event_id, snapshot
from support.views import Waits, past

from auditstore.errors import (
    AuditStoreError,
    ConfigurationError,
    LeadConduitChanged,
    LeadConduitRefused,
    LeadConduitUnavailable,
    ViewUnreadable,
)
from auditstore.reconciliation.views import Record, Trouble
from auditstore.reconciliation.views.events_api import Access
from auditstore.reconciliation.views.leadconduit import LeadConduitView
from auditstore.reconciliation.views.records import Window

Make = Callable[..., LeadConduitView]


def ids(view: LeadConduitView, window: Window | None = None) -> list[str]:
    """The ids of everything that the view tells."""
    return [each.event_id or "?" for each in view.read(window or Window())]


def test_pages_to_the_end(leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """Every event once, in ascending order, each page asked for after the last one's end."""
    made = [snapshot() for _ in range(25)]
    leadconduit.add(*made)
    leadconduit.page = 10
    told = list(api_view().read(Window()))
    assert [each.payload for each in told if isinstance(each, Record)] == made
    assert [each.get("after_id") for each in leadconduit.asked] == [
        None, *(orjson.loads(made[n])["id"] for n in (9, 19, 24)),
    ]  # fmt: skip
    assert all(each["sort"] == "asc" and each["limit"] == "1000" for each in leadconduit.asked)


def test_an_interval_is_half_open(leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """An event at its beginning counts, one at its end does not."""
    start = datetime(2026, 11, 20, tzinfo=UTC)
    times = [start - timedelta(seconds=1), start, start + timedelta(hours=1)]
    made = [event_id(at=each.timestamp()) for each in times]
    leadconduit.add(*(snapshot(id=each) for each in made))
    window = Window(since=start, until=start + timedelta(hours=1))
    assert ids(api_view(), window) == made[1:2]


def test_bytes_are_those_that_were_sent(leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """Spaces, escapes and numbers are not written anew on the way."""
    odd = (
        f'{{ "id":"{event_id()}", "type": "source","outcome":"success", "x":1.50, "n": 1e2,'
        '"long":123456789012345678901234567890, "u":"\\u00e9é", '
        '"vars": {"flow":{"id":"flow-1"}} }'
    ).encode()
    leadconduit.add(odd)
    (told,) = api_view().read(Window())
    assert isinstance(told, Record)
    assert told.payload == odd


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_passes_is_waited_for(
    leadconduit: FakeLeadConduit, api_view: Make, waits: Waits, status: int
) -> None:
    """Each further try comes later, by chance; then the run goes on as if nothing had been."""
    leadconduit.add(snapshot())
    leadconduit.script = [Answer(status)] * 3
    assert len(ids(api_view())) == 1
    assert len(leadconduit.asked) == 5
    assert len(waits.slept) >= 3


def test_retry_after_is_honoured(
    leadconduit: FakeLeadConduit, api_view: Make, waits: Waits
) -> None:
    """In seconds or as a date, it is waited for, not our own time."""
    moment = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    leadconduit.script = [
        Answer(429, {"Retry-After": "37"}), Answer(503, {"Retry-After": moment}),
        Answer(429, {"Retry-After": "soon"}),
    ]  # fmt: skip
    assert ids(api_view()) == []
    assert 37.0 in waits.slept
    assert any(95 < each <= 100 for each in waits.slept)


def test_too_long_a_wait_is_told(leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """Nobody sits out an hour unasked."""
    leadconduit.script = [Answer(429, {"Retry-After": "3600"})]
    with pytest.raises(LeadConduitUnavailable, match="3600 seconds"):
        ids(api_view())
    assert len(leadconduit.asked) == 1


@pytest.mark.parametrize("then", ["half", "cut"])
def test_answers_cut_short_are_asked_for_again(
    leadconduit: FakeLeadConduit, api_view: Make, then: Any
) -> None:
    """A connection that ends within or before an answer loses nothing."""
    leadconduit.add(*(snapshot() for _ in range(5)))
    leadconduit.script = [Answer(then=then)]
    assert len(ids(api_view())) == 5


def test_patience_ends(leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """After so many tries it is an error that says how to go on later."""
    leadconduit.script = [Answer(503)] * 3
    with pytest.raises(LeadConduitUnavailable, match="in 3 tries: it answered 503") as error:
        ids(api_view(attempts=3))
    assert "--checkpoint" in error.value.hint


def test_requests_keep_their_distance(
    leadconduit: FakeLeadConduit, api_view: Make, waits: Waits
) -> None:
    """No more of them a second than was allowed."""
    leadconduit.add(*(snapshot() for _ in range(30)))
    leadconduit.page = 10
    began = waits.at
    ids(api_view(per_second=2.0))
    assert len(leadconduit.asked) == 4
    assert waits.at - began == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Answer(401), LeadConduitRefused, "API key"),
        (Answer(403), LeadConduitRefused, "403"),
        (Answer(404), LeadConduitRefused, "404"),
        (Answer(302, {"Location": "http://127.0.0.1:9/"}), LeadConduitRefused, "redirects"),
        (Answer(text="<html>"), ViewUnreadable, "no JSON array"),
        (Answer(text="{}"), ViewUnreadable, "no JSON array"),
        (Answer(text=""), ViewUnreadable, "no JSON array"),
        (Answer(text="[{},"), ViewUnreadable, "event 1 on the first page has no id"),
        (Answer(text="[1]"), ViewUnreadable, "has no id"),
        (Answer(text='[{"id": "6924f1c0a1b2c3d4e5f60718"} x'), ViewUnreadable, "cut short"),
        (Answer(text='[{"id": "6924f1c0a1b2c3'), ViewUnreadable, "cut short"),
        (Answer(text="[] []"), ViewUnreadable, "follows the array"),
        (Answer(text="[\udcff]"), ViewUnreadable, "not UTF-8"),
        (Answer(then="reversed"), LeadConduitChanged, "go back to"),
        (Answer(then="repeated"), LeadConduitChanged, "repeat "),
    ],
)
def test_what_is_wrong_is_said(
    leadconduit: FakeLeadConduit, api_view: Make, answer: Answer, error: type[AuditStoreError],
    words: str,
) -> None:  # fmt: skip
    """One clear error each, after one try, with the place and never with the key."""
    leadconduit.add(*(snapshot() for _ in range(3)))
    leadconduit.script = [answer]
    key = "a-wrong-key" if answer.status == 401 else None
    with pytest.raises(error, match=words) as found:
        ids(api_view(key=key) if key else api_view())
    assert len(leadconduit.asked) == 1
    assert found.value.hint
    assert "a-wrong-key" not in str(found.value) + repr(found.value.__cause__)


def test_a_page_that_does_not_advance(leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """A server that begins at the beginning again is noticed at once."""
    leadconduit.add(*(snapshot() for _ in range(20)))
    leadconduit.page = 10
    leadconduit.script = [Answer(), Answer(ignoring=["after_id"])]
    with pytest.raises(LeadConduitChanged, match="go back to"):
        ids(api_view())


def test_an_event_without_a_flow_is_a_finding(leadconduit: FakeLeadConduit, api_view: Make) -> None:
    """One odd event does not stop the run."""
    leadconduit.add(snapshot(), snapshot(flow=None), snapshot())
    told = list(api_view().read(Window()))
    assert [type(each) for each in told] == [Record, Trouble, Record]


def test_a_cut_run_goes_on(leadconduit: FakeLeadConduit, api_view: Make, tmp_path: Path) -> None:
    """What was fetched is there, and is not asked for again; only its owner may read it."""
    made = [snapshot() for _ in range(30)]
    leadconduit.add(*made)
    leadconduit.page = 10
    checkpoint = tmp_path / "checkpoint"
    leadconduit.script = [Answer(), Answer(), Answer(404)]
    with pytest.raises(LeadConduitRefused):
        ids(api_view(checkpoint=checkpoint))
    assert checkpoint.stat().st_mode & 0o777 == 0o600
    leadconduit.asked.clear()
    view = api_view(checkpoint=checkpoint)
    assert [each.payload for each in view.read(Window()) if isinstance(each, Record)] == made
    assert leadconduit.asked[0]["after_id"] == orjson.loads(made[19])["id"]
    assert len(leadconduit.asked) == 2
    view.forget_checkpoint()
    assert not checkpoint.exists()


def test_a_checkpoint_answers_one_question(
    leadconduit: FakeLeadConduit, api_view: Make, tmp_path: Path
) -> None:
    """Another interval is refused, and so is a file that is none."""
    leadconduit.add(past())
    checkpoint = tmp_path / "checkpoint"
    ids(api_view(checkpoint=checkpoint))
    other = Window(until=datetime.fromtimestamp(time.time(), UTC))
    with pytest.raises(ConfigurationError, match="another address or interval"):
        ids(api_view(checkpoint=checkpoint), other)
    checkpoint.write_bytes(b"something else, and long enough to be looked at " * 40)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ids(api_view(checkpoint=checkpoint))


@pytest.mark.parametrize(
    "url",
    ["http://example.com", "ftp://example.com", "https://user:pass@example.com", "nonsense",
     "https://example.com/?key=1", "http://["],
)  # fmt: skip
def test_addresses_that_are_refused(url: str) -> None:
    """Unencrypted ones off this machine, and those that are no address or hold more than one."""
    with pytest.raises(ConfigurationError):
        Access("key", url)


def test_the_key_is_in_no_repr() -> None:
    """Nor an empty or broken one in use."""
    assert "sesame" not in repr(Access("sesame"))
    for bad in ("", "two\nlines", "\u20ac"):
        with pytest.raises(ConfigurationError):
            Access(bad)
