"""The Event Stream dialog over HTTP: what it says, what it refuses, what it does."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from support.console_server import Browser
from support.strict_s3 import StrictS3

from auditstore import credentials, streams

_EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def filled(**changes: str) -> dict[str, str]:
    """The form as somebody has filled it in for S3."""
    return {
        "id": "flow-1", "enabled": "yes", "s3_on": "yes", "s3_credential": "",
        "s3_bucket": "some-bucket", "s3_prefix": "leads", "s3_endpoint": "", "s3_region": "",
        "s3_format": "ndjson.gz", "s3_max_delay": "2", "confirm": "yes", **changes,
    }  # fmt: skip


def test_it_says_what_changes_before_it_is_saved(ada: Browser, engine: sa.Engine) -> None:
    """The preview names the consequence and the next file's key, and changes nothing."""
    said = ada.post("/flow/stream/preview", htmx=True, **filled(confirm="")).text
    said = said.replace("<wbr>", "")
    assert "Every event appended from now on is delivered to s3://some-bucket/leads" in said
    assert "leads/flow_id=flow-1/date=" in said
    one_each = ada.post("/flow/stream/preview", htmx=True, **filled(s3_format="json")).text
    assert 'id="s3-key" hx-swap-oob="true">leads/' in one_each
    assert ".json</code>" in one_each
    with engine.connect() as connection:
        assert not streams.find(connection)


def test_each_mistake_is_said_at_its_field_and_nothing_is_saved(
    ada: Browser, engine: sa.Engine
) -> None:
    """Whatever is wrong, the answer is 422, names the field, and no stream is there."""
    mistakes = {
        "s3_bucket": filled(s3_bucket="Not A Bucket"),
        "s3_prefix": filled(s3_prefix="a//b"),
        "s3_endpoint": filled(s3_endpoint="http://storage.example"),
        "s3_max_delay": filled(s3_max_delay="soon"),
        "s3_format": filled(s3_format="xml"),
        "s3_name": filled(s3_credential="+new", s3_access_key_id="a", s3_secret_access_key="b"),
        "s3_secret_access_key": filled(s3_credential="+new", s3_name="n", s3_access_key_id="a"),
        "s3_credential": filled(s3_credential="of-yesterday"),
        "services": filled(s3_on=""),
        "confirm": filled(confirm=""),
        "azure_bucket": filled(azure_on="yes", azure_bucket="--", azure_format="json",
                               azure_max_delay="1"),
        "azure_connection_string": filled(
            azure_on="yes", azure_bucket="leads", azure_credential="+new", azure_name="n",
            azure_connection_string="nonsense", azure_format="json", azure_max_delay="1"),
    }  # fmt: skip
    for name, form in mistakes.items():
        answer = ada.post("/flow/stream", htmx=True, **form)
        assert answer.status_code == 422, name
        said = answer.text.split(f'id="error-{name}" hx-swap-oob="true">')[1].split("<")[0]
        assert said, name
        assert answer.text.count('hx-swap-oob="true"></p>') >= 15, name
    with engine.connect() as connection:
        assert not streams.find(connection)
        assert not credentials.find(connection)


def test_only_administrators_show_the_servers_own_identity_to_an_endpoint(
    come_in: Callable[[str], Browser], engine: sa.Engine
) -> None:
    """Who may set up streams might name an endpoint of his own; what is set already may stay."""
    free = filled(s3_endpoint="https://storage.example.com")
    olaf = come_in("olaf")
    for path in ("/flow/stream", "/flow/stream/test"):
        answer = olaf.post(path, htmx=True, **free)
        assert answer.status_code == 422, path
        assert "its own identity" in answer.text
    with engine.connect() as connection:
        assert not streams.find(connection)
    assert olaf.post("/flow/stream", htmx=True, **filled()).status_code == 204
    assert come_in("ada").post(
        "/flow/stream", htmx=True, **free | {"s3_prefix": "other", "s3_stream": "1"}
    ).status_code == 204  # fmt: skip
    later = free | {"s3_prefix": "other", "s3_stream": "2", "s3_max_delay": "5"}
    assert olaf.post("/flow/stream", htmx=True, **later).status_code == 204


