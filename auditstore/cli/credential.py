"""``auditstore credential``: secrets for the stores, kept encrypted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from auditstore import credentials, streams
from auditstore.cli.context import Session
from auditstore.cli.credential_trial import insist_on_tried, refuse_failures, try_secret
from auditstore.cli.display import Column, Row, busy, listing, note, plain, show, write_json
from auditstore.cli.options import json_option
from auditstore.cli.secret_input import read_secret, secret_options
from auditstore.cli.wording import number, utc
from auditstore.secret_fields import KINDS, checked
from auditstore.streams import Stream
from auditstore.vault import new_key as make_key


@click.group()
def credential() -> None:
    """Secrets for the stores, kept encrypted.

    A stream without a credential uses what the cloud's own tools would: environment,
    profile, machine role. Secrets are encrypted with the keys in AUDITSTORE_SECRET_KEYS.
    """


@credential.command("new-key")
def new_key() -> None:
    """Print a new key for AUDITSTORE_SECRET_KEYS."""
    click.echo(make_key())
    click.echo(
        "Put it first in AUDITSTORE_SECRET_KEYS, before older keys and a comma, wherever "
        "auditstore runs.\nWhoever has it and the database has the secrets; without it they "
        "are lost.",
        err=True,
    )


@credential.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What it is for.")
@secret_options
@click.pass_obj
def add(session: Session, *, name: str, kind: str, from_file: Path | None, from_env: bool) -> None:
    """Keep a secret under a NAME.

    It is read from standard input, as a JSON object or as lines of name=value; on a terminal
    it is asked for.

    \b
    s3           access_key_id, secret_access_key; session_token, role_arn, external_id
    azure        connection_string, or account_url with sas_token or account_key
    leadconduit  api_key
    """
    secret = read_secret(kind, from_file=from_file, from_env=from_env)
    with session.changing() as connection:
        added = credentials.add(
            connection, session.vault, name=name, kind=kind, secret=secret,
            actor=streams.current_actor(),
        )  # fmt: skip
    show(f"Credential {added.name} added ({added.kind}, {added.hint})")


@credential.command("list")
@json_option
@click.pass_obj
def list_(session: Session, *, as_json: bool) -> None:
    """List the credentials; never their secrets."""
    with session.reading() as connection:
        found = credentials.find(connection)
        using: dict[int, list[int]] = {}
        for stream in streams.find(connection):
            if stream.credential_id is not None:
                using.setdefault(stream.credential_id, []).append(stream.stream_id)
    if as_json:
        write_json(
            [asdict(each) | {"streams": using.get(each.credential_id, [])} for each in found]
        )
        return
    if not found:
        show(
            "No credentials. Add one with "
            "`auditstore credential add NAME --kind s3|azure|leadconduit`."
        )
        return
    columns = (
        Column("NAME"), Column("KIND"), Column("SHOWN AS", shrinking=True), Column("STREAMS"),
        Column("CHANGED", optional=1),
    )  # fmt: skip
    listing(
        columns,
        [
            Row((
                plain(each.name), plain(each.kind), plain(each.hint),
                plain(", ".join(map(str, using.get(each.credential_id, []))) or "none"),
                plain(utc(each.changed_at)),
            ))
            for each in found
        ],
    )  # fmt: skip


@credential.command()
@click.argument("name")
@secret_options
@click.option(
    "--no-check", is_flag=True,
    help="Take it without trying it, for stores that are away; the old secret is gone then.",
)  # fmt: skip
@click.pass_obj
def rotate(
    session: Session, *, name: str, from_file: Path | None, from_env: bool, no_check: bool
) -> None:
    """Replace the secret of NAME; its streams go on with it at once.

    It is read as in `auditstore credential add`. Before it takes effect, it writes a small
    verification object to the store of every stream that uses it, and reads it back. Where
    that fails, the old secret stays in force.
    """
    with session.reading() as connection:
        found = credentials.get_by_name(connection, name)
        using = streams.find(connection, credential_id=found.credential_id)
    secret = checked(found.kind, read_secret(found.kind, from_file=from_file, from_env=from_env))
    if not no_check:
        _try_on_streams(session, name, secret, using)
    with session.changing() as connection:
        after = credentials.rotate(connection, session.vault, name, secret, streams.current_actor())
        now_using = streams.find(connection, credential_id=after.credential_id)
        if not no_check:
            insist_on_tried(name, tried=using, using=now_using)
    show(f"Credential {after.name} has a new secret ({after.hint})")
    if now_using:
        ids = ", ".join(str(stream.stream_id) for stream in now_using)
        show(f"Used by stream {ids}; see whether it works: auditstore stream test "
             f"{now_using[0].stream_id}" if no_check
             else f"It works for every stream that uses it: {ids}", style="dim")  # fmt: skip


def _try_on_streams(
    session: Session, name: str, secret: Mapping[str, str], using: Sequence[Stream]
) -> None:
    """Raise CredentialRefused unless the new secret works wherever the old one is used."""
    with busy(f"Trying the new secret on {number(len(using), 'stream')}"):
        trials = try_secret(session, secret, using)
    for trial in trials:
        if trial.failure is None and trial.warning:
            note(f"Stream {trial.stream.stream_id}: {trial.warning}")
    refuse_failures(name, trials)


@credential.command()
@click.argument("name")
@click.pass_obj
def remove(session: Session, *, name: str) -> None:
    """Forget the credential NAME; refused while a stream uses it."""
    with session.changing() as connection:
        credentials.remove(connection, name, streams.current_actor())
    show(f"Credential {name} removed")


@credential.command()
@click.pass_obj
def reencrypt(session: Session) -> None:
    """Bring every secret under the newest key, so that older keys can go."""
    with session.changing() as connection:
        names = credentials.reencrypt(connection, session.vault, streams.current_actor())
    show(f"{number(len(names), 'credential')} under the newest key in AUDITSTORE_SECRET_KEYS")
