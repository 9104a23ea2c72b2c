"""Has this database forgotten something that was exported already?

A failover to a replica that lacked the last rows, or a restored backup, takes the store back
in time: it would hand out the same positions again. The ledger went back with it, so only the
bucket can tell. Whenever the server is not the one, or was restarted since, a stream's marks
were taken, the stream's newest objects are compared with the ledger before anything is sealed.
So it is before a stream's first file: a backup may know the stream, and none of its files.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from sqlalchemy import Connection, Engine

from auditstore.errors import HistoryLost, StoreRefused
from auditstore.layout import DEFAULT_TEMPLATE, key_pattern, static_prefix
from auditstore.objects import ObjectStore
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import server
from auditstore.sql import streams as streams_sql
from auditstore.streams import Stream

_PAGE: Final = 1000


def is_unchecked(connection: Connection, stream: Stream) -> bool:
    """Whether the server is not known to be the one of the stream's marks, still running."""
    return stream.history != server.history(connection)


def check(engine: Engine, stream: Stream, store: ObjectStore) -> None:
    """Raise HistoryLost unless the server's history extends what was exported.

    Remembers the server with the stream's marks. No connection is held while the bucket takes
    its time.
    """
    with engine.connect() as connection:
        current = server.history(connection)
        _check_positions(connection, stream)
    _check_bucket(engine, stream, store, moved=_is_other_history(stream, current))
    with engine.begin() as connection:
        # Restarted or replaced meanwhile, it is checked again before anything is sealed.
        streams_sql.set_history(connection, stream.stream_id, current)


def _is_other_history(stream: Stream, current: dict[str, str]) -> bool:
    """Whether this is more than a restart: another server, or another timeline."""
    known = stream.history
    return any(known[name] != current[name] for name in ("system", "timeline") if name in known)


def _check_positions(connection: Connection, stream: Stream) -> None:
    last = streams_sql.last_position(connection)
    if last < stream.sealed_position:
        raise lost(
            stream,
            f"the outbox has handed out positions up to {last}, but {stream.sealed_position}"
            " was exported",
        )


def _check_bucket(engine: Engine, stream: Stream, store: ObjectStore, *, moved: bool) -> None:
    if stream.format == "json":
        # One object an event: a forgotten event that comes again meets its own object.
        return
    template, prefix = stream.key_template, stream.destination.prefix
    flow_id, stream_id = stream.flow_id, stream.stream_id
    pattern = key_pattern(template, prefix=prefix, flow_id=flow_id, stream_id=stream_id)
    ours = static_prefix(template, prefix=prefix, flow_id=flow_id, stream_id=stream_id)
    # Only the default template is known to sort its keys by sequence.
    start_after = None
    if template == DEFAULT_TEMPLATE:
        with engine.connect() as connection:
            start_after = ledger_sql.newest_key(connection, stream_id)
    try:
        found = store.list(ours, start_after=start_after)
        while page := list(islice(found, _PAGE)):
            with engine.connect() as connection:
                for info in page:
                    match = pattern.fullmatch(info.key)
                    if match and not _is_known(
                        connection, stream_id, int(match["sequence"]), info.key
                    ):
                        raise lost(
                            stream, f"the destination holds {info.key}, which the ledger lacks"
                        )
    except StoreRefused:
        if moved:
            raise
        # After a mere restart a key that may only write need not be able to list: what was
        # exported had been flushed to disk before. Nor need it for a stream's first file.


def _is_known(connection: Connection, stream_id: int, sequence: int, key: str) -> bool:
    # Asked of the ledger as it is now: another worker may have delivered since our marks were read.
    file = ledger_sql.one_file(connection, stream_id, sequence)
    return file is not None and file.sealed.object_key == key


def lost(stream: Stream, found: str) -> HistoryLost:
    """What to raise when ``found`` shows that the database went back in time."""
    return HistoryLost(
        f"the database's history is not the one that was exported: {found}",
        hint="A failover or a restored backup has lost committed events. Append them again"
        " where their source still has them, move the objects that the ledger lacks away, then"
        f" run `auditstore stream resume {stream.stream_id}`.",
    )
