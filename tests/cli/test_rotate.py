"""``auditstore credential rotate``: tried on every stream first, and nothing lost on the way.

The server checks keys, signatures and policies; a key that was deleted is refused.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Engine
from support.bucket_check import check_bucket
from support.commands import CommandLine
from support.eventually import eventually
from support.export_command import running_exporter
from support.lead_events import lead_event
from support.strict_s3 import StrictS3, User
from support.writers import Writers

from auditstore import streams
from auditstore.cli.credential_trial import insist_on_tried
from auditstore.destinations import Destination
from auditstore.errors import CredentialRefused
from auditstore.objects import VERIFICATION_PREFIX
from auditstore.repository import EventRepository
from exporters.stores import open_store

ALL = ("s3:PutObject", "s3:GetObject", "s3:ListBucket")


def policy(bucket: str, *actions: str, prefix: str = "") -> Mapping[str, Any]:
    """These actions in the bucket, on objects below the prefix."""
    arn = f"arn:aws:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(actions), "Resource": [arn, f"{arn}/{prefix}*"]}
        ],
    }


class Site:
    """Two streams to one bucket, with one credential."""

    def __init__(self, cli: CommandLine, server: StrictS3, *actions: str) -> None:
        self.cli = cli
        self.server = server
        self.bucket = server.bucket()
        self.old = self.user(*actions)
        cli.run("credential", "add", "both", "--kind", "s3", stdin=self.old.as_lines)
        for number in (1, 2):
            cli.run("stream", "add", "--flow", f"flow-{number}", "--credential", "both",
                    "--to", f"s3://{self.bucket}/p{number}", "--endpoint-url", server.url,
                    "--region", "us-east-1", "--max-delay", "0.2", "--max-events", "50",
            )  # fmt: skip

    def user(self, *actions: str, prefix: str = "") -> User:
        """A user who may do this in the bucket."""
        return self.server.user(policy(self.bucket, *actions, prefix=prefix))

    def written(self) -> int:
        """How many verification objects lie below each stream's prefix; equal for both."""
        everything = self.server.client("s3").list_objects_v2(Bucket=self.bucket)
        keys = [item["Key"] for item in everything.get("Contents", ())]
        found = [key for key in keys if f"/{VERIFICATION_PREFIX}_flow" in key]
        first = sum(key.startswith("p1/") for key in found)
        assert first == sum(key.startswith("p2/") for key in found)
        return first


def test_a_secret_that_works_everywhere_takes_effect(cli: CommandLine, strict_s3: StrictS3) -> None:
    """Also for a stream that is disabled, which would be the next surprise."""
    site = Site(cli, strict_s3, *ALL)
    cli.run("stream", "disable", "2")
    new = site.user(*ALL)
    said = cli.run("credential", "rotate", "both", stdin=new.as_lines).stdout
    assert "It works for every stream that uses it: 1, 2" in said
    assert site.written() == 1
    strict_s3.delete_key(site.old)
    assert cli.json("stream", "test", "1")["works"] is True


def test_one_that_fails_on_one_stream_changes_nothing(
    cli: CommandLine, strict_s3: StrictS3
) -> None:
    """It is told which stream and why; the old secret stays in force, and nothing is recorded."""
    site = Site(cli, strict_s3, *ALL)
    before = cli.json("credential", "list")
    narrow = site.user(*ALL, prefix="p1/")
    said, do = cli.error("credential", "rotate", "both", stdin=narrow.as_lines)
    assert said.startswith(
        "the old secret of both stays in force, for the new one fails on 1 of 2 streams: stream 2: "
    )
    assert "AccessDenied" in said
    assert "auditstore credential rotate both --no-check" in do
    assert cli.json("credential", "list") == before
    strict_s3.delete_key(narrow)
    assert cli.json("stream", "test", "2")["works"] is True
    shown = "\n".join(cli.printed)
    assert not any(
        secret in shown for secret in (*narrow.secret.values(), *site.old.secret.values())
    )


def test_without_the_check_it_is_taken_at_its_word(cli: CommandLine, strict_s3: StrictS3) -> None:
    """For stores that are away; nothing is sent to them."""
    site = Site(cli, strict_s3, *ALL)
    wrong = {**site.old.secret, "secret_access_key": "another-secret"}
    lines = User("x", wrong).as_lines
    assert "SignatureDoesNotMatch" in cli.error("credential", "rotate", "both", stdin=lines)[0]
    cli.run("credential", "rotate", "both", "--no-check", stdin=lines)
    assert site.written() == 0
    assert "SignatureDoesNotMatch" in cli.run("stream", "test", "1", code=2).stderr


