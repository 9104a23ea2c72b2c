"""Several callers' events in one transaction; each call is all or none, as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from auditstore.errors import AuditStoreError, DatabaseUnavailable, EventConflict, OutcomeUnknown
from auditstore.events import Event
from auditstore.repository import COPY_FROM, AppendResult, EventRepository
from auditstore.sql import events as sql
from auditstore.sql.failures import translate, translated
from auditstore.taking import Key, key, unstored

Outcome = AppendResult | AuditStoreError


@dataclass(frozen=True, slots=True)
class Offer:
    """One call's distinct events, and how many it gave with those that it gave twice."""

    events: Sequence[Event]
    given: int
    size_bytes: int


class _Stored(Exception):
    """Some of what was offered is stored already."""


def begin_group(connection: Connection) -> None:
    """Begin a transaction whose commit waits for the disk, whatever the server's default is."""
    with translated():
        sql.begin_durably(connection)


def commit_group(
    connection: Connection, repository: EventRepository, offers: Sequence[Offer]
) -> list[Outcome]:
    """Append in the transaction that :func:`begin_group` began, commit; what became of each.

    It first hopes that everything is new and good: one COPY. Where something is stored already,
    its hashes are looked up and the rest is tried once more. Where that fails too, each call
    gets a savepoint of its own, so that only those fail that must.

    Raises :class:`DatabaseUnavailable` when nothing was appended, and its subclass
    :class:`OutcomeUnknown` when the connection was lost while the commit was under way.
    """
    stored: Mapping[Key, bytes] = {}
    for _ in range(2):
        outcomes, new = _planned(offers, stored)
        try:
            _write(connection, new)
        except _Stored:
            _begin_again(connection)
            keys = [key(event) for offer in offers for event in offer.events]
            with translated():
                stored = sql.stored_hashes(connection, keys)
        except (psycopg.Error, DBAPIError) as error:
            if _is_over(connection):
                raise _never_committed(error) from error
            _begin_again(connection)
            break
        else:
            _commit(connection)
            return outcomes
    outcomes = [_alone(connection, repository, offer) for offer in offers]
    _commit(connection)
    return outcomes


def _planned(
    offers: Sequence[Offer], stored: Mapping[Key, bytes]
) -> tuple[list[Outcome], list[Event]]:
    """What becomes of each call if it comes after those before it, and the events to write."""
    hashes: dict[Key, bytes] = dict(stored)
    outcomes: list[Outcome] = []
    new: list[Event] = []
    for offer in offers:
        try:
            own = unstored(offer.events, hashes)
        except EventConflict as error:
            outcomes.append(error)
            continue
        hashes.update((key(event), event.sha256) for event in own)
        new += own
        outcomes.append(AppendResult(appended=len(own), existing=offer.given - len(own)))
    return outcomes, new


def _write(connection: Connection, new: Sequence[Event]) -> None:
    if len(new) < COPY_FROM:
        for event in new:
            if not sql.insert(connection, event):
                raise _Stored
        return
    try:
        sql.copy(connection, new)
    except psycopg.errors.UniqueViolation as error:
        raise _Stored from error


def _alone(connection: Connection, repository: EventRepository, offer: Offer) -> Outcome:
    """Append one call in a savepoint; its error is its own as long as the connection lives."""
    try:
        with translated(), connection.begin_nested():
            result = repository.append(connection, offer.events)
    except AuditStoreError as error:
        if _is_over(connection):
            raise
        return error
    return AppendResult(appended=result.appended, existing=offer.given - result.appended)


def _begin_again(connection: Connection) -> None:
    with translated():
        connection.rollback()
    begin_group(connection)


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except (psycopg.Error, DBAPIError) as error:
        if not _is_over(connection):
            # The server answered: it rolled back.
            raise _never_committed(error) from error
        told = translate(error.orig if isinstance(error, DBAPIError) else error)
        raise OutcomeUnknown(told.message) from error


def _never_committed(error: psycopg.Error | DBAPIError) -> AuditStoreError:
    told = translate(error.orig if isinstance(error, DBAPIError) else error)
    if isinstance(told, DatabaseUnavailable):
        return type(told)(f"{told.message}; nothing of this call was appended", hint=told.hint)
    return told


def _is_over(connection: Connection) -> bool:
    return connection.invalidated or connection.closed
