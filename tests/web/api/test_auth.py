"""Who may call the API, for what, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.types import Message, Receive, Scope, Send
from support.asgi_server import serving
from support.sample_events import snapshot

from auditstore import accounts, database
from auditstore.repository import EventRepository
from auditstore.vault import Vault
from auditstore.web.api.limits import BodyLimit, TokenBuckets
from auditstore.web.api.state import ApiSettings
from auditstore.web.app import create_app

Refusal = Callable[..., dict[str, Any]]
Clients = Callable[[str], httpx.Client]
Keys = Callable[..., str]


def test_without_a_good_key_nothing_is_answered(
    engine: sa.Engine, api_url: str, new_api_key: Keys, refused: Refusal
) -> None:
    """None, a wrong one, another user's name, a revoked one: 401 and how to come in."""
    good, revoked = new_api_key("viewer"), new_api_key("viewer")
    with engine.begin() as connection:
        accounts.revoke_key(connection, 2, actor="test")
    for path in ("/events", "/api/v1/streams", "/flows/x", "/firehose?bucket=abc"):
        for auth in (None, ("API", "wrong"), ("me", good), ("API", revoked), ("API", "")):
            answer = httpx.get(api_url + path, auth=auth)
            refused(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Basic ")
    assert httpx.get(f"{api_url}/events", auth=("API", good)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "needs"),
    [
        ("GET", "/events", None, "viewer"),
        ("GET", "/api/v1/streams", None, "viewer"),
        ("POST", "/api/v1/events", [], "operator"),
        ("POST", "/firehose", {"bucket": "abc"}, "operator"),
        ("PUT", "/flows/f", {"firehose": {"enabled": False}}, "operator"),
        ("POST", "/api/v1/streams", {"flow_id": "f", "url": "x"}, "operator"),
        ("PATCH", "/api/v1/streams/1", {}, "operator"),
        ("POST", "/api/v1/streams/1/enable", None, "operator"),
        ("POST", "/api/v1/streams/1/disable", None, "operator"),
        ("POST", "/api/v1/streams/1/resume", None, "operator"),
        ("POST", "/api/v1/flows/f/reconciliations", {}, "operator"),
        ("GET", "/api/v1/credentials", None, "administrator"),
        ("DELETE", "/api/v1/credentials/x", None, "administrator"),
    ],
)
def test_each_call_needs_its_role(
    client_of: Clients, new_api_key: Keys, refused: Refusal, *,
    method: str, path: str, body: Any, needs: str,
) -> None:  # fmt: skip
    """With a lesser one it is refused in words; with that role it is not."""
    roles = accounts.ROLES
    for role in roles:
        answer = client_of(new_api_key(role)).request(method, path, json=body)
        if roles.index(role) < roles.index(needs):  # type: ignore[arg-type]  # parametrized text
            assert refused(answer, 403)["code"] == "role-not-allowed"
        else:
            assert answer.status_code not in {401, 403}, answer.text


def test_a_key_for_a_flow_sees_and_changes_nothing_else(
    engine: sa.Engine, client: httpx.Client, client_of: Clients, new_api_key: Keys,
    refused: Refusal,
) -> None:  # fmt: skip
    """Not its events, not its streams by number, not the credentials of all flows."""
    with engine.begin() as connection:
        EventRepository().append(
            connection, [snapshot(1, flow_id="mine"), snapshot(2, flow_id="other")]
        )  # fmt: skip
    for flow in ("mine", "other"):
        url = f"s3://bucket/{flow}"
        made = client.post("/api/v1/streams", json={"flow_id": flow, "url": url})
        assert made.status_code == 201, made.text
    limited = client_of(new_api_key("administrator", ["mine"]))
    assert limited.get("/events").content == b"[" + snapshot(1, flow_id="mine") + b"]"
    refused(limited.get("/events/690000000000000000000002"), 404)
    assert [each["stream_id"] for each in limited.get("/api/v1/streams").json()] == [1]
    for path in ("/api/v1/streams/2", "/api/v1/streams/2/files"):
        refused(limited.get(path), 404)
    refused(limited.post("/api/v1/streams/2/disable"), 404)
    refused(limited.get("/flows/other"), 403)
    refused(limited.put("/flows/other", json={"firehose": {"enabled": False}}), 403)
    refused(limited.get("/api/v1/flows/other/reconciliations"), 403)
    refused(limited.get("/api/v1/credentials"), 403)
    sent = limited.post("/api/v1/events", json=[])
    assert sent.status_code == 200
    lines = snapshot(3, flow_id="mine") + b"\n" + snapshot(4, flow_id="other")
    done = limited.post(
        "/api/v1/events", content=lines, headers={"content-type": "application/x-ndjson"}
    ).json()
    assert [each["result"] for each in done["events"]] == ["appended", "refused"]


def test_every_answer_has_the_headers_that_keep_it_to_itself(client: httpx.Client) -> None:
    """Also a refusal: no script, no sniffing, no cache keeps lead data."""
    for path in ("/events", "/events/x", "/api/v1/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_other_site_can_use_a_key_that_a_browser_has(
    client: httpx.Client, refused: Refusal, site: str
) -> None:
    """A browser adds it to whatever a page asks for; such a request changes nothing."""
    made = client.post("/api/v1/streams", json={"flow_id": "f", "url": "s3://bucket/p"})
    assert made.status_code == 201
    for method, path in (
        ("POST", "/api/v1/streams/1/disable"), ("GET", "/firehose?bucket=abc"), ("GET", "/events")
    ):  # fmt: skip
        answer = client.request(method, path, headers={"sec-fetch-site": site})
        assert refused(answer, 403)["code"] == "other-site"
    own = client.get("/api/v1/streams/1", headers={"sec-fetch-site": "none"})
    assert own.json()["enabled"]


