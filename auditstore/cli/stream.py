"""``auditstore stream``: which flow's events go where, and every change of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from auditstore import credentials, streams
from auditstore.cli import stream_view
from auditstore.cli.context import Session
from auditstore.cli.display import show, write_json
from auditstore.cli.options import json_option
from auditstore.cli.stream_settings import checked_settings, setting_options
from auditstore.cli.stream_test import test
from auditstore.cli.wording import number
from auditstore.destinations import parse_destination
from auditstore.sql import events as event_sql
from auditstore.sql import progress, schedules, server

_ID = click.argument("stream_id", metavar="STREAM", type=click.IntRange(min=1))


@click.group()
def stream() -> None:
    """Streams: which flow's events go where."""


stream.add_command(test)


@stream.command()
@click.option("--flow", "flow_id", metavar="ID", required=True, help="The flow's id.")
@click.option(
    "--to", "url", metavar="URL", required=True,
    help="s3://bucket/prefix, azure://container/prefix or file:///folder/prefix.",
)  # fmt: skip
@setting_options
@click.option("--disabled", is_flag=True, help="Add it without starting it.")
@json_option
@click.pass_obj
def add(
    session: Session, /, *, flow_id: str, url: str, disabled: bool, as_json: bool, **given: Any
) -> None:
    """Send a flow's events to a bucket, a container or a folder.

    Every event that is appended from now on is delivered there.
    """
    destination = parse_destination(url, given["endpoint_url"] or None)
    settings = checked_settings(destination, given)
    with session.changing() as connection:
        name = settings.pop("credential", None)
        limits = {
            name: settings.pop(name)
            for name in ("max_bytes", "max_events", "max_delay")
            if name in settings
        }
        new = streams.NewStream(
            flow_id=flow_id, url=url, enabled=not disabled,
            credential_id=credentials.id_for(connection, name, destination),
            limits=streams.Limits(**limits), **settings,
        )  # fmt: skip
        added = streams.add(connection, new, actor=streams.current_actor())
    if as_json:
        write_json(stream_view.as_json(added))
        return
    show(f"Stream {added.stream_id} added, {'disabled' if disabled else 'enabled'}: "
         f"flow {added.flow_id} to {added.url}")  # fmt: skip
    show(f"See whether it works: auditstore stream test {added.stream_id}", style="dim")


@stream.command("list")
@click.option("--flow", "flow_id", metavar="ID", help="Of this flow only.")
@json_option
@click.pass_obj
def list_(session: Session, *, flow_id: str | None, as_json: bool) -> None:
    """List the streams."""
    with session.reading() as connection:
        found = streams.find(connection, flow_id=flow_id)
    if as_json:
        write_json([stream_view.as_json(each) for each in found])
    elif found:
        stream_view.show_list(found)
    else:
        show("No streams. Add one with `auditstore stream add --flow ID --to URL`.")


@stream.command("show")
@_ID
@json_option
@click.pass_obj
def show_(session: Session, *, stream_id: int, as_json: bool) -> None:
    """Show a stream: settings, state, what it covers, every change."""
    with session.reading() as connection:
        details = stream_view.Details(
            stream=streams.get(connection, stream_id),
            intervals=stream_view.intervals(connection, stream_id),
            changes=streams.changes(connection, stream_id),
            state_changes=streams.state_changes(
                connection, stream_id, limit=stream_view.ALL_STATES
            ),
            schedules=schedules.find(connection, [stream_id]),
            now=server.clock(connection),
        )
    if as_json:
        write_json(stream_view.details_as_json(details))
    else:
        stream_view.show_details(details)


@stream.command("set")
@_ID
@setting_options
@json_option
@click.pass_obj
def set_(session: Session, /, *, stream_id: int, as_json: bool, **given: Any) -> None:
    """Change a stream's settings; an empty value takes one away.

    Flow and place are what a stream is: to change them, add another stream.
    """
    if not any(value not in (None, ()) for value in given.values()):
        raise click.UsageError("Name at least one setting to change.")
    with session.changing() as connection:
        before = streams.get(connection, stream_id)
        settings = checked_settings(before.destination, given, before=before.options)
        if "credential" in settings:
            name = settings.pop("credential")
            settings["credential_id"] = credentials.id_for(connection, name, before.destination)
        after = streams.change(connection, stream_id, settings, actor=streams.current_actor())
    if as_json:
        write_json(stream_view.as_json(after))
        return
    changed = _differences(before.settings(), after.settings())
    show(f"Stream {stream_id} changed: {'; '.join(changed)}" if changed
         else f"Stream {stream_id} has these settings already")  # fmt: skip


@stream.command()
@_ID
@click.option("--catch-up", is_flag=True, help="Cover what was appended meanwhile, too.")
@click.pass_obj
def enable(session: Session, *, stream_id: int, catch_up: bool) -> None:
    """Deliver every event appended from now on."""
    with session.changing() as connection:
        if streams.get(connection, stream_id).enabled:
            show(f"Stream {stream_id} is enabled already")
            return
        after = streams.enable(
            connection, stream_id, catch_up=catch_up, actor=streams.current_actor()
        )
        waiting, _ = event_sql.waiting(connection, after.flow_id, after=after.sealed_position)
    show(f"Stream {stream_id} enabled")
    if waiting:
        show(f"{number(waiting, 'event')} to catch up with")


@stream.command()
@_ID
@click.pass_obj
def disable(session: Session, *, stream_id: int) -> None:
    """Stop a stream at once."""
    with session.changing() as connection:
        if not streams.get(connection, stream_id).enabled:
            show(f"Stream {stream_id} is disabled already")
            return
        after = streams.disable(connection, stream_id, actor=streams.current_actor())
        unsealed, _ = event_sql.waiting(connection, after.flow_id, after=after.sealed_position)
        sealed = progress.undelivered(connection, stream_id)
    show(f"Stream {stream_id} disabled")
    if unsealed:
        show(f"{number(unsealed, 'appended event')} had not been put into a file, and this stream "
             "does not cover them.", style="yellow")  # fmt: skip
    if sealed.files:
        show(f"{number(sealed.events, 'event')} in {number(sealed.files, 'file')} had been sealed "
             "and not delivered; they are covered.", style="yellow")  # fmt: skip
    show(f"To cover what is appended meanwhile later: auditstore stream enable {stream_id} "
         "--catch-up", style="dim")  # fmt: skip


@stream.command()
@_ID
@click.pass_obj
def resume(session: Session, *, stream_id: int) -> None:
    """Let a blocked or halted stream try again at once."""
    with session.changing() as connection:
        before = streams.get(connection, stream_id)
        streams.resume(connection, stream_id, actor=streams.current_actor())
    show(f"Stream {stream_id} was {before.shown_state}; it tries again at once" if before.enabled
         else f"Stream {stream_id} is disabled: start it with `auditstore stream enable "
         f"{stream_id}`")  # fmt: skip


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"{name} {stream_view.value(before[name])} -> {stream_view.value(after[name])}"
        for name in after
        if before[name] != after[name]
    ]