def test_without_javascript_the_page_comes_back_with_what_was_typed(ada: Browser) -> None:
    """A plain form is answered with the whole page, every field filled but the secret."""
    form = filled(s3_bucket="Wrong One", s3_credential="+new", s3_name="kept-name",
                  s3_access_key_id="AKIA", s3_secret_access_key="so-secret")  # fmt: skip
    answer = ada.post("/flow/stream", **form)
    assert answer.status_code == 422
    assert 'value="Wrong One"' in answer.text
    assert 'value="kept-name"' in answer.text
    assert "so-secret" not in answer.text


def test_saved_changed_moved_and_switched_off(ada: Browser, engine: sa.Engine) -> None:
    """Each save does what was said: adds, changes in place, moves to another place, stops."""
    new = {"s3_credential": "+new", "s3_name": "bucket-key", "s3_access_key_id": "AKIAEXAMPLE1",
           "s3_secret_access_key": "so-secret"}  # fmt: skip
    assert ada.post("/flow/stream", htmx=True, **filled(**new)).status_code == 204
    kept = filled(s3_stream="1", s3_credential="bucket-key")
    assert "so-secret" not in ada.get("/flow/stream", id="flow-1", htmx=True).text
    assert ada.post("/flow/stream", htmx=True, **kept | {"s3_max_delay": "9"}).status_code == 204
    with engine.connect() as connection:
        (stream,) = streams.find(connection)
    assert (stream.enabled, stream.limits.max_delay, stream.credential_name) == (
        True, 9.0, "bucket-key",
    )  # fmt: skip
    elsewhere = kept | {"s3_prefix": "moved"}
    said = ada.post("/flow/stream/preview", htmx=True, **elsewhere).text
    assert "Delivery to s3://some-bucket/leads stops at once" in said
    ada.post("/flow/stream", htmx=True, **elsewhere)
    with engine.connect() as connection:
        assert [(each.url, each.enabled) for each in streams.find(connection)] == [
            ("s3://some-bucket/leads", False), ("s3://some-bucket/moved", True),
        ]  # fmt: skip
    ada.post("/flow/stream", htmx=True, **elsewhere | {"s3_stream": "2", "enabled": ""})
    with engine.connect() as connection:
        assert not streams.find(connection, enabled=True)
        actors = {change.actor for change in streams.changes(connection, 2)}
    assert actors == {"ada (console)"}
    page = ada.get("/flow/activity", id="flow-1").text
    for word in ("disable", "bucket-key", "max delay", "2.0", "9.0"):
        assert word in page
    assert "so-secret" not in page


def test_a_place_that_is_taken_is_refused_at_the_prefix(ada: Browser, engine: sa.Engine) -> None:
    """Another flow's stream already delivers there."""
    ada.post("/flow/stream", htmx=True, **filled(id="flow-2"))
    answer = ada.post("/flow/stream", htmx=True, **filled())
    assert answer.status_code == 422
    assert "already delivers to" in answer.text.split('id="error-s3_prefix"')[1].split("</p>")[0]
    with engine.connect() as connection:
        assert [each.flow_id for each in streams.find(connection)] == ["flow-2"]


def test_a_connection_test_says_what_is_wrong_and_how_to_mend_it(
    ada: Browser, engine: sa.Engine, strict_s3: StrictS3
) -> None:
    """A wrong secret, a bucket that is not there, then all right; nothing is saved by it."""
    user, bucket = strict_s3.user(_EVERYTHING), strict_s3.bucket()
    form = filled(
        s3_bucket=bucket, s3_endpoint=strict_s3.url, s3_credential="+new", s3_name="new-one",
        s3_access_key_id=user.secret["access_key_id"], s3_secret_access_key="wrong", confirm="",
    )  # fmt: skip
    wrong = ada.post("/flow/stream/test", htmx=True, **form).text
    assert "the connection does not work" in wrong
    assert "SignatureDoesNotMatch" in wrong
    assert "What to do:" in wrong
    form["s3_secret_access_key"] = user.secret["secret_access_key"]
    absent = ada.post("/flow/stream/test", htmx=True, **form | {"s3_bucket": "absent-one"}).text
    assert "NoSuchBucket" in absent
    right = ada.post("/flow/stream/test", htmx=True, **form).text
    assert "the connection works" in right
    assert "leads/<wbr>auditstore_verification_flow-1_" in right
    with engine.connect() as connection:
        assert not streams.find(connection)
        assert not credentials.find(connection)
