"""``auditstore events``."""

from __future__ import annotations

import orjson
import pytest
from sqlalchemy import Engine
from support import little_exporter
from support.commands import CommandLine
from support.sample_events import snapshot

from auditstore.cli.json_text import laid_out
from auditstore.repository import EventRepository

ODD = (
    b'{"id":"690000000000000000000009","n":1.50,"e":1e3,"n":1,'
    b'"vars":{"flow":{"id":"flow-2"},"a":[],"b":[1,"x\\u0041\\"{,"]}}'
)


@pytest.fixture
def filled(cli: CommandLine, engine: Engine) -> CommandLine:
    """Five events of flow-1, and an odd one of flow-2."""
    with engine.begin() as connection:
        given = [snapshot(number, outcome="error" if number == 3 else "success",
                          lead_id=f"lead-{number % 2}") for number in range(1, 6)]  # fmt: skip
        EventRepository().append(connection, [*given, ODD])
    return cli


def ids(cli: CommandLine, *arguments: str) -> list[int]:
    """The numbers of the events that are listed, in order."""
    lines = cli.run("events", "list", "--json", *arguments).stdout.splitlines()
    return [int(orjson.loads(line)["id"][-4:], 16) for line in lines]


def test_listing_prints_snapshots_untouched(filled: CommandLine) -> None:
    """One a line, byte for byte, newest first."""
    result = filled.run("events", "list", "--json")
    assert result.stdout_bytes.splitlines()[0] == ODD
    assert ids(filled) == [9, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--flow", "flow-1"), [5, 4, 3, 2, 1]),
        (("--lead", "lead-0"), [4, 2]),
        (("--outcome", "error"), [3]),
        (("--type", "source", "--order", "asc", "--limit", "2"), [1, 2]),
        (("--after-id", "690000000000000000000003", "--order", "asc"), [4, 5, 9]),
        (("--before-id", "690000000000000000000003"), [2, 1]),
        (("--since", "2025-10-27"), [9, 5, 4, 3, 2, 1]),
        (("--until", "2025-10-27T00:00:00Z"), []),
        (("--since", "1s"), []),
        (("--limit", "0"), [9, 5, 4, 3, 2, 1]),
    ],
)
def test_filters(filled: CommandLine, arguments: tuple[str, ...], found: list[int]) -> None:
    """Each narrows the list."""
    assert ids(filled, *arguments) == found


def test_the_table_has_every_column_when_piped(filled: CommandLine) -> None:
    """No wrapping and no leaving out where a program may read it."""
    lines = filled.run("events", "list", "--limit", "2").stdout.splitlines()
    assert lines[0].split() == ["CREATED", "EVENT", "TYPE", "OUTCOME", "LEAD", "FLOW", "REASON"]
    assert lines[2].split()[2:] == [
        "690000000000000000000005", "source", "success", "lead-1", "flow-1",
    ]  # fmt: skip
    assert "No events match" in filled.run("events", "list", "--flow", "absent").stdout


def test_one_event_with_the_object_that_holds_it(cli: CommandLine, engine: Engine) -> None:
    """Not covered, waiting, sealed and delivered are told apart."""

    def append(number: int) -> None:
        with engine.begin() as connection:
            EventRepository().append(connection, snapshot(number))

    def states() -> list[str]:
        return [
            cli.json("events", "show", f"69000000000000000000000{number}")["streams"][0]["state"]
            for number in (1, 2)
        ]

    append(1)
    cli.run("stream", "add", "--flow", "flow-1", "--to", "s3://some-bucket/p")
    append(2)
    assert states() == ["not-covered", "waiting"]
    with engine.begin() as connection:
        little_exporter.seal(connection, 1)
    assert states() == ["not-covered", "sealed"]
    with engine.begin() as connection:
        little_exporter.deliver(connection, 1)
    assert states() == ["not-covered", "delivered"]
    shown = cli.run("events", "show", "690000000000000000000002").stdout
    assert "Stream 1: file 1, delivered" in shown
    assert "s3://some-bucket/p/flow_id=flow-1/date=" in shown
    assert "Position  2" in shown


def test_a_snapshot_is_laid_out_with_its_literals_kept(filled: CommandLine) -> None:
    """Numbers, repeated keys and escapes stay as they were written."""
    shown = filled.run("events", "show", "690000000000000000000009").stdout
    assert shown.endswith(
        '{\n  "id": "690000000000000000000009",\n  "n": 1.50,\n  "e": 1e3,\n  "n": 1,\n'
        '  "vars": {\n    "flow": {\n      "id": "flow-2"\n    },\n    "a": [],\n    "b": [\n'
        '      1,\n      "x\\u0041\\"{,"\n    ]\n  }\n}\n'
    )
    exact = filled.run("events", "show", "690000000000000000000009", "--json").stdout_bytes
    assert ODD in exact


def test_laying_out_keeps_the_value() -> None:
    """Whatever the JSON, parsing it again gives the same."""
    text = '{"a":{},"b":[[],[1,[2]]],"c":"\\\\","d":null,"e":"é"}'
    assert orjson.loads(laid_out(text)) == orjson.loads(text)


def test_control_sequences_in_events_are_made_harmless(cli: CommandLine, engine: Engine) -> None:
    """An event cannot drive the terminal of whoever looks at it."""
    with engine.begin() as connection:
        bad = snapshot(1, reason="\x1b[2Jgone\x9b")
        EventRepository().append(connection, bad)
    for command in (("events", "list"), ("events", "show", "690000000000000000000001")):
        shown = cli.run(*command).stdout
        assert "\x1b" not in shown
        assert "\x9b" not in shown
        assert "\\x1b[2Jgone" in shown


def test_an_unknown_event_and_one_of_two_flows(cli: CommandLine, engine: Engine) -> None:
    """The error says where to look, or how to choose."""
    assert cli.error("events", "show", "abc")[0] == "there is no event 'abc'"
    with engine.begin() as connection:
        for flow in ("flow-1", "flow-2"):
            EventRepository().append(connection, snapshot(1, flow_id=flow))
    said, do = cli.error("events", "show", "690000000000000000000001")
    assert said.endswith("flow-1, flow-2")
    assert "--flow" in do
    shown = cli.json("events", "show", "690000000000000000000001", "--flow", "flow-2")
    assert shown["flow_id"] == "flow-2"
