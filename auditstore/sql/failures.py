"""The driver's errors in our words: the boundary between psycopg and everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from auditstore.errors import (
    AuditStoreError,
    DatabaseReadOnly,
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
_READ_ONLY: Final = ("25006",)
_CANCELLED: Final = ("57014",)
# The server's own limits on how long a session or a transaction may be idle or last.
_OUTLASTED: Final = ("25P03", "25P04", "57P05")
_SHORT: Final = ("53",)
# Refused before there is a session, so without a SQLSTATE: libpq keeps the server's text only.
_FULL: Final = ("too many clients", "too many connections", "remaining connection slots")


@contextmanager
def translated() -> Iterator[None]:
    """Raise psycopg's and SQLAlchemy's database errors as ours; other errors pass through."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(
            "every database connection of this program is in use, and none came free in time",
            hint="This passes by itself. If it does not, give the engine a larger pool_size,"
            " or look for connections that are not closed.",
        ) from error
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
        not state
        and ("authentication failed" in first or "does not exist" in first)
        and "root certificate" not in first
    )
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
    known = _protection(state, str(error), first) or _passing(state, first)
    if known is not None:
        return known
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailable(
            f"the database is away: {first}",
            hint="Check that the server runs and is reachable; the daemon tries again by itself.",
        )
    return DatabaseRefused(
        f"the database refused: {first}", hint="The server's log says more; see the cause above."
    )


def _passing(state: str, first: str) -> DatabaseUnavailable | None:
    """What the server says while it is there, and what passes when something else ends."""
    if state.startswith(_BUSY):
        return DatabaseUnavailable(
            f"the database could not finish the transaction: {first}",
            hint="Roll back and do it again.",
        )
    if state in _READ_ONLY:
        return DatabaseReadOnly(
            f"the database takes no writes: {first}",
            hint="Point AUDITSTORE_DATABASE_URL at the primary, or lift"
            " default_transaction_read_only; nothing else needs to be done then.",
        )
    if state in _CANCELLED:
        return DatabaseUnavailable(
            f"the database ended a statement before it was done: {first}",
            hint="Do it again. If it always is a timeout, raise statement_timeout for this"
            " database user.",
        )
    if state in _OUTLASTED:
        return DatabaseUnavailable(
            f"the database closed the connection: {first}",
            hint="Do it again. If it happens often, raise that timeout for this database user.",
        )
    if state.startswith(_SHORT) or (not state and any(words in first for words in _FULL)):
        return DatabaseUnavailable(
            f"the database has no room: {first}",
            hint="Free some, or raise the limit that it names: connections of this user"
            " (ALTER ROLE ... CONNECTION LIMIT) or of the server (max_connections), disk, memory.",
        )
    return None


def is_stale(error: BaseException) -> bool:
    """Whether the session, though alive, goes by settings that may have been lifted since.

    A session keeps the ``statement_timeout`` and ``default_transaction_read_only`` that its
    user had when it began; only a new one sees that an operator has mended them.
    """
    return (getattr(error, "sqlstate", None) or "") in (*_READ_ONLY, *_CANCELLED)


def leave_stale_sessions(engine: Engine) -> None:
    """Let the engine's pool replace its connections when a session turns out to be stale."""

    def judge(context: ExceptionContext) -> None:
        if is_stale(context.original_exception):
            context.is_disconnect = True

    event.listen(engine, "handle_error", judge)


# What libpq and OpenSSL say when encryption fails. None of it passes by itself.
_UNTRUSTED: Final = ("certificate verify failed", "does not match host name", "root certificate")


def _protection(state: str, said: str, first: str) -> DatabaseRefused | None:
    """Why an encrypted connection did not come about, if that is what happened."""
    if state:
        return None
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
