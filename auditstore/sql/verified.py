"""What was verified of each stream, and what choosing the next part of it needs to know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from auditstore.sql.tables import files, verified


@dataclass(frozen=True, slots=True)
class Mark:
    """All files up to ``sequence`` were compared, and all but the ``unclean`` were clean.

    ``row_hash`` is that of the ledger's row ``sequence``, ``verified_at`` the server's time of
    that comparison. ``sampled_sequence`` is the old file that was read again last.
    ``looked_at`` is when the whole listing was clean, ``None`` if it was not.
    """

    sequence: int
    row_hash: bytes
    verified_at: datetime
    unclean: tuple[int, ...] = ()
    sampled_sequence: int = 0
    looked_at: datetime | None = None
    version: int = 0

    @property
    def clean_sequence(self) -> int:
        """Up to here every file was clean when it was compared last."""
        return min(self.unclean) - 1 if self.unclean else self.sequence


def read_mark(
    connection: Connection, stream_id: int, level: str, *, lock: bool = False
) -> Mark | None:
    """What is remembered, with ``lock`` until the end of the transaction."""
    statement = select(verified).where(verified.c.stream_id == stream_id, verified.c.level == level)
    if lock:
        statement = statement.with_for_update()
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    return Mark(
        sequence=row.sequence, row_hash=bytes(row.row_hash), verified_at=row.verified_at,
        unclean=tuple(row.unclean), sampled_sequence=row.sampled_sequence,
        looked_at=row.looked_at, version=row.version,
    )  # fmt: skip


def write_mark(connection: Connection, stream_id: int, level: str, mark: Mark) -> None:
    """Remember this from now on; its version is one more than that of the mark before."""
    values = asdict(mark) | {"unclean": list(mark.unclean), "version": mark.version + 1}
    statement = insert(verified).values(stream_id=stream_id, level=level, **values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["stream_id", "level"],
            set_={name: statement.excluded[name] for name in values},
        )
    )


def forget_mark(connection: Connection, stream_id: int, level: str) -> None:
    """The next run compares everything."""
    connection.execute(
        delete(verified).where(verified.c.stream_id == stream_id, verified.c.level == level)
    )


def lowest_key(connection: Connection, stream_id: int, *, after: int, upto: int) -> str | None:
    """The first key, in byte order, of the files with ``after`` < sequence <= ``upto``."""
    lowest: str | None = connection.execute(
        select(func.min(files.c.object_key)).where(
            files.c.stream_id == stream_id,
            files.c.sequence > after,
            files.c.sequence <= upto,
            files.c.format == "ndjson.gz",
        )
    ).scalar_one()
    return lowest


def next_files(
    connection: Connection, stream_id: int, *, after: int, upto: int, limit: int
) -> list[tuple[int, int]]:
    """Sequence and stored bytes of the first ``limit`` files behind ``after`` up to ``upto``."""
    found = connection.execute(
        select(files.c.sequence, func.coalesce(files.c.object_bytes, 0).label("size"))
        .where(files.c.stream_id == stream_id, files.c.sequence > after, files.c.sequence <= upto)
        .order_by(files.c.sequence)
        .limit(limit)
    )
    return [(row.sequence, row.size) for row in found]
