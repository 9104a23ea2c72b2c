"""The ledger's statements: seal, record, and read back in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, insert, select, text, update

from auditstore.ledger import Delivery, LedgerFile, SealedFile
from auditstore.sql.tables import files, streams


def insist_on_durable_commit(connection: Connection) -> None:
    """Make this transaction's commit wait for the WAL, whatever the server's default is.

    That also flushes every earlier commit that this transaction has read, so nothing can leave
    the database that a crash could still take back. A stronger default is left alone.
    """
    connection.execute(
        text(
            "SELECT set_config('synchronous_commit', 'on', true)"
            " WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')"
        )
    )


def insert_sealed(connection: Connection, sealed: SealedFile) -> None:
    """Insert a sealed row."""
    connection.execute(insert(files).values(**asdict(sealed)))


def move_sealed_mark(connection: Connection, stream_id: int, sequence: int, position: int) -> None:
    """Everything up to ``position`` is sealed, in files up to ``sequence``."""
    connection.execute(
        update(streams)
        .where(streams.c.stream_id == stream_id)
        .values(sealed_sequence=sequence, sealed_position=position)
    )


def next_undelivered(connection: Connection, stream_id: int) -> SealedFile | None:
    """The sealed file with the lowest sequence that is not delivered yet."""
    statement = (
        select(files)
        .where(files.c.stream_id == stream_id, files.c.delivered_at.is_(None))
        .order_by(files.c.sequence)
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else _file(row).sealed


def record_delivery(
    connection: Connection,
    sealed: SealedFile,
    delivery: Delivery,
    *,
    delivered_at: datetime,
    previous_hash: bytes,
    row_hash: bytes,
) -> None:
    """Fill in the delivered half of a row and move the stream's delivered mark and chain."""
    connection.execute(
        update(files)
        .where(files.c.stream_id == sealed.stream_id, files.c.sequence == sealed.sequence)
        .values(
            **asdict(delivery),
            delivered_at=delivered_at,
            previous_hash=previous_hash,
            row_hash=row_hash,
        )
    )
    connection.execute(
        update(streams)
        .where(streams.c.stream_id == sealed.stream_id)
        .values(
            delivered_sequence=sealed.sequence,
            delivered_position=sealed.last_position,
            chain_hash=row_hash,
        )
    )


def stream_files(
    connection: Connection,
    stream_id: int,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    after: int = 0,
    upto: int | None = None,
) -> Iterator[LedgerFile]:
    """A stream's files with ``after`` < sequence <= ``upto``, in order, streamed.

    With ``since`` and ``until``, those that hold an event recorded in that half-open interval
    or may do so.
    """
    statement = (
        select(files)
        .where(files.c.stream_id == stream_id, files.c.sequence > after)
        .order_by(files.c.sequence)
    )
    if upto is not None:
        statement = statement.where(files.c.sequence <= upto)
    if since is not None:
        statement = statement.where(files.c.last_recorded_at >= since)
    if until is not None:
        statement = statement.where(files.c.first_recorded_at < until)
    for row in connection.execute(statement.execution_options(yield_per=500)):
        yield _file(row)


def one_file(connection: Connection, stream_id: int, sequence: int) -> LedgerFile | None:
    """One row of the ledger."""
    row = connection.execute(
        select(files).where(files.c.stream_id == stream_id, files.c.sequence == sequence)
    ).one_or_none()
    return None if row is None else _file(row)


_SEALED: Final = tuple(SealedFile.__slots__)
_DELIVERY: Final = tuple(Delivery.__slots__)


def _file(row: Any) -> LedgerFile:
    fields = row._mapping  # noqa: SLF001  # SQLAlchemy's documented accessor
    delivered = fields["delivered_at"] is not None
    return LedgerFile(
        sealed=SealedFile(**{name: fields[name] for name in _SEALED}),
        delivery=Delivery(**{name: fields[name] for name in _DELIVERY}) if delivered else None,
        delivered_at=fields["delivered_at"],
        previous_hash=fields["previous_hash"],
        row_hash=fields["row_hash"],
    )


def newest_key(connection: Connection, stream_id: int) -> str | None:
    """The key of the stream's file with the highest sequence that is delivered."""
    statement = (
        select(files.c.object_key)
        .where(files.c.stream_id == stream_id, files.c.delivered_at.is_not(None))
        .order_by(files.c.sequence.desc())
        .limit(1)
    )
    return connection.execute(statement).scalar_one_or_none()
