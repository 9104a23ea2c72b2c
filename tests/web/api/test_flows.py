"""A flow's firehose object in both forms, and the check before it is saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from support.sample_events import snapshot
from support.stores import S3_SECRET

from auditstore import credentials, streams
from auditstore.repository import EventRepository
from auditstore.streams import NewStream
from auditstore.vault import Vault

Refusal = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def kept(engine: sa.Engine, vault: Vault) -> None:
    """Credential 1 for S3, 2 for Azure."""
    azure = {"connection_string": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5"}
    with engine.begin() as connection:
        credentials.add(
            connection, vault, name="s", kind="s3", secret=dict(S3_SECRET), actor="test"
        )
        credentials.add(connection, vault, name="a", kind="azure", secret=azure, actor="test")


def put(client: httpx.Client, **firehose: Any) -> httpx.Response:
    """Set the flow's firehose, as a tool sends the whole flow."""
    return client.put("/flows/f", json={"id": "f", "name": "Solar", "firehose": firehose})


def standing(engine: sa.Engine) -> list[tuple[str, bool, str | None]]:
    """The flow's streams: place, enabled, credential."""
    with engine.connect() as connection:
        found = streams.find(connection, flow_id="f")
    return [(each.url, each.enabled, each.credential_name) for each in found]


OLDER = {"enabled": True, "credential_id": "1", "bucket": "lead-events", "prefix": "solar"}


def test_the_older_form_is_a_stream_of_s3(engine: sa.Engine, client: httpx.Client) -> None:
    """Written and read back as it was; off, the stream is disabled and the place is kept."""
    assert put(client, **OLDER).json()["firehose"] == OLDER
    assert standing(engine) == [("s3://lead-events/solar", True, "s")]
    assert client.get("/flows/f", params={"firehose": "older"}).json()["firehose"] == OLDER
    assert put(client, **OLDER | {"enabled": False}).json()["firehose"] == OLDER | {
        "enabled": False
    }
    assert standing(engine) == [("s3://lead-events/solar", False, "s")]
    assert put(client, **OLDER).status_code == 200
    assert standing(engine) == [("s3://lead-events/solar", True, "s")]


def service(bucket: str, credential: str | None, *, on: bool = True, **more: Any) -> dict[str, Any]:
    """A service of the newer form, as it is read back."""
    return {"enabled": on, "credential_id": credential, "bucket": bucket, "prefix": "p",
            "endpoint_url": None, "region": None} | more  # fmt: skip


def test_the_newer_form_is_a_stream_a_service(engine: sa.Engine, client: httpx.Client) -> None:
    """Both at once; each is switched by itself, and both by the flow's own switch."""
    both = {"aws": service("buck", "1", region="eu-west-1"), "azure": service("cont", "2")}
    assert put(client, enabled=True, services=both).json()["firehose"] == {
        "enabled": True, "services": both,
    }  # fmt: skip
    one = both | {"azure": service("cont", "2", on=False)}
    put(client, enabled=True, services=one)
    assert [each[1] for each in standing(engine)] == [True, False]
    put(client, enabled=True, services={"azure": service("cont", "2")})
    assert [each[1] for each in standing(engine)] == [True, True], "what is left out stays"
    put(client, enabled=False, services={})
    assert [each[1] for each in standing(engine)] == [False, False]
    put(client, enabled=True, services=both)
    put(client, enabled=False)
    assert [each[1] for each in standing(engine)] == [False, False], "off is off in either form"
    found = client.get("/flows/f").json()["firehose"]
    assert found["services"]["aws"] == both["aws"] | {"enabled": False}


def test_another_place_is_another_stream(engine: sa.Engine, client: httpx.Client) -> None:
    """The one before it stops; back again, its own goes on. Format and limits move along."""
    put(client, **OLDER)
    changed = client.patch(
        "/api/v1/streams/1", json={"format": "json", "max_delay": 7, "credential": None}
    )
    assert changed.status_code == 200, changed.text
    put(client, enabled=True, bucket="other-events")
    assert standing(engine) == [
        ("s3://lead-events/solar", False, None), ("s3://other-events/solar", True, None),
    ]  # fmt: skip
    shown = client.get("/api/v1/streams/2").json()
    assert (shown["format"], shown["max_delay"]) == ("json", 7)
    put(client, **OLDER)
    assert standing(engine) == [
        ("s3://lead-events/solar", True, "s"), ("s3://other-events/solar", False, None),
    ]  # fmt: skip


