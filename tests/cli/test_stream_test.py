"""``auditstore stream test``: the store, and a test lead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from support import little_exporter
from support.commands import CommandLine
from support.stores import S3_SECRET, make_bucket

from auditstore import streams
from auditstore.cli.store_test import try_store
from auditstore.errors import StoreRefused
from auditstore.objects import NewObject, ObjectInfo, PutResult
from auditstore.sql import streams as sql
from auditstore.sql.server import clock


@pytest.fixture
def folder(cli: CommandLine, tmp_path: Path) -> Path:
    """A folder with stream 1 of flow-1 to it."""
    place = tmp_path / "store"
    cli.run("stream", "add", "--flow", "flow-1", "--to", place.as_uri())
    return place


def test_a_folder_that_works(cli: CommandLine, folder: Path) -> None:
    """The verification object is there afterwards, under its name."""
    tested = cli.json("stream", "test", "1")
    assert tested["works"] is True
    assert [(step["name"], step["result"])
            for step in tested["steps"]] == [
        ("connect", "works"), ("write", "works"), ("read", "works"), ("list", "works"),
    ]  # fmt: skip
    assert tested["object_key"].startswith("auditstore_verification_flow-1_")
    assert "may be deleted" in (folder / tested["object_key"]).read_text()


def test_a_bucket_that_works_and_one_that_is_not_there(cli: CommandLine, moto_server: str) -> None:
    """With a stored credential; what is missing is said in words."""
    secret = "\n".join(f"{name}={value}" for name, value in S3_SECRET.items())
    cli.run("credential", "add", "moto", "--kind", "s3", stdin=secret)
    to = ("--endpoint-url", moto_server, "--region", "us-east-1", "--credential", "moto")
    bucket = make_bucket(moto_server)
    cli.run("stream", "add", "--flow", "f", "--to", f"s3://{bucket}/some/prefix", *to)
    shown = cli.run("stream", "test", "1").stdout
    assert "Wrote some/prefix/auditstore_verification_f_" in shown
    cli.run("stream", "add", "--flow", "f", "--to", "s3://absent-bucket-1", *to)
    result = cli.run("stream", "test", "2", code=2)
    assert "write    fails" in result.stdout
    assert "absent-bucket-1" in result.stderr


def test_a_server_that_is_away_fails_to_connect(cli: CommandLine, unused_port: int) -> None:
    """The first step fails, and the two lines say why."""
    cli.run("stream", "add", "--flow", "f", "--to", "s3://some-bucket", "--region", "us-east-1",
            "--endpoint-url", f"http://127.0.0.1:{unused_port}")  # fmt: skip
    secret = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    result = cli.run("stream", "test", "1", code=2, environment=secret)
    assert "connect  fails" in result.stdout
    assert "cannot be reached" in result.stderr


class WriteOnly:
    """A store that takes objects and lets nobody read them."""

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Take it."""
        return PutResult(created=True, info=ObjectInfo(new.key, len(new.body)))

    def head(self, key: str) -> ObjectInfo | None:  # noqa: ARG002  # the protocol's
        """No."""
        raise StoreRefused("the key may not read", hint="Allow GetObject.", code="AccessDenied")

    def read(self, key: str) -> Iterator[bytes] | None:  # noqa: ARG002  # the protocol's
        """No."""
        raise StoreRefused("the key may not read", hint="Allow GetObject.", code="AccessDenied")

    def list(  # the protocol's
        self,
        prefix: str,  # noqa: ARG002  # as above
        *,
        start_after: str | None = None,  # noqa: ARG002  # as above
    ) -> Iterator[ObjectInfo]:
        """No."""
        raise StoreRefused("the key may not list", hint="Allow ListBucket.", code="AccessDenied")

    def close(self) -> None:
        """Nothing to close."""


class Forgetful(WriteOnly):
    """A store that says yes and keeps nothing."""

    def read(self, key: str) -> Iterator[bytes] | None:  # noqa: ARG002  # the protocol's
        """Not there."""
        return None


