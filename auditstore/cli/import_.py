"""``auditstore import``: events of another view into the outbox."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.display import show, write_json
from auditstore.cli.options import json_option
from auditstore.cli.view_options import place_options
from auditstore.cli.view_sides import OUTBOX, Places, Sides
from auditstore.cli.wording import MOMENT, number, utc
from auditstore.errors import ConfigurationError
from auditstore.reconciliation import Finding, Scope
from auditstore.reconciliation.report_text import printable
from auditstore.reconciliation.views.importing import ImportResult, import_events
from auditstore.reconciliation.views.records import Window
from auditstore.sql import imports as sql

_SHOWN = 50


@click.command("import")
@click.argument("source", required=False, metavar="[leadconduit|FILE]")
@place_options
@click.option("--flow", "flow_id", metavar="ID", help="Only events of this flow; also the flow of "
              "events that name none.")  # fmt: skip
@click.option("--since", type=MOMENT, help="Only events created at this time or later.")
@click.option("--until", type=MOMENT, help="Only events created before this time.")
@click.option("--dry-run", is_flag=True, help="Say what would be appended, and append nothing.")
@click.option("--list", "list_", is_flag=True, help="Show the latest imports instead.")
@json_option
@click.pass_context
def import_(
    ctx: click.Context,
    /,
    *,
    source: str | None,
    flow_id: str | None,
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
    list_: bool,
    as_json: bool,
    **places: Any,
) -> None:
    """Take events into the outbox: from LeadConduit's API, an exported file, or a bucket.

    Events that are there already are left as they are, so it can be run again. Each one that is
    appended is recorded as imported. Leaves with 1 if something could not be taken.
    """
    session: Session = ctx.obj
    if list_:
        _show_imports(session, as_json=as_json)
        return
    where = Places.taken_from(places)
    if (source is None) == (where.location is None) or source == OUTBOX:
        raise ConfigurationError(
            "name what to import: leadconduit, a file, or --location URL",
            hint="For example `auditstore import --location s3://bucket/prefix`.",
        )
    scope = Scope("events", since, until)
    kept: list[Finding] = []
    count = 0

    def take(finding: Finding) -> None:
        nonlocal count
        count += 1
        if as_json or len(kept) < _SHOWN:
            kept.append(finding)

    with Sides(session, where, flow_id=flow_id) as sides, session.importing() as engine:
        view = sides.location(where.location) if where.location else sides.source(source or "")
        result = import_events(
            engine, view, Window(flow_id, scope.since, scope.until),
            actor=streams.current_actor(), report=take, dry_run=dry_run,
        )  # fmt: skip
        sides.completed()
    if as_json:
        write_json({"source": view.name, "dry_run": dry_run, **asdict(result),
                    "findings": [asdict(each) for each in kept]})  # fmt: skip
    else:
        _show_result(view.name, result, kept, count, dry_run=dry_run)
    ctx.exit(1 if count else 0)


def _show_result(
    name: str, result: ImportResult, kept: list[Finding], count: int, *, dry_run: bool
) -> None:
    done = "would be appended" if dry_run else "appended"
    show(f"From {name}: {number(result.appended, 'event')} {done}, "
         f"{number(result.existing)} there already, {number(result.refused)} refused, "
         f"{number(result.troubles)} things that are no events")  # fmt: skip
    if result.rewritten:
        show(f"{number(result.rewritten)} of those that are there have other bytes and the same "
             "content", style="dim")  # fmt: skip
    if result.import_id is not None:
        show(f"Recorded as import {result.import_id}", style="dim")
    for finding in kept:
        place = finding.object_key or ""
        event = f", event {finding.event_id}" if finding.event_id else ""
        show(printable(f"{finding.kind.in_words}: {place}{event}: {finding.detail}"), indent="  ")
    if count > len(kept):
        show(f"and {count - len(kept)} more: --json lists them all", indent="  ")


def _show_imports(session: Session, *, as_json: bool) -> None:
    with session.reading() as connection:
        found = [
            {str(name): value for name, value in row._asdict().items()}
            for row in sql.find(connection, limit=_SHOWN)
        ]
    if as_json:
        write_json(found)
        return
    if not found:
        show("No imports.")
    for row in found:
        finished = utc(row["finished_at"]) or "cut short"
        show(f"{row['import_id']}: {row['kind']} from {row['source']} by {row['actor']}, "
             f"{utc(row['started_at'])} to {finished}: {number(row['appended'], 'event')} "
             f"appended, {number(row['existing'])} there already, "
             f"{number(row['refused'])} refused")  # fmt: skip
