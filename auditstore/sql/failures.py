"""The driver's errors in our words: the boundary between psycopg and everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from auditstore.errors import (
    AuditStoreError,
    DatabaseRefused,
    DatabaseUnavailable,
    SchemaOutdated,
)

# SQLSTATE classes and codes, from PostgreSQL's appendix "Error Codes".
_MISSING: Final = ("3F000", "42P01", "42883", "42703")
_DENIED: Final = ("42501",)
_LOGIN: Final = ("28", "3D")
# Deadlocks, serialization failures, lock timeouts: the server is there, and trying again helps.
_BUSY: Final = ("40", "55P03")


@contextmanager
def translated() -> Iterator[None]:
    """Raise psycopg's and SQLAlchemy's database errors as ours; other errors pass through."""
    try:
        yield
    except DBAPIError as error:
        raise translate(error.orig) from error
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: BaseException | None) -> AuditStoreError:
    """One driver error as DatabaseUnavailable (passing), or what an operator must mend."""
    state = getattr(error, "sqlstate", None) or ""
    said = str(error).strip().splitlines()
    first = said[0] if said else type(error).__name__
    # Without a SQLSTATE it never came to a session, and libpq's text is all there is.
    login = state.startswith(_LOGIN) or (
        not state and ("authentication failed" in first or "does not exist" in first)
    )
    if not state and (protection := _protection(str(error), first)):
        return protection
    if state in _DENIED:
        return DatabaseRefused(
            f"the database says no: {first}",
            hint="Grant this user one of the roles auditstore_writer, auditstore_exporter "
            "or auditstore_reader, as its work needs.",
        )
    if state in _MISSING:
        return SchemaOutdated(
            f"the database lacks something of the store: {first}", hint="Run `auditstore migrate`."
        )
    if login:
        return DatabaseRefused(
            f"the database refused the login: {first}",
            hint="Check user, password and database name in AUDITSTORE_DATABASE_URL.",
        )
    if state.startswith(_BUSY):
        return DatabaseUnavailable(
            f"the database could not finish the transaction: {first}",
            hint="Roll back and do it again.",
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable(
            f"the database is away: {first}",
            hint="Check that the server runs and is reachable; the daemon tries again by itself.",
        )
    return DatabaseRefused(
        f"the database refused: {first}", hint="The server's log says more; see the cause above."
    )


# What libpq and OpenSSL say when encryption fails. None of it passes by itself.
_UNTRUSTED: Final = ("certificate verify failed", "does not match host name", "root certificate")


def _protection(said: str, first: str) -> DatabaseRefused | None:
    """Why an encrypted connection did not come about, if that is what happened."""
    if any(words in said for words in _UNTRUSTED):
        return DatabaseRefused(
            f"the database server's certificate is not trusted: {first}",
            hint="Name its authority with ?sslrootcert=FILE in AUDITSTORE_DATABASE_URL, and the "
            "server by a name that its certificate has. To go without checking, ask for it: "
            "?sslmode=require.",
        )
    if "does not support SSL" in said:
        return DatabaseRefused(
            f"the database server does not offer encryption: {first}",
            hint="Turn it on there (ssl = on, and a certificate). To go without, in a network "
            "that nobody else can reach, ask for it: ?sslmode=disable in AUDITSTORE_DATABASE_URL.",
        )
    return None