def test_the_right_to_read_may_be_lacking_but_not_be_lost(
    cli: CommandLine, strict_s3: StrictS3
) -> None:
    """A key that only writes is enough where the old one did not read either."""
    site = Site(cli, strict_s3, *ALL)
    writing = site.user("s3:PutObject")
    said, _ = cli.error("credential", "rotate", "both", stdin=writing.as_lines)
    assert "it may write and not read back" in said
    strict_s3.allow(site.old, policy(site.bucket, "s3:PutObject"))
    done = cli.run("credential", "rotate", "both", stdin=writing.as_lines)
    assert "Stream 1: it may write and not read, as the old secret" in done.stderr


def test_a_stream_that_comes_to_it_meanwhile_is_not_forgotten(engine: Engine) -> None:
    """What changed while the secret was tried was not tried."""
    with engine.begin() as connection:
        made = [
            streams.add(connection, streams.NewStream("f", f"s3://some-bucket/{n}"), actor="me")
            for n in range(2)
        ]
        insist_on_tried("both", tried=made, using=made)
        with pytest.raises(CredentialRefused, match="for stream 2 changed while"):
            insist_on_tried("both", tried=made[:1], using=made)
        changed = streams.change(connection, 1, {"endpoint_url": "http://127.0.0.1:1"}, actor="me")
        with pytest.raises(CredentialRefused, match="for stream 1 changed while"):
            insist_on_tried("both", tried=made, using=[changed, made[1]])


def test_rotating_under_load_loses_nothing(
    cli: CommandLine, engine: Engine, strict_s3: StrictS3
) -> None:
    """Eight writers append and an exporter exports; the old key is refused right afterwards."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    site = Site(cli, strict_s3, *ALL)
    new = site.user(*ALL)
    flows = ("flow-1", "flow-2")

    def files() -> int:
        with engine.connect() as connection:
            return sum(stream.delivered_sequence for stream in streams.find(connection))

    writers = Writers(engine, flows, seed, holds=0.2)
    with running_exporter(cli.environment) as exporter:
        exporter.wait_for("exporting")
        with writers.running():
            eventually(lambda: files() >= 4, within=60)
            cli.run("credential", "rotate", "both", stdin=new.as_lines)
            strict_s3.delete_key(site.old)
            seen = files()
            eventually(lambda: files() >= seen + 4, within=60)

        def all_delivered() -> bool:
            listed = cli.json("status")["streams"]
            return all(stream["waiting_events"] == 0 for stream in listed)

        eventually(all_delivered, within=60)
        exporter.stop()
    for number, flow in enumerate(flows, start=1):
        place = Destination("s3", site.bucket, f"p{number}", strict_s3.url)
        store = open_store(place, region="us-east-1", secret=new.secret)
        checked = check_bucket(engine, number, store, writers.committed[flow])
        store.close()
        print(f"{flow}: {checked.events} events in {checked.objects} files")
    details = cli.json("stream", "show", "1")
    assert details["state"] == "streaming"


def test_a_blocked_stream_goes_on_with_the_new_secret_at_once(
    cli: CommandLine, engine: Engine, strict_s3: StrictS3
) -> None:
    """Not after its half minute; what came meanwhile is delivered, and both changes recorded."""
    site = Site(cli, strict_s3, *ALL)
    with running_exporter(cli.environment) as exporter:
        exporter.wait_for("exporting")
        strict_s3.delete_key(site.old)
        append(engine, "flow-1")
        exporter.wait_for("blocked", stream=1, code="InvalidAccessKeyId")
        append(engine, "flow-1")
        blocked_at = time.monotonic()
        cli.run("credential", "rotate", "both", stdin=site.user(*ALL).as_lines)
        exporter.wait_for("delivered", stream=1)
        took = time.monotonic() - blocked_at
        eventually(lambda: cli.json("status")["streams"][0]["waiting_events"] == 0, within=60)
        exporter.stop()
    assert took < 25, "that was the next try of its own"
    changes = cli.json("stream", "show", "1")["state_changes"]
    assert [(each["to_state"], each["to_code"]) for each in changes] == [
        ("streaming", None), ("blocked", "InvalidAccessKeyId"), ("streaming", None),
    ]  # fmt: skip


def append(engine: Engine, flow: str) -> None:
    """Commit one event."""
    with engine.begin() as connection:
        EventRepository().append(connection, lead_event(flow))
