"""Refusals that an operator mends: what was changed is tried at once, with a user's own times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import orjson
import pytest
import sqlalchemy as sa
from support.azurite import ACCOUNT, ACCOUNT_KEY
from support.commands import CommandLine
from support.eventually import eventually
from support.fault_proxy import Fault, FaultProxy
from support.fault_run import FaultRun
from support.store_faults import PATIENCE_S, await_state, run_behind
from support.stores import Place

from auditstore.vault import new_key

pytestmark = pytest.mark.long

# A blocked stream asks again by itself after 30 s; what is sooner than that came of the change.
AT_ONCE_S = 20
OLD = {"session_token": "a-token-that-ran-out"}
NEW = {"session_token": "a-token-that-holds"}


@pytest.fixture
def cli(database_url: str) -> CommandLine:
    """The operator's command line."""
    return CommandLine(
        {"AUDITSTORE_DATABASE_URL": database_url, "AUDITSTORE_SECRET_KEYS": new_key()}
    )


def test_a_changed_s3_credential_or_setting_is_tried_at_once(
    database_url: str, cli: CommandLine, s3_place: Place, s3_proxy: FaultProxy
) -> None:
    """A token that ran out and is renewed, a region that was wrong and is corrected."""
    keys = dict(s3_place.secret or {})
    with _credential_in_use(s3_proxy, database_url, s3_place, cli, keys | OLD) as run:
        run.progress()
        expired = s3_proxy.inject(
            Fault(400, "ExpiredToken"), method=".*", having=OLD["session_token"]
        )
        for stream in run.streams:
            says = "session token has run out"
            status = await_state(run, stream, "blocked", "ExpiredToken", says)
            assert "rotate" in str(status.hint)
        _mends_at_once(run, lambda: _rotate(cli, keys | NEW))
        run.injected("expired token", expired.hits)

        denied = s3_proxy.inject(
            Fault(301, "PermanentRedirect"), method="PUT", lacking="/eu-west-1/"
        )
        for stream in run.streams:
            says = "lies in another region"
            status = await_state(run, stream, "blocked", "PermanentRedirect", says)
            assert "Set the stream's region" in str(status.hint)
        _mends_at_once(run, lambda: _set(cli, run, "--region", "eu-west-1"))
        run.injected("wrong region", denied.hits)
    run.check()


def test_a_changed_azure_credential_is_tried_at_once(
    database_url: str, cli: CommandLine, azure_place: Place, azure_proxy: FaultProxy
) -> None:
    """The server itself refuses what was signed with another account key."""
    right = {"account_url": f"{azure_proxy.url}/{ACCOUNT}", "account_key": ACCOUNT_KEY}
    wrong = right | {"account_key": "A" + ACCOUNT_KEY[1:]}
    with _credential_in_use(azure_proxy, database_url, azure_place, cli, wrong) as run:
        for stream in run.streams:
            says = "may not do this here"
            status = await_state(run, stream, "blocked", "AuthorizationFailure", says)
            assert "identity or SAS" in str(status.hint)
        _mends_at_once(run, lambda: _rotate(cli, right))
        run.injected("wrong account key")
    run.check()


# --- the operator -------------------------------------------------------------------


@contextmanager
def _credential_in_use(
    proxy: FaultProxy,
    database_url: str,
    place: Place,
    cli: CommandLine,
    secret: Mapping[str, str],
) -> Iterator[FaultRun]:
    """A run whose streams have their secret from the database, as a user's have."""
    run = run_behind(
        proxy, database_url, place, constants={}, pace=0.3,
        exporter={"vault": True, "environment": dict(cli.environment)},
    )  # fmt: skip
    cli.run("credential", "add", "main", "--kind", place.kind, stdin=_json(secret))
    region = ("--region", "us-east-1") if place.kind == "s3" else ()
    _set(cli, run, "--credential", "main", *region)
    with run.running(within=PATIENCE_S):
        yield run


def _rotate(cli: CommandLine, secret: Mapping[str, str]) -> None:
    cli.run("credential", "rotate", "main", stdin=_json(secret))


def _set(cli: CommandLine, run: FaultRun, *settings: str) -> None:
    for stream in run.streams:
        cli.run("stream", "set", str(stream.stream_id), *settings)


def _json(secret: Mapping[str, str]) -> str:
    return orjson.dumps(dict(secret)).decode()


def _mends_at_once(run: FaultRun, change: Callable[[], None]) -> None:
    """Everything is delivered well before the streams would have asked again by themselves."""
    eventually(lambda: _soonest_try(run) > AT_ONCE_S + 1, within=PATIENCE_S)
    change()
    run.recovered(within=AT_ONCE_S)
    for stream in run.streams:
        await_state(run, stream, "streaming", None, "")


def _soonest_try(run: FaultRun) -> float:
    with run.engine.connect() as connection:
        found = connection.execute(
            sa.text(
                "SELECT extract(epoch FROM min(coalesce(next_try_at, '-infinity')"
                " - clock_timestamp())) FROM auditstore.streams"
            )
        ).scalar_one()
    return float(found)
