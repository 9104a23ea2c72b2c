"""``auditstore user``: who may sign in to the console."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from auditstore import accounts, streams
from auditstore.accounts import ROLES, Role
from auditstore.cli.context import Session
from auditstore.cli.display import Column, Row, listing, plain, show, write_json
from auditstore.cli.options import json_option
from auditstore.cli.wording import utc
from auditstore.errors import ConfigurationError

_MAX_BYTES = 8 * 1024


@click.group()
def user() -> None:
    """Who may sign in to the console.

    \b
    viewer         sees flows, events, deliveries and reports
    operator       besides, changes streams, sends test leads, runs reconciliations
    administrator  besides, changes credentials
    """


@user.command()
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--flow", "flows", multiple=True, metavar="ID",
              help="See only this flow. May be repeated.")  # fmt: skip
@click.pass_obj
def add(session: Session, *, name: str, role: Role, flows: tuple[str, ...]) -> None:
    """Add the user NAME.

    The password is asked for, or read as one line from standard input.
    """
    password = _read_password()
    with session.changing() as connection:
        added = accounts.add_user(
            connection, name=name, password=password, role=role, flows=flows or None,
            actor=streams.current_actor(),
        )  # fmt: skip
    show(f"User {added.name} added ({added.role})")


@user.command("list")
@json_option
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List the users."""
    with session.reading() as connection:
        found = accounts.find_users(connection)
    if as_json:
        write_json([
            asdict(each) | {"flows": None if each.flows is None else sorted(each.flows)}
            for each in found
        ])  # fmt: skip
        return
    if not found:
        show("No users. Add one with `auditstore user add NAME --role administrator`.")
        return
    listing(
        (Column("NAME"), Column("ROLE"), Column("FLOWS", shrinking=True), Column("STATE"),
         Column("CHANGED", optional=1)),
        [
            Row((
                plain(each.name), plain(each.role), plain(_flows(each.flows)),
                plain("enabled" if each.enabled else "disabled"), plain(utc(each.changed_at)),
            ))
            for each in found
        ],
    )  # fmt: skip


@user.command()
@click.argument("name")
@click.pass_obj
def password(session: Session, *, name: str) -> None:
    """Give NAME a new password, and end his sessions."""
    given = _read_password()
    with session.changing() as connection:
        accounts.set_password(connection, name, given, actor=streams.current_actor())
    show(f"User {name} has a new password")


@user.command()
@click.argument("name")
@click.pass_obj
def disable(session: Session, *, name: str) -> None:
    """Let NAME in no more, and end his sessions."""
    with session.changing() as connection:
        accounts.set_enabled(connection, name, enabled=False, actor=streams.current_actor())
    show(f"User {name} is disabled")


@user.command()
@click.argument("name")
@click.pass_obj
def enable(session: Session, *, name: str) -> None:
    """Let NAME in again."""
    with session.changing() as connection:
        accounts.set_enabled(connection, name, enabled=True, actor=streams.current_actor())
    show(f"User {name} is enabled")


def _flows(flows: frozenset[str] | None) -> str:
    return "all" if flows is None else ", ".join(sorted(flows))


def _read_password() -> str:
    """From a terminal twice, unseen; otherwise one line of standard input. Never an argument."""
    if sys.stdin.isatty():
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return given
    data = sys.stdin.buffer.read(_MAX_BYTES)
    try:
        line = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigurationError(
            "the password is not UTF-8 text", hint="Give it as one line."
        ) from None
    if "\n" in line:
        raise ConfigurationError("the password has more than one line", hint="Give one line.")
    return line
