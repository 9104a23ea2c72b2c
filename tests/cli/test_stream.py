"""``auditstore stream`` without ``test``."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Engine
from support import little_exporter
from support.commands import CommandLine
from support.sample_events import snapshot

from auditstore.repository import EventRepository
from auditstore.sql import streams as sql

ADD = ("stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket/prefix")


def append(engine: Engine, *numbers: int) -> None:
    """Append events of flow-1."""
    with engine.begin() as connection:
        EventRepository().append(connection, [snapshot(number) for number in numbers])


def test_adding_tells_the_stream_and_the_next_step(cli: CommandLine) -> None:
    """Two lines: what there is now, and how to see whether it works."""
    assert cli.run(*ADD).stdout.splitlines() == [
        "Stream 1 added, enabled: flow flow-1 to s3://some-bucket/prefix",
        "See whether it works: auditstore stream test 1",
    ]


def test_every_setting_can_be_given_and_is_told_to_programs(cli: CommandLine) -> None:
    """JSON holds all settings under their own names."""
    added = cli.json(
        *ADD, "--endpoint-url", "http://127.0.0.1:9000", "--region", "eu-west-1",
        "--template", "{stream}/{sequence}.ndjson.gz", "--max-bytes", "1000", "--max-events", "10",
        "--max-delay", "0.5", "--option", "sse=AES256", "--option", "addressing=path",
        "--disabled",
    )  # fmt: skip
    expected = {
        "stream_id": 1, "flow_id": "flow-1", "url": "s3://some-bucket/prefix",
        "endpoint_url": "http://127.0.0.1:9000", "region": "eu-west-1", "credential": None,
        "options": {"sse": "AES256", "addressing": "path"}, "format": "ndjson.gz",
        "key_template": "{stream}/{sequence}.ndjson.gz", "max_bytes": 1000, "max_events": 10,
        "max_delay": 0.5, "enabled": False, "state": "disabled",
    }  # fmt: skip
    assert {name: added[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "http://somewhere"), "the destination is not a URL with a known scheme"),
        (("--option", "sse=none"), "the option sse cannot be 'none'"),
        (("--option", "colour=red"), "s3 destinations have no option 'colour'"),
        (("--max-events", "0"), "max-events is 0"),
        (("--credential", "absent"), "there is no credential 'absent'"),
        (("--to", "file:///srv/x", "--region", "eu"), "file destinations have no region"),
    ],
)
def test_what_cannot_be_used_is_refused(
    cli: CommandLine, arguments: tuple[str, ...], said: str
) -> None:
    """With one line that says what, one what to do, and no stream added."""
    assert cli.error(*ADD, *arguments)[0] == said
    assert cli.json("stream", "list") == []


def test_listing_and_showing(cli: CommandLine) -> None:
    """The list names each stream's place; the details also what it covers and its changes."""
    assert "No streams" in cli.run("stream", "list").stdout
    cli.run(*ADD)
    listed = cli.run("stream", "list").stdout
    assert "s3://some-bucket/prefix" in listed
    assert "streaming" in listed
    shown = cli.run("stream", "show", "1").stdout
    for part in ("Positions 1 to now on", "10,000 events and 8 MiB", "no file yet", "add"):
        assert part in shown
    details = cli.json("stream", "show", "1")
    assert details["intervals"] == [{"from_position": 0, "to_position": None}]
    assert [change["action"] for change in details["changes"]] == ["add"]


def test_setting_says_what_changed(cli: CommandLine) -> None:
    """Options join those in force; an empty value takes one away."""
    cli.run(*ADD, "--option", "sse=AES256", "--region", "eu-west-1")
    said = cli.run(
        "stream", "set", "1", "--region", "", "--option", "sse=", "--option",
        "storage_class=STANDARD_IA", "--max-delay", "30",
    ).stdout  # fmt: skip
    assert said == (
        "Stream 1 changed: region eu-west-1 -> (none); "
        "options sse=AES256 -> storage_class=STANDARD_IA; max_delay 2.0 -> 30.0\n"
    )
    assert "Name at least one setting" in cli.run("stream", "set", "1", code=2).stderr


def test_disabling_says_what_is_not_covered(cli: CommandLine, engine: Engine) -> None:
    """How many appended events were in no file, and how many files had not arrived."""
    cli.run(*ADD)
    append(engine, 1, 2)
    with engine.begin() as connection:
        little_exporter.seal(connection, 1)
    append(engine, 3, 4, 5)
    said = cli.run("stream", "disable", "1").stdout
    assert "3 appended events had not been put into a file" in said
    assert "2 events in 1 file had been sealed and not delivered" in said
    assert "disabled already" in cli.run("stream", "disable", "1").stdout
    assert "3 events to catch up with" in cli.run("stream", "enable", "1", "--catch-up").stdout
    assert cli.json("stream", "show", "1")["intervals"] == [
        {"from_position": 0, "to_position": None}
    ]


def test_trouble_is_shown_with_cause_and_hint_and_ended_by_resuming(
    cli: CommandLine, engine: Engine
) -> None:
    """In the details as in the status."""
    cli.run(*ADD)
    with engine.begin() as connection:
        sql.set_state(
            connection, 1, state="blocked", code="AccessDenied", cause="the key may not write",
            hint="Allow PutObject.", attempts=3, retry_in=3600,
        )  # fmt: skip
    for command in (("stream", "show", "1"), ("status",)):
        shown = cli.run(*command).stdout
        assert "AccessDenied: the key may not write" in shown
        assert "Try: Allow PutObject." in shown
        assert re.search(r"Tries again in 59 min 5\d s \(3 failed so far\)", shown)
    details = cli.json("stream", "show", "1")
    assert details["state"] == "blocked"
    assert [(each["from_state"], each["to_state"]) for each in details["state_changes"]] == [
        ("streaming", "blocked"), ("disabled", "streaming"),
    ]  # fmt: skip
    assert "was blocked; it tries again" in cli.run("stream", "resume", "1").stdout
    assert cli.json("stream", "show", "1")["state"] == "streaming"
    assert "blocked, 3 tries failed" in cli.run("stream", "show", "1").stdout
