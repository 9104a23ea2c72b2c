"""The settings of a stream as options of `stream add` and `stream set`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from auditstore.destinations import Destination
from auditstore.errors import ConfigurationError
from auditstore.layout import FORMATS

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option("--endpoint-url", metavar="URL", help="Of a server other than the cloud's own."),
    click.option("--region", help="The bucket's region."),
    click.option("--credential", metavar="NAME",
                 help="See `auditstore credential`; else the environment's own."),
    click.option("--format", "format_", type=click.Choice(FORMATS),
                 help="Many events a file, or one object an event.  [default: ndjson.gz]"),
    click.option("--template", metavar="TEMPLATE", help="The keys of files, below the prefix."),
    click.option("--max-bytes", type=int, metavar="BYTES",
                 help="A file's uncompressed size.  [default: 8 MiB]"),
    click.option("--max-events", type=int, metavar="N", help="A file's events.  [default: 10000]"),
    click.option("--max-delay", type=float, metavar="SECONDS",
                 help="A file's wait for more events.  [default: 2]"),
    click.option("--reconcile-files", metavar="CRON",
                 help="When its files are compared with the store, in UTC, or off.  "
                 "[default: 0 * * * *]"),
    click.option("--reconcile-events", metavar="CRON",
                 help="When every event is, in UTC, or off.  [default: 0 3 * * *]"),
    click.option("--option", "options", multiple=True, metavar="NAME=VALUE",
                 help="One of the store's own; s3: sse, kms_key_id, storage_class, "
                 "expected_bucket_owner, checksums, addressing; both clouds: "
                 "insecure_http. May be repeated."),
)  # fmt: skip


def setting_options(command: _Command) -> _Command:
    """The options whose values :func:`checked_settings` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def checked_settings(
    destination: Destination,
    given: Mapping[str, Any],
    *,
    before: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The settings that were named, an empty value as ``None``; refuses what no store knows.

    ``before`` are the options in force, which the named ones join or, empty, leave.
    """
    settings: dict[str, Any] = {
        name: given[name] or None
        for name in ("endpoint_url", "region", "credential")
        if given[name] is not None
    }
    if settings.get("region") and destination.scheme != "s3":
        raise ConfigurationError(
            f"{destination.scheme} destinations have no region", hint="Leave --region out."
        )
    settings |= {
        name: given[name]
        for name in ("max_bytes", "max_events", "max_delay")
        if given[name] is not None
    }
    if given["format_"] is not None:
        settings["format"] = given["format_"]
    if given["template"] is not None:
        settings["key_template"] = given["template"] or None
    settings |= {
        name: _cron(name, given[name])
        for name in ("reconcile_files", "reconcile_events")
        if given[name] is not None
    }
    if given["options"]:
        settings["options"] = _options(destination, given["options"], before or {})
    return settings


def _cron(name: str, expression: str) -> str:
    from exporters.cron import check_cron  # noqa: PLC0415  # the composition root

    try:
        return check_cron(expression)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"--{name.replace('_', '-')}: {error.message}", hint=error.hint
        ) from error


def _options(
    destination: Destination, given: tuple[str, ...], before: Mapping[str, str]
) -> dict[str, str]:
    from exporters.stores import check_options  # noqa: PLC0415  # the composition root

    options = dict(before)
    for pair in given:
        name, separator, value = pair.partition("=")
        if not separator:
            raise click.BadParameter("write NAME=VALUE", param_hint="--option")
        if value:
            options[name] = value
        else:
            options.pop(name, None)
    check_options(destination.scheme, options)
    return options
