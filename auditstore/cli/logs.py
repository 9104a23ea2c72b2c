"""How a daemon's log looks: one line an entry on stderr, for people or for a program.

Entries hold what an operator needs: stream, key, cause. They never hold lead data or secrets;
tracebacks come without the values of variables, which could be either.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import orjson
import structlog

from auditstore.cli.display import harmless, harmless_json

LogFormat = Literal["console", "json"]
LOG_FORMATS: Final[tuple[LogFormat, ...]] = ("console", "json")

# Libraries' own words: below these levels they speak of requests and their headers.
_LIBRARIES: Final = {
    "": logging.WARNING,
    # It warns of each tick that a slow database makes it skip, ten a second.
    "apscheduler": logging.ERROR,
    "exporter": logging.INFO,
    "reconciling": logging.INFO,
    "hooks": logging.INFO,
    "auditstore": logging.INFO,
    # SQLAlchemy speaks under the name of the class that it finds.
    "auditstore.database.LivingPool": logging.WARNING,
}


def configure_logs(log_format: LogFormat) -> None:
    """Send every entry, ours and the libraries', to stderr in this form, times in UTC."""
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _without_nothing,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(log_format),
            ],
        )
    )
    logging.getLogger().handlers = [handler]
    for name, level in _LIBRARIES.items():
        logging.getLogger(name or None).setLevel(level)


def _rendering(log_format: LogFormat) -> list[structlog.types.Processor]:
    if log_format == "json":
        return [_in_order, structlog.processors.JSONRenderer(serializer=_to_json)]
    return [
        _one_line,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=14,
            sort_keys=False,
            # The default one shows local variables.
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _in_order(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """When, how bad and what come first, for whoever reads the lines as they are."""
    first = {name: entry[name] for name in ("timestamp", "level", "event") if name in entry}
    return first | dict(entry)


def _to_json(value: Any, **_: Any) -> str:
    try:
        line = orjson.dumps(value, default=str).decode()
    except TypeError:
        # Names in a folder may be any bytes, which Python has as lone surrogates.
        line = json.dumps(value, default=str, separators=(",", ":"))
    return harmless_json(line)


def _without_nothing(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave out what has no value."""
    for name in [name for name, value in entry.items() if value is None or value == ""]:
        del entry[name]
    return entry


def _one_line(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters: a store's or a server's words may hold any.

    A traceback keeps its lines, each set in, so that none can look like an entry.
    """
    for name, value in entry.items():
        if name == "exception" and isinstance(value, str):
            entry[name] = "\n".join(f"    {harmless(line)}" for line in value.split("\n"))
        elif not isinstance(value, int | float | bool):
            entry[name] = harmless(value)
    return entry
