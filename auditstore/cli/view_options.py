"""The options that choose views: for `reconcile` and `import`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_PLACES: Final = (
    click.option(
        "--location", metavar="URL",
        help="A bucket that LeadConduit (or somebody else) filled: s3://bucket/prefix, "
        "azure://container/prefix or file:///folder/prefix.",
    ),
    click.option("--endpoint-url", metavar="URL", help="Of the location's server."),
    click.option("--region", help="The location's region (S3)."),
    click.option(
        "--credential", "credentials", multiple=True, metavar="NAME",
        help="For the location or for LeadConduit, by its kind; else the environment's own. "
        "May be repeated.",
    ),
    click.option(
        "--checkpoint", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
        help="Keep what LeadConduit gave there, so that a run that was cut goes on.",
    ),
)  # fmt: skip
_SIDES: Final = (
    click.option(
        "--source", metavar="outbox|leadconduit|FILE",
        help="What is taken for right: the outbox, LeadConduit's Events API, or a file exported "
        "from it.  [default: outbox]",
    ),
    click.option(
        "--against", multiple=True, type=click.Choice(["cloud", "outbox"]),
        help="What is compared with it; give both to compare all three views.  [default: cloud "
        "for the outbox, else outbox]",
    ),
    click.option(
        "--adopt", is_flag=True,
        help="Append LeadConduit's events that the outbox lacks, then compare again.",
    ),
    click.option(
        "--dry-run", is_flag=True,
        help="With --adopt or --repair: say what would be done, and change nothing.",
    ),
)  # fmt: skip


def place_options(command: _Command) -> _Command:
    """Where a view is that is not this store's own, and how to get at it."""
    for option in reversed(_PLACES):
        command = option(command)
    return command


def side_options(command: _Command) -> _Command:
    """Which views are compared, and what of it is taken over."""
    for option in reversed(_SIDES):
        command = option(command)
    return command
