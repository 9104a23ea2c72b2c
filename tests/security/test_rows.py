"""Rows of the configuration that nothing of ours has written, and ids that no event can have."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from support.commands import CommandLine
from support.export_command import running_exporter
from support.sample_events import snapshot

from auditstore import EventRepository, streams
from auditstore.errors import ConfigurationError
from auditstore.streams import NewStream, Stream


def add(engine: sa.Engine, folder: Path, flow_id: str = "flow-1", **more: str) -> Stream:
    """An enabled stream to a folder."""
    with engine.begin() as connection:
        new = NewStream(flow_id, folder.as_uri(), **more)  # type: ignore[arg-type]  # as the CLI does
        return streams.add(connection, new, actor="test")


@pytest.mark.parametrize(
    "damage",
    [
        "url = 'ftp://elsewhere/x'",
        "url = ''",
        "url = 's3://bucket/x', endpoint_url = 'http://user:secret@host'",
    ],
)
def test_a_row_that_names_no_place_stops_only_its_own_stream(
    engine: sa.Engine, database_url: str, tmp_path: Path, damage: str
) -> None:
    """The daemon blocks it with the cause; others are delivered, listed, shown and reconciled."""
    broken, whole = add(engine, tmp_path / "broken"), add(engine, tmp_path / "whole")
    with engine.begin() as connection:
        connection.execute(
            sa.text(f"UPDATE auditstore.streams SET {damage} WHERE stream_id = :id"),
            {"id": broken.stream_id},
        )
        EventRepository().append(connection, [snapshot(number) for number in range(3)])
    settings = {"AUDITSTORE_DATABASE_URL": database_url}
    with running_exporter(settings) as exporter:
        # In whatever order they come: each wait passes over what it does not look for.
        blocked = exporter.wait_for("blocked", stream=broken.stream_id)
        with engine.begin() as connection:
            EventRepository().append(connection, snapshot(7))
        exporter.wait_for("delivered", stream=whole.stream_id)
        assert exporter.stop() == 0
    assert "cannot be read" in blocked["cause"]
    assert "secret@" not in "\n".join(exporter.lines)

    cli = CommandLine(settings)
    states = {each["stream_id"]: each["state"] for each in cli.json("status")["streams"]}
    assert states == {broken.stream_id: "blocked", whole.stream_id: "streaming"}
    cli.run("stream", "list")
    cli.run("stream", "show", str(broken.stream_id))
    cli.run("events", "show", "690000000000000000000001")
    assert "cannot be read" in cli.run("export", "once", code=1).output
    cli.run("reconcile", "--stream", str(whole.stream_id), "--level", "events")
    cli.run("reconcile", code=2)
    cli.run("stream", "disable", str(broken.stream_id))
    cli.run("export", "once")


def test_limits_that_no_setting_allows_are_refused_by_the_table(
    engine: sa.Engine, tmp_path: Path
) -> None:
    """So no row can be written that reading it would refuse."""
    add(engine, tmp_path / "out")
    for damage in (
        "max_bytes = 1073741825", "max_events = 1000001", "max_delay = 3601", "max_delay = 'NaN'",
        "options = '[]'", "options = 'null'", "max_bytes = 0", "format = 'x'", "state = 'x'",
    ):  # fmt: skip
        with engine.connect() as connection, pytest.raises(DBAPIError, match="check constraint"):
            connection.execute(sa.text(f"UPDATE auditstore.streams SET {damage}"))


@pytest.mark.parametrize(
    ("flow_id", "words"),
    [
        ("", "empty"),
        ("x" * 256, "256 bytes, over 255"),
        ("é" * 128, "256 bytes, over 255"),
        ("a\0b", "NUL"),
        ("\ud800", "not UTF-8"),
    ],
    ids=ascii,
)
def test_a_flow_id_that_no_event_can_have_makes_no_stream(
    engine: sa.Engine, tmp_path: Path, flow_id: str, words: str
) -> None:
    """It would wait for ever; the reason is that of the intake."""
    with pytest.raises(ConfigurationError, match=words):
        add(engine, tmp_path / "out", flow_id)
    with engine.connect() as connection:
        assert streams.find(connection) == []


def test_a_flow_id_too_long_for_a_file_name_needs_another_template(
    engine: sa.Engine, tmp_path: Path
) -> None:
    """247 letters fit behind `flow_id=`; beyond that the hint's own template is taken."""
    add(engine, tmp_path / "fits", "x" * 247)
    with pytest.raises(ConfigurationError, match="a part of 256 bytes") as error:
        add(engine, tmp_path / "long", "x" * 248)
    template = error.value.hint.partition("--template '")[2].partition("'")[0]
    add(engine, tmp_path / "long", "x" * 248, key_template=template)