@pytest.fixture
def stream(engine: Engine) -> streams.Stream:
    """Some stream."""
    with engine.begin() as connection:
        new = streams.NewStream(flow_id="a/b", url="s3://some-bucket/prefix")
        return streams.add(connection, new, actor="me")


def test_lacking_the_right_to_read_is_a_warning(engine: Engine, stream: streams.Stream) -> None:
    """Delivering works without; the hint says what needs it."""
    with engine.connect() as connection:
        done = try_store(WriteOnly(), stream, clock(connection))
    assert done.failure is None
    assert [(step.name, step.result) for step in done.steps] == [
        ("connect", "works"), ("write", "works"), ("read", "warning"), ("list", "warning"),
    ]  # fmt: skip
    assert done.steps[2].hint.endswith("Allow GetObject.")
    assert "Reconciling needs it" in done.steps[2].hint
    assert done.key.startswith("prefix/auditstore_verification_a%2Fb_")


def test_an_object_that_vanishes_is_a_failure(engine: Engine, stream: streams.Stream) -> None:
    """What was written must be there."""
    with engine.connect() as connection:
        done = try_store(Forgetful(), stream, clock(connection))
    assert done.failure is not None
    assert done.failure.message == "the object that was just written is not there"


@pytest.mark.usefixtures("folder")
def test_without_an_exporter_no_test_lead_is_appended(cli: CommandLine) -> None:
    """It says how to start one; events of a test would stay for ever."""
    said, do = cli.error("stream", "test", "1", "--lead")
    assert said == "no exporter is running, so no test lead was appended"
    assert "auditstore export run" in do
    assert cli.run("events", "list", "--json").stdout == ""


@pytest.mark.usefixtures("folder")
def test_a_disabled_or_blocked_stream_says_so(cli: CommandLine, engine: Engine) -> None:
    """With the cause that the exporter found, and nothing appended."""
    little_exporter.announce(engine)
    with engine.begin() as connection:
        sql.set_state(connection, 1, state="blocked", code="X", cause="no right", hint="Get it.")
    assert cli.error("stream", "test", "1", "--lead") == (
        "stream 1 is blocked: no right",
        "Get it.",
    )
    cli.run("stream", "disable", "1")
    said, do = cli.error("stream", "test", "1", "--lead")
    assert said == "stream 1 is disabled, so no test lead was appended"
    assert "auditstore stream enable 1" in do
    assert cli.run("events", "list", "--json").stdout == ""


def test_a_test_lead_is_followed_to_its_file(
    cli: CommandLine, engine: Engine, folder: Path
) -> None:
    """The object's URL and the delay from append to delivery are shown."""
    little_exporter.announce(engine)
    stop = threading.Event()

    def export() -> None:
        while not stop.wait(0.02):
            with engine.begin() as connection:
                little_exporter.seal(connection, 1)
            with engine.begin() as connection:
                little_exporter.deliver(connection, 1)

    worker = threading.Thread(target=export)
    worker.start()
    try:
        tested = cli.json("stream", "test", "1", "--lead", "--timeout", "30")
    finally:
        stop.set()
        worker.join()
    assert len(tested["event_ids"]) == 4
    assert 0 <= tested["delay_seconds"] < 30
    assert all(url.startswith(f"{folder.as_uri()}/flow_id=flow-1/") for url in tested["objects"])
    shown = cli.json("events", "show", tested["event_ids"][0])
    assert shown["streams"][0]["object"] in tested["objects"]


@pytest.mark.usefixtures("folder")
def test_a_test_lead_that_does_not_arrive_in_time_is_told(cli: CommandLine, engine: Engine) -> None:
    """How far it came, and that nothing is lost."""
    little_exporter.announce(engine)
    said, do = cli.error("stream", "test", "1", "--lead", "--timeout", "1")
    assert said == "after 1.0 s only 0 of 4 events are delivered, 0 sealed"
    assert "auditstore status" in do
