"""Signing in: sessions, and how often somebody may try.

A session is a random token that only its holder has; the database knows its digest. Failed
attempts are counted in the database, so that several servers count together.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from auditstore import accounts
from auditstore.accounts import User
from auditstore.errors import SignInRefused
from auditstore.passwords import matches
from auditstore.sql import accounts as sql
from auditstore.sql.failures import translated

SESSION_LASTS: Final = timedelta(hours=12)
_WINDOW: Final = timedelta(minutes=15)
#: Failures within the window after which no password is looked at: of a name from one address,
#: of a name from wherever, of an address. The second is high, or anybody could lock somebody out.
_MOST: Final = (5, 100, 50)


def sign_in(engine: Engine, *, name: str, password: str, address: str) -> str:
    """The token of a new session; SignInRefused, in the same words whatever was wrong."""
    # As far as a text column takes it; no user has such a name.
    name = name[:255].replace("\0", "\ufffd")
    with translated(), engine.begin() as connection:
        failed = sql.login_failures_since(connection, name, address, _WINDOW)
        row = sql.user_by_name(connection, name)
    if any(count >= most for count, most in zip(failed, _MOST, strict=True)):
        raise SignInRefused(
            "there were too many failed attempts",
            hint=f"Try again in {_WINDOW.seconds // 60} minutes, or ask an administrator for a"
            " new password.",
        )
    # Takes as long for a name that nobody has.
    right = matches(password, row.password_hash if row is not None and row.enabled else None)
    if row is None or not right:
        with translated(), engine.begin() as connection:
            sql.insert_login_failure(connection, name, address, _WINDOW)
        raise SignInRefused(
            "the name or the password is wrong",
            hint="An administrator can give a new password: auditstore user password NAME.",
        )
    token = secrets.token_urlsafe(32)
    with translated(), engine.begin() as connection:
        sql.delete_login_failures(connection, name, address)
        sql.insert_session(connection, accounts.digest(token), row.user_id, SESSION_LASTS)
    return token


def signed_in(connection: Connection, token: str) -> User | None:
    """Whose session this is; ``None`` if there is none, it is over or the user is disabled."""
    row = sql.session_user(connection, accounts.digest(token))
    return None if row is None else accounts.user_of(row)


def sign_out(connection: Connection, token: str) -> None:
    """End a session."""
    sql.delete_session(connection, accounts.digest(token))
