"""`POST /api/v1/events`: one event, an array, a line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from support.sample_events import snapshot

from auditstore.web.api.state import ApiSettings

Refusal = Callable[..., dict[str, Any]]
_EVENTS = "/api/v1/events"


def send(
    client: httpx.Client, body: bytes, kind: str = "application/json", **params: str
) -> httpx.Response:
    """Append a body as it is."""
    return client.post(_EVENTS, content=body, headers={"content-type": kind}, params=params)


def stored(engine: sa.Engine) -> list[bytes]:
    """The snapshots in the store, in the order of their positions."""
    with engine.connect() as connection:
        found = connection.execute(
            sa.text("SELECT payload::text FROM auditstore.events ORDER BY position")
        )
        return [row.payload.encode() for row in found]


def results(answer: httpx.Response, status: int) -> list[str]:
    """What became of each event."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    found = [each["result"] for each in said["events"]]
    assert [each["index"] for each in said["events"]] == list(range(len(found)))
    assert said["appended"] == found.count("appended")
    assert said["existing"] == found.count("existing")
    assert said["refused"] == len(found) - said["appended"] - said["existing"]
    return found


def test_one_event_is_appended_once(engine: sa.Engine, client: httpx.Client) -> None:
    """201 the first time, 200 the second; the bytes are the sender's own."""
    event = b' {"id": "690000000000000000000001", "x":1.50, "vars":{"flow":{"id":"f"}}}'
    assert results(send(client, event), 201) == ["appended"]
    assert results(send(client, event), 200) == ["existing"]
    assert stored(engine) == [event]


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\n\n"])
def test_a_line_each(engine: sa.Engine, client: httpx.Client, separator: bytes) -> None:
    """NDJSON, whatever its line ends; in the order of the lines."""
    lines = [snapshot(n) for n in (3, 1, 2)]
    body = separator.join(lines) + separator
    assert results(send(client, body, "application/x-ndjson"), 201) == ["appended"] * 3
    # A carriage return at a line's end is white space, which is kept as a space.
    assert [each.rstrip() for each in stored(engine)] == lines


def test_an_array_keeps_each_events_bytes(engine: sa.Engine, client: httpx.Client) -> None:
    """Also numbers and escapes that a parser would write anew."""
    odd = b'{"id":"690000000000000000000009","n":1.50,"s":"\\u00e9]","vars":{"flow":{"id":"f"}}}'
    assert results(send(client, b"[ " + odd + b" , " + snapshot(1) + b"]\n"), 201) == (
        ["appended"] * 2
    )
    assert stored(engine) == [odd, snapshot(1)]
    assert results(send(client, b" [ ] "), 200) == []


def test_each_event_has_its_own_answer(engine: sa.Engine, client: httpx.Client) -> None:
    """Refused ones take nothing from the others, and repeating it changes nothing."""
    assert send(client, snapshot(1)).status_code == 201
    body = b"[%s]" % b",".join([
        snapshot(1), snapshot(1, reason="other"), snapshot(2), b'{"id":"x"}', b"5", snapshot(2),
        snapshot(3),
    ])  # fmt: skip
    answer = send(client, body)
    assert results(answer, 207) == [
        "existing", "conflict", "appended", "refused", "refused", "existing", "appended",
    ]  # fmt: skip
    events = answer.json()["events"]
    assert [each["field"] for each in events][3:5] == ["id", "payload"]
    assert events[1]["id"] == "690000000000000000000001"
    assert "other content" in events[1]["message"]
    assert results(send(client, body), 207) == [
        "existing", "conflict", "existing", "refused", "refused", "existing", "existing",
    ]  # fmt: skip
    assert stored(engine) == [snapshot(n) for n in (1, 2, 3)]
    late = b"[%s]" % b",".join([snapshot(4), snapshot(3)])
    assert results(send(client, late), 201) == ["appended", "existing"]


def test_a_single_refused_event_is_a_problem(client: httpx.Client, refused: Refusal) -> None:
    """With the repository's own words and code."""
    assert send(client, snapshot(1)).status_code == 201
    assert refused(send(client, snapshot(1, reason="x")), 409)["code"] == "event-conflict"
    said = refused(send(client, snapshot(2, flow_id="")), 422)
    assert said["code"] == "event-refused"
    assert "vars.flow.id" in said["message"]
    assert results(send(client, snapshot(2, flow_id=""), flow_id="f"), 201) == ["appended"]
    refused(send(client, snapshot(3, flow_id="g"), flow_id="f"), 422)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"[1", "application/json", 400),
        (b"[1 2]", "application/json", 400),
        (b"[1,]", "application/json", 400),
        (b"[]x", "application/json", 400),
        (b"[" * 5000, "application/json", 400),
        (b'["\xff"]', "application/json", 400),
        (b"{", "application/json", 422),
        (b"", "application/json", 422),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"{}", "", 415),
    ],
)
def test_what_is_no_body_of_events(
    engine: sa.Engine, client: httpx.Client, refused: Refusal, *,
    body: bytes, kind: str, status: int,
) -> None:  # fmt: skip
    """Refused whole; nothing is appended."""
    refused(send(client, body, kind), status)
    assert stored(engine) == []


class TestSmallEvents:
    """A server that takes small events only."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        """Of 200 bytes."""
        return ApiSettings(rate=10_000, burst=10_000, max_event=200)

    def test_a_large_event_is_refused_by_itself(self, client: httpx.Client) -> None:
        """With its size and the limit."""
        body = snapshot(1, reason="x" * 300) + b"\n" + snapshot(2)
        answer = send(client, body, "application/x-ndjson")
        assert results(answer, 207) == ["refused", "appended"]
        assert "over the limit of 200 bytes" in answer.json()["events"][0]["message"]
