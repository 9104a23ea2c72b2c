"""``auditstore status``: how far each stream is, and what holds it up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from auditstore import database, transport
from auditstore.cli import stream_view
from auditstore.cli.context import Session
from auditstore.cli.daemons import is_alive
from auditstore.cli.display import note, write_json
from auditstore.cli.options import json_option
from auditstore.cli.overview import Overview, StreamProgress, overview
from auditstore.cli.schedule_view import schedules_as_json
from auditstore.cli.status_view import show_overview


@click.command()
@click.option("--all", "show_all", is_flag=True, help="List every stream, however many.")
@json_option
@click.pass_obj
def status(session: Session, *, show_all: bool, as_json: bool) -> None:
    """How far each stream is, and what holds it up; those in trouble first."""
    with session.reading() as connection:
        seen = overview(connection)
    if weak := transport.weakness(database.database_url(session.database_url)):
        note(weak[0].upper() + weak[1:])
    if as_json:
        write_json(_as_json(seen))
        return
    show_overview(seen, show_all=show_all)


def _as_json(seen: Overview) -> dict[str, Any]:
    return {
        "now": seen.now,
        "last_position": seen.position,
        "streams": [_stream_as_json(each, seen) for each in seen.streams],
        "daemons": [
            {name: getattr(daemon, name) for name in daemon._fields} | {"alive": is_alive(daemon)}
            for daemon in seen.daemons
        ],
        "open_writers": [asdict(each) for each in seen.writers],
    }


def _stream_as_json(each: StreamProgress, seen: Overview) -> dict[str, Any]:
    file, daemon = each.last_file, each.daemon
    return stream_view.as_json(each.stream) | {
        "waiting_events": each.waiting,
        "lag_seconds": round(each.lag(seen.now), 3),
        "reconciliations": schedules_as_json(seen.schedules.get(each.stream.stream_id, ())),
        "late": each.standing(seen.now) == "late",
        "daemon_id": None if daemon is None else daemon.daemon_id,
        "fence_position": None if daemon is None else daemon.fence_position,
        "fence_age_seconds": None if each.fence_age is None else round(each.fence_age, 3),
        "held_back_by": [
            {"pid": writer.pid, "prepared": writer.prepared, "age_seconds": writer.age}
            for writer in seen.holding(each)
        ],
        "last_file": None if file is None else {
            "sequence": file.sealed.sequence,
            "object_key": file.sealed.object_key,
            "event_count": file.sealed.event_count,
            "delivered_at": file.delivered_at,
        },
    }  # fmt: skip