@pytest.mark.parametrize("flows", [None, ["f"]])
def test_the_servers_folders_and_identity_need_an_administrator_of_all_flows(
    client: httpx.Client, client_of: Clients, new_api_key: Keys, refused: Refusal, *,
    moto_server: str, flows: list[str] | None,
) -> None:  # fmt: skip
    """An operator names no folder of the machine, and no endpoint for its own credentials."""
    operator = client_of(new_api_key("administrator" if flows else "operator", flows))
    folder = {"flow_id": "f", "url": "file:///srv/anywhere"}
    bare = {"flow_id": "f", "url": "s3://bucket/p", "endpoint_url": moto_server}
    firehose = {"firehose": {"enabled": True, "services": {"azure": {
        "enabled": True, "bucket": "cont", "endpoint_url": "https://elsewhere.example",
    }}}}  # fmt: skip
    check = {"service": "azure", "bucket": "cont", "endpoint_url": "https://elsewhere.example"}
    for answer in (
        operator.post("/api/v1/streams", json=folder),
        operator.post("/api/v1/streams", json=bare),
        operator.put("/flows/f", json=firehose),
        operator.post("/firehose", json=check), operator.get("/firehose", params=check),
    ):  # fmt: skip
        assert refused(answer, 403)["code"] == "place-not-allowed"
    assert client.get("/api/v1/streams").json() == []
    assert client.post("/api/v1/streams", json=bare).status_code == 201
    stream = "/api/v1/streams/1"
    changed = operator.patch(stream, json={"format": "json", "endpoint_url": moto_server})
    assert changed.status_code == 200, "what an administrator has set may stay"
    moved = operator.patch(stream, json={"endpoint_url": "https://elsewhere.example"})
    assert refused(moved, 403)["code"] == "place-not-allowed"


def test_a_mistake_of_the_server_is_a_problem_too(
    engine: sa.Engine, client: httpx.Client, refused: Refusal
) -> None:
    """500 in the form of every refusal, with the headers of every answer, and nothing else told."""
    with engine.begin() as connection:
        # What no released version does: the row of a key has a role that nobody knows.
        connection.execute(sa.text("ALTER TABLE auditstore.api_keys DROP CONSTRAINT "
                                   "api_keys_role_check"))  # fmt: skip
        connection.execute(sa.text("UPDATE auditstore.api_keys SET role = 'owner'"))
    answer = client.get("/events")
    assert refused(answer, 500)["code"] == "internal-error"
    assert "owner" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


class TestLimits:
    """A server with small limits."""

    @pytest.fixture
    def settings(self) -> ApiSettings:
        """Three requests at once, then one every 100 seconds; small bodies."""
        return ApiSettings(rate=0.01, burst=3, max_body=1000, max_append_body=2000)

    def test_too_many_requests_wait(
        self, client_of: Clients, new_api_key: Keys, refused: Refusal
    ) -> None:
        """Of one key; another has room of its own, and so have strangers."""
        one, other = (client_of(new_api_key("viewer")) for _ in range(2))
        for client, good in ((one, 200), (other, 200), (client_of("wrong"), 401)):
            assert [client.get("/events").status_code for _ in range(3)] == [good] * 3
            answer = client.get("/events")
            assert refused(answer, 429)["code"] == "too-many-requests"
            assert 1 <= int(answer.headers["retry-after"]) <= 100

    def test_a_large_body_is_refused(self, client: httpx.Client, refused: Refusal) -> None:
        """Whether it says its size or comes in pieces; an append may be larger than others."""
        assert refused(client.post("/firehose", content=b"x" * 1001), 413)["code"] == (
            "body-too-large"
        )
        kind = {"content-type": "application/json"}
        pieces = (b"[" + b" " * 600 for _ in range(4))
        refused(client.post("/api/v1/events", content=pieces, headers=kind), 413)
        assert client.post(
            "/api/v1/events", content=b"[" + b" " * 1500 + b"]", headers=kind
        ).json()["events"] == []  # fmt: skip


def test_of_a_body_that_is_too_large_no_more_is_read() -> None:
    """Whoever reads it stops, as if the caller had left: memory stays bounded."""
    pieces = [{"type": "http.request", "body": b"x" * 60, "more_body": True}] * 3
    read: list[Message] = []
    sent: list[Message] = []

    async def reader(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        while not read or read[-1]["type"] == "http.request":
            read.append(await receive())

    async def receive() -> Message:
        return pieces.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/x", "headers": []}
    asyncio.run(BodyLimit(reader, most=100, most_at={})(scope, receive, send))
    assert [each["type"] for each in read] == ["http.request", "http.disconnect"]
    assert sent[0]["status"] == 413


def test_a_database_that_is_away_is_said(vault: Vault, unused_port: int, refused: Refusal) -> None:
    """503 with when to try again, and never a traceback."""
    engine = database.create_engine(f"postgresql://postgres@127.0.0.1:{unused_port}/x")
    with serving(create_app(engine, vault)) as url:
        answer = httpx.get(f"{url}/events", auth=("API", "key"))
    assert refused(answer, 503)["code"] == "database-unavailable"
    assert answer.headers["retry-after"] == "1"


def test_a_bucket_fills_again_with_time() -> None:
    """By the rate, up to the burst; one name's use is none of another's."""
    now = [0.0]
    buckets = TokenBuckets(rate=2, burst=2, clock=lambda: now[0])
    assert [buckets.wait("a") for _ in range(3)] == [0, 0, 1]
    assert buckets.wait("b") == 0
    now[0] = 0.5
    assert [buckets.wait("a"), buckets.wait("a")] == [0, 1]
    now[0] = 100
    assert [buckets.wait("a") for _ in range(3)] == [0, 0, 1]