def test_what_is_refused_changes_nothing(
    engine: sa.Engine, client: httpx.Client, refused: Refusal
) -> None:
    """Neither of two services, where one of them cannot be set."""
    with engine.begin() as connection:
        streams.add(connection, NewStream(flow_id="g", url="s3://taken/p"), actor="test")
    good = service("cont", "2")
    wrong: list[tuple[dict[str, Any], str]] = [
        (service("taken", "1"), "already delivers to"),
        (service("buck", "2"), "no s3 credential number 2"),
        (service("buck", "77"), "no s3 credential number 77"),
        ({"enabled": True}, "needs a bucket"),
        (service("buck", None, endpoint_url="http://elsewhere.example"), "http"),
    ]
    for aws, message in wrong:
        said = refused(put(client, enabled=True, services={"azure": good, "aws": aws}), 422)
        assert message in said["message"]
    for body in ({}, {"firehose": {}}, {"firehose": {"enabled": True, "bucket": "A B"}}):
        refused(client.put("/flows/f", json=body), 422)
    assert standing(engine) == []


def test_a_flow_that_nobody_knows(
    engine: sa.Engine, client: httpx.Client, refused: Refusal
) -> None:
    """404 until it has an event, whose flow's name is shown."""
    refused(client.get("/flows/f"), 404)
    named = {"flow": {"id": "f", "name": "Solar"}, "lead": {"id": "l"}}
    with engine.begin() as connection:
        EventRepository().append(connection, snapshot(1, vars=named))
    assert client.get("/flows/f").json() == {
        "id": "f", "name": "Solar",
        "firehose": {"enabled": False, "services": {"aws": None, "azure": None}},
    }  # fmt: skip


def test_who_changed_it_is_recorded(engine: sa.Engine, client: httpx.Client) -> None:
    """By the key's number and name."""
    put(client, **OLDER)
    put(client, **OLDER | {"enabled": False})
    with engine.connect() as connection:
        found = [(each.actor, each.action) for each in streams.changes(connection, 1)]
    actor = "API key 1 (a-administrator)"
    assert found == [(actor, "add"), (actor, "disable")]


def test_a_key_for_one_flow_uses_no_other_flow_s_credential(
    engine: sa.Engine,
    client: httpx.Client,
    client_of: Callable[[str], httpx.Client],
    new_api_key: Callable[..., str],
    refused: Refusal,
) -> None:
    """It may name those that the flow's own streams use, by every way that takes one."""
    mine = client_of(new_api_key("operator", ["f"]))
    assert "no s3 credential number 1" in refused(put(mine, **OLDER), 422)["message"]
    place = {"bucket": "lead-events", "service": "aws", "credential_id": "1", "flow_id": "f"}
    assert (
        "no s3 credential number 1" in refused(mine.post("/firehose", json=place), 422)["message"]
    )
    wanted = {"flow_id": "f", "url": "s3://lead-events/mine", "credential": "s"}
    assert "no credential 's'" in refused(mine.post("/api/v1/streams", json=wanted), 404)["message"]
    assert standing(engine) == []

    assert put(client, **OLDER).status_code == 200
    assert put(mine, **OLDER | {"prefix": "elsewhere"}).status_code == 200
    assert ("s3://lead-events/elsewhere", True, "s") in standing(engine)
    assert mine.patch("/api/v1/streams/2", json={"credential": "a"}).status_code == 404


def test_a_flow_whose_id_has_slashes(client: httpx.Client) -> None:
    """It is one flow in every path, written plainly or encoded."""
    wanted = {"firehose": OLDER}
    assert client.put("/flows/a/b%2Fc", json=wanted).json()["id"] == "a/b/c"
    older = {"firehose": "older"}
    assert client.get("/flows/a%2Fb%2Fc", params=older).json()["firehose"] == OLDER
    assert client.get("/api/v1/flows/a%2Fb%2Fc/reconciliations").json() == []
    assert client.get("/flows/a/b").status_code == 404
