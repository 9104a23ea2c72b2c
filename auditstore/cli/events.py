"""``auditstore events``: look at what the store holds."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

import click
import orjson
from rich.text import Text
from sqlalchemy import Connection

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.display import (
    Column,
    Row,
    console,
    heading,
    listing,
    note,
    pairs,
    plain,
    show,
    write_bytes,
    write_json,
)
from auditstore.cli.json_text import laid_out
from auditstore.cli.object_urls import object_key, object_url
from auditstore.cli.wording import MOMENT, number, size, utc
from auditstore.errors import ConfigurationError, DatabaseRefused, NotFound
from auditstore.events import StoredEvent
from auditstore.ledger import LedgerFile
from auditstore.repository import EventRepository
from auditstore.sql import imports, progress
from auditstore.sql import streams as stream_sql
from auditstore.sql.events import EventFilter, Order
from auditstore.sql.failures import translated

_OUTCOME_STYLES = {"failure": "yellow", "stop": "yellow", "error": "red"}


@click.group()
def events() -> None:
    """Look at the events in the store."""


@events.command("list")
@click.option("--flow", "flow_id", metavar="ID", help="Of this flow.")
@click.option("--lead", "lead_id", metavar="ID", help="Of this lead.")
@click.option("--type", "type_", metavar="TYPE", help="source, filter, recipient, retry, ...")
@click.option("--outcome", metavar="OUTCOME", help="success, failure, error, stop, ...")
@click.option("--since", type=MOMENT, help="Created at this time or later: ISO 8601, or 2h, 7d.")
@click.option("--until", type=MOMENT, help="Created before this time.")
@click.option("--after-id", metavar="ID", help="Behind this event id.")
@click.option("--before-id", metavar="ID", help="Ahead of this event id.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True,
              help="At most so many; 0 for all.")  # fmt: skip
@click.option("--order", type=click.Choice(["asc", "desc"]), default="desc", show_default=True,
              help="Oldest or newest first, by event id.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the snapshots, one a line.")
@click.pass_obj
def list_(
    session: Session,
    *,
    flow_id: str | None,
    lead_id: str | None,
    type_: str | None,
    outcome: str | None,
    since: datetime | None,
    until: datetime | None,
    after_id: str | None,
    before_id: str | None,
    limit: int,
    order: Order,
    as_json: bool,
) -> None:
    """List events, newest first."""
    wanted = EventFilter(
        flow_id=flow_id, lead_id=lead_id, type=type_, outcome=outcome, start=since, end=until,
        after_id=after_id and after_id.lower(), before_id=before_id and before_id.lower(),
    )  # fmt: skip
    # Unchecked: readers may read the events and nothing else, the schema's version included.
    with session.reading(check=False) as connection:
        found = islice(EventRepository().iterate(connection, wanted, order=order), limit or None)
        if as_json:
            for stored in found:
                write_bytes(stored.event.payload + b"\n")
            return
        _table(list(found), limit)


@events.command("show")
@click.argument("event_id")
@click.option("--flow", "flow_id", metavar="ID", help="Of this flow, where flows share the id.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; the snapshot is `snapshot`.")
@click.pass_obj
def show_(session: Session, *, event_id: str, flow_id: str | None, as_json: bool) -> None:
    """Show one event: where it lies, and its snapshot."""
    with session.reading(check=False) as connection:
        stored = _one(EventRepository().get(connection, event_id, flow_id=flow_id), event_id)
        places = _places(connection, stored)
        imported = _import_of(connection, stored)
    if as_json:
        _write_event(stored, places, imported)
        return
    event = stored.event
    pairs((
        ("Event", event.event_id),
        ("Flow", event.flow_id),
        ("Lead", event.lead_id),
        ("Type", _words(event.type, event.outcome)),
        ("Reason", event.reason or None),
        ("Position", number(stored.position)),
        ("Recorded", utc(stored.recorded_at)),
        ("Imported", None if imported is None else f"by {imported['kind']} "
         f"{imported['import_id']} from {imported['source']}, by {imported['actor']}"),
        ("Size", size(event.size_bytes)),
        ("SHA-256", event.sha256.hex()),
    ))  # fmt: skip
    heading("Where it lies")
    if places is None:
        show("This database user may read events, not streams.", style="dim")
    elif not places:
        show("The flow has no stream.", style="dim")
    for place in places or ():
        show(f"Stream {place['stream_id']}: {_where(place)}")
        if place["object"]:
            show(place["object"], indent="  ", style="cyan")
    heading("Snapshot")
    console().print(plain_json(event.payload))


def plain_json(payload: bytes) -> Text:
    """The snapshot over several lines; on a terminal with its names coloured."""
    # Split at our own line ends only: a string may hold U+2028, which splitlines() splits at.
    text = Text("\n").join(plain(line) for line in laid_out(payload.decode()).split("\n"))
    text.highlight_regex(r'(?m)^\s*"(?:[^"\\]|\\.)*"(?=: )', style="cyan")
    return text


def _table(found: list[StoredEvent], limit: int) -> None:
    if not found:
        show("No events match.")
        return
    columns = (
        Column("CREATED"), Column("EVENT"), Column("TYPE"), Column("OUTCOME"),
        Column("LEAD", optional=1), Column("FLOW", optional=2, shrinking=True),
        Column("REASON", optional=3),
    )  # fmt: skip
    hidden = listing(
        columns,
        [
            Row((
                plain(utc(each.event.created_at)), plain(each.event.event_id),
                plain(each.event.type),
                plain(each.event.outcome, _OUTCOME_STYLES.get(each.event.outcome or "", "")),
                plain(each.event.lead_id), plain(each.event.flow_id), plain(each.event.reason),
            ))
            for each in found
        ],
    )  # fmt: skip
    notes = []
    if len(found) == limit:
        notes.append(f"the first {number(limit, 'event')}; --limit 0 shows all")
    if hidden:
        notes.append(f"no room for {', '.join(hidden)}: widen the terminal, or use --json")
    if notes:
        note("; ".join(notes))


def _one(found: list[StoredEvent], event_id: str) -> StoredEvent:
    if not found:
        raise NotFound(
            f"there is no event {event_id!r}", hint="`auditstore events list` shows the newest."
        )
    if len(found) > 1:
        flows = ", ".join(each.event.flow_id for each in found)
        raise ConfigurationError(
            f"several flows have an event {event_id}: {flows}", hint="Choose one with --flow ID."
        )
    return found[0]


def _places(connection: Connection, stored: StoredEvent) -> list[dict[str, Any]] | None:
    """Where each stream of the flow has the event, or ``None`` for who may not know."""
    try:
        with translated(), connection.begin_nested():
            return [
                _place(connection, stream, stored)
                for stream in streams.find(connection, flow_id=stored.event.flow_id)
            ]
    except DatabaseRefused:
        return None


def _import_of(connection: Connection, stored: StoredEvent) -> dict[str, Any] | None:
    """The import that the event came by; ``None`` for the flow engine's own, and where this user
    may not know.
    """
    try:
        with translated(), connection.begin_nested():
            found = imports.of_position(connection, stored.position)
    except DatabaseRefused:
        return None
    if found is None:
        return None
    return {name: getattr(found, name) for name in ("import_id", "kind", "source", "actor")}


def _place(connection: Connection, stream: streams.Stream, stored: StoredEvent) -> dict[str, Any]:
    file = progress.file_holding(connection, stream.stream_id, stored.position)
    place: dict[str, Any] = {"stream_id": stream.stream_id, "file": None, "object": None,
                             "delivered_at": None}  # fmt: skip
    if file is None:
        covered = any(
            start < stored.position and (end is None or stored.position <= end)
            for start, end in stream_sql.intervals(connection, stream.stream_id)
        )
        return place | {"state": "waiting" if covered else "not-covered"}
    return place | {
        "state": "sealed" if file.delivered_at is None else "delivered",
        "file": file.sealed.sequence,
        "object": _object(stream, stored, file),
        "delivered_at": file.delivered_at,
    }


def _object(stream: streams.Stream, stored: StoredEvent, file: LedgerFile) -> str | None:
    try:
        return object_url(stream, object_key(stream, stored, file))
    except ConfigurationError:
        return None  # a row changed by hand names no place; `stream show` says so


def _where(place: dict[str, Any]) -> str:
    """A place in words."""
    words = {
        "waiting": "waits to be put into a file",
        "not-covered": "not covered by this stream",
        "sealed": f"file {place['file']}, not delivered yet",
        "delivered": f"file {place['file']}, delivered {utc(place['delivered_at'])}",
    }
    return words[place["state"]]


def _write_event(
    stored: StoredEvent, places: list[dict[str, Any]] | None, imported: dict[str, Any] | None
) -> None:
    # The snapshot goes in as it is: parsing it could change it.
    event = stored.event
    write_json({
        "position": stored.position, "recorded_at": stored.recorded_at,
        "event_id": event.event_id, "flow_id": event.flow_id, "lead_id": event.lead_id,
        "sha256": event.sha256.hex(), "size_bytes": event.size_bytes, "streams": places,
        "import": imported,
        "snapshot": orjson.Fragment(event.payload),
    })  # fmt: skip


def _words(*parts: str | None) -> str | None:
    return ", ".join(part for part in parts if part) or None
