"""Streams, credentials, deliveries and reconciliations over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import sqlalchemy as sa
from support.eventually import eventually
from support.sample_events import snapshot
from support.stores import S3_SECRET, make_bucket

from auditstore.cli.stores import store_opener
from auditstore.vault import Vault
from exporters.once import export_once

Refusal = Callable[..., dict[str, Any]]
_STREAMS = "/api/v1/streams"
_CREDENTIALS = "/api/v1/credentials"


def made(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """An answer of this status."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_stream_from_its_beginning_to_its_end(client: httpx.Client, refused: Refusal) -> None:
    """Added, seen, changed, disabled, enabled, resumed; each answer is the stream as it is."""
    url = "s3://bucket/solar"
    added = made(client.post(_STREAMS, json={"flow_id": "f", "url": url, "max_delay": 3}), 201)
    assert (added["stream_id"], added["state"], added["max_delay"]) == (1, "streaming", 3)
    assert made(client.get(f"{_STREAMS}/1")) == added
    assert client.get(_STREAMS, params={"flow_id": "g"}).json() == []
    assert client.get(_STREAMS).json() == [added]
    changed = made(client.patch(f"{_STREAMS}/1", json={"format": "json", "region": "eu-west-1"}))
    assert (changed["format"], changed["region"], changed["max_delay"]) == ("json", "eu-west-1", 3)
    assert made(client.patch(f"{_STREAMS}/1", json={"region": None}))["region"] is None
    assert made(client.post(f"{_STREAMS}/1/disable"))["state"] == "disabled"
    assert made(client.post(f"{_STREAMS}/1/enable", json={"catch_up": True}))["enabled"]
    assert made(client.post(f"{_STREAMS}/1/resume"))["state"] == "streaming"
    refused(client.get(f"{_STREAMS}/2"), 404)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"url": "s3://bucket/solar/deeper"}, "already delivers to"),
        ({"url": "ftp://x"}, ""),
        ({"url": "azure://container/p", "region": "x"}, "have no region"),
        ({"options": {"sse": "what"}}, ""),
        ({"key_template": "{nothing}"}, ""),
        ({"credential": "nobody"}, "there is no credential"),
        ({"max_events": 0}, "body.max_events"),
        ({"max_delay": "NaN"}, "body.max_delay"),
        ({"flow_id": "a\0b"}, "body.flow_id"),
        ({"colour": "red"}, "body.colour"),
    ],
)
def test_a_stream_has_the_command_lines_refusals(
    client: httpx.Client, refused: Refusal, wrong: dict[str, Any], message: str
) -> None:
    """Nothing is added."""
    good = {"flow_id": "f", "url": "s3://bucket/other"}
    made(client.post(_STREAMS, json=good | {"url": "s3://bucket/solar"}), 201)
    status = 404 if "credential" in wrong else 422
    assert message in refused(client.post(_STREAMS, json=good | wrong), status)["message"]
    assert len(client.get(_STREAMS).json()) == 1


def test_a_credentials_secret_never_comes_out(
    client: httpx.Client, moto_server: str, refused: Refusal
) -> None:
    """Not from any answer, also not of a refused one; a rotation is tried where it is used."""
    bucket = make_bucket(moto_server)
    given = {"name": "s", "kind": "s3", "secret": S3_SECRET}
    answers = [client.post(_CREDENTIALS, json=given)]
    shown = made(answers[0], 201)
    assert (shown["credential_id"], shown["hint"]) == ("1", "key id ...TEST")
    made(client.post(_STREAMS, json={
        "flow_id": "f", "url": f"s3://{bucket}/x", "endpoint_url": moto_server, "credential": "s",
    }), 201)  # fmt: skip
    answers += [
        client.post(_CREDENTIALS, json=given),
        client.post(_CREDENTIALS, json=given | {"secret": S3_SECRET | {"more": "test-secret-key"}}),
        client.post(_CREDENTIALS, json=given | {"kind": "azure", "name": "z"}),
        client.delete(f"{_CREDENTIALS}/s"),
    ]
    for answer in answers[1:]:
        refused(answer, 422)
    secret = S3_SECRET | {"secret_access_key": "rotated-secret"}
    answers.append(client.put(f"{_CREDENTIALS}/s/secret", json={"secret": secret}))
    assert made(answers[-1])["changed_at"] > shown["changed_at"]
    answers += [client.get(_CREDENTIALS), client.get(f"{_CREDENTIALS}/s")]
    for answer in answers:
        assert "test-secret-key" not in answer.text
        assert "rotated-secret" not in answer.text
    made(client.patch(f"{_STREAMS}/1", json={"credential": None}))
    assert client.delete(f"{_CREDENTIALS}/s").status_code == 204
    refused(client.get(f"{_CREDENTIALS}/s"), 404)


