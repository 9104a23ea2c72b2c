"""``auditstore key``: programs' keys to the HTTP API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import click

from auditstore import accounts, streams
from auditstore.accounts import ROLES, ApiKey, Role
from auditstore.cli.context import Session
from auditstore.cli.display import Column, Row, listing, note, plain, show, write_json
from auditstore.cli.options import json_option
from auditstore.cli.wording import utc


@click.group()
def key() -> None:
    """Keys to the HTTP API, one for each program.

    \b
    viewer         reads events, streams, deliveries and reports
    operator       besides, appends, changes streams, runs reconciliations
    administrator  besides, changes credentials
    """


@key.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--flow", "flows", multiple=True, metavar="ID",
              help="For this flow only. May be repeated.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True,
              help="How long it opens.")  # fmt: skip
@click.pass_obj
def add(session: Session, *, name: str, role: Role, flows: tuple[str, ...], days: int) -> None:
    """Make a key for the program NAME, and write it to standard output, this once."""
    with session.changing() as connection:
        added, secret = accounts.add_key(
            connection, name=name, role=role, flows=flows or None, lasts=timedelta(days=days),
            actor=streams.current_actor(),
        )  # fmt: skip
    note(f"Key {added.key_id} for {added.name} ({added.role}), until {_end(added)}. It is shown "
         "this once:")  # fmt: skip
    # Alone, so that it can be piped to where it is kept.
    click.echo(secret)


@key.command("list")
@json_option
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List the keys, never the keys themselves."""
    with session.reading() as connection:
        found = accounts.find_keys(connection)
    if as_json:
        write_json([
            asdict(each) | {"flows": None if each.flows is None else sorted(each.flows)}
            for each in found
        ])  # fmt: skip
        return
    if not found:
        show("No keys. Make one with `auditstore key add NAME --role viewer`.")
        return
    listing(
        (Column("KEY", right=True), Column("NAME"), Column("ROLE"),
         Column("FLOWS", shrinking=True), Column("UNTIL"), Column("REVOKED", optional=1)),
        [
            Row((
                plain(str(each.key_id)), plain(each.name), plain(each.role),
                plain("all" if each.flows is None else ", ".join(sorted(each.flows))),
                plain(_end(each)), plain(utc(each.revoked_at) if each.revoked_at else "-"),
            ))
            for each in found
        ],
    )  # fmt: skip


@key.command()
@click.argument("key_id", metavar="KEY", type=click.IntRange(min=1))
@click.pass_obj
def revoke(session: Session, *, key_id: int) -> None:
    """Let the key with the number KEY open nothing any more, from now on."""
    with session.changing() as connection:
        revoked = accounts.revoke_key(connection, key_id, actor=streams.current_actor())
    show(f"Key {key_id} ({revoked.name}) is revoked")


def _end(key_: ApiKey) -> str:
    return utc(key_.expires_at) or "for ever"
