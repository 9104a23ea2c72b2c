"""The form of the daemon's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from auditstore.cli.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Other tests log as before."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, _ = handlers, root.setLevel(level)
    structlog.reset_defaults()


def _fail() -> None:
    password = "local-secret"  # noqa: F841  # it must not be shown
    raise RuntimeError("it broke")


@pytest.mark.parametrize("form", ["console", "json"])
def test_tracebacks_show_no_variables(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it broke is told; what was in the variables is not."""
    configure_logs(form)  # type: ignore[arg-type]  # the parameter's values are the type's
    try:
        _fail()
    except RuntimeError:
        structlog.get_logger("exporter").exception("unexpected failure", stream=1)
    said = capsys.readouterr().err
    assert "RuntimeError: it broke" in said
    assert "local-secret" not in said.replace('password = "local-secret"', "")


def test_each_json_entry_is_a_line_that_begins_with_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """UTC, level and event come first; what has no value is left out."""
    configure_logs("json")
    structlog.get_logger("exporter").info("delivered", stream=1, etag=None, key="a\nb")
    (line,) = capsys.readouterr().err.splitlines()
    entry = orjson.loads(line)
    assert list(entry)[:3] == ["timestamp", "level", "event"]
    assert entry["timestamp"].endswith("Z")
    assert (entry["stream"], entry["key"]) == (1, "a\nb")
    assert "etag" not in entry


def test_a_console_entry_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a store's words are shown, not obeyed."""
    configure_logs("console")
    structlog.get_logger("exporter").warning("retrying", cause="one\ntwo\x1b[2J")
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert "one\\ntwo" in line


def test_libraries_are_heard_only_when_something_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Their requests, which name headers, are not logged; their warnings are."""
    configure_logs("json")
    logging.getLogger("azure.core").info("Authorization: REDACTED")
    logging.getLogger("botocore").warning("clock is skewed")
    (line,) = capsys.readouterr().err.splitlines()
    assert orjson.loads(line)["event"] == "clock is skewed"
