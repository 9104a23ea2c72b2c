"""``auditstore migrate``."""

from __future__ import annotations

import click

from auditstore import database
from auditstore.cli.context import Session
from auditstore.cli.display import show, write_json
from auditstore.cli.options import json_option


@click.command()
@json_option
@click.pass_obj
def migrate(session: Session, *, as_json: bool) -> None:
    """Bring the database's schema up to date.

    Run it as the user that shall own the schema. Safe to run again, and from several machines
    at once.
    """
    applied = database.migrate(session.database_url)
    if as_json:
        write_json({"applied": applied})
    elif applied:
        show(f"Migrated: {', '.join(applied)}")
    else:
        show("The schema is up to date")