def test_a_secret_that_does_not_work_is_refused(
    client: httpx.Client, moto_server: str, refused: Refusal
) -> None:
    """The old one stays, unless the trial is waived."""
    made(client.post(_CREDENTIALS, json={"name": "s", "kind": "s3", "secret": S3_SECRET}), 201)
    made(client.post(_STREAMS, json={
        "flow_id": "f", "url": "s3://no-such-bucket/x", "endpoint_url": moto_server,
        "credential": "s",
    }), 201)  # fmt: skip
    said = refused(client.put(f"{_CREDENTIALS}/s/secret", json={"secret": S3_SECRET}), 422)
    assert said["code"] == "credential-refused"
    waived = {"secret": S3_SECRET, "check": False}
    made(client.put(f"{_CREDENTIALS}/s/secret", json=waived))


def test_deliveries_and_a_reconciliation_of_them(
    engine: sa.Engine, vault: Vault, client: httpx.Client, tmp_path: Path, refused: Refusal
) -> None:
    """The ledger's files, then a job that finds a file changed, with its report in each form."""
    place = tmp_path / "archive"
    place.mkdir()
    made(client.post(_STREAMS, json={"flow_id": "f", "url": f"file://{place}"}), 201)
    for n in (1, 2):
        made(client.post("/api/v1/events", content=snapshot(n, flow_id="f"),
                         headers={"content-type": "application/json"}), 201)  # fmt: skip
        export(engine, vault)
    files = client.get(f"{_STREAMS}/1/files").json()
    assert [(each["sequence"], each["event_count"]) for each in files] == [(2, 1), (1, 1)]
    assert files[0]["previous_hash"] == files[1]["row_hash"]
    assert made(client.get(f"{_STREAMS}/1/files/1")) == files[1]
    assert client.get(f"{_STREAMS}/1/files", params={"before": 2}).json() == files[1:]
    refused(client.get(f"{_STREAMS}/1/files/3"), 404)

    jobs = "/api/v1/flows/f/reconciliations"
    assert ended(client, client.post(jobs, json={"level": "events"}))["result"] == "reconciled"
    (place / files[0]["object_key"]).write_bytes(b"changed")
    job = ended(client, client.post(jobs, json={"level": "files"}))
    assert job["result"] == "differences"
    assert job["findings"] >= 1
    assert [each["result"] for each in client.get(jobs).json()] == ["differences", "reconciled"]
    report = f"{jobs}/{job['job_id']}/report"
    assert orjson.loads(client.get(report).content)
    for form, kind in (("text", "text/plain"), ("csv", "text/csv"), ("html", "text/html")):
        answer = client.get(report, params={"format": form})
        assert answer.headers["content-type"].startswith(kind)
        assert files[0]["object_key"] in answer.text
    assert job["number"] == 2, "the database keeps it, too"
    assert made(client.get(f"{jobs}/2"))["result"] == "differences"
    assert client.get(f"{jobs}/2/report").content == client.get(report).content
    for other in (f"{jobs}/{'0' * 32}", f"{jobs}/9", "/api/v1/flows/g/reconciliations/2"):
        refused(client.get(other), 404)
    refused(client.post("/api/v1/flows/g/reconciliations", json={}), 404)
    empty = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    refused(client.post(jobs, json=empty), 422)


def ended(client: httpx.Client, began: httpx.Response) -> dict[str, Any]:
    """A reconciliation that is over, found where its beginning said."""
    assert made(began, 202)["flow_id"] == "f"
    where = began.headers["location"]
    return eventually(lambda: (job := made(client.get(where)))["ended"] and job)


def export(engine: sa.Engine, vault: Vault) -> None:
    """Deliver everything that waits."""
    done = export_once(engine, store_opener(vault))
    assert not done.failed
