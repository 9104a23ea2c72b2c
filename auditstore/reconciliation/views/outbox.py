"""The outbox as a view: pages in the order of ids, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from sqlalchemy import Engine

from auditstore.reconciliation.views.records import Key, Record, Window
from auditstore.sql import views as sql
from auditstore.sql.failures import translated
from auditstore.sql.views import Known

_PAGE: Final = 1000
_PAYLOADS: Final = 100


class OutboxView:
    """What this store holds; its hashes are those that were taken when the events came."""

    kind = "outbox"
    name = "the outbox"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, window: Window) -> Iterator[Record]:
        """Every event of the window, without its snapshot."""
        after: Key | None = None
        while True:
            with translated(), self._engine.connect() as connection:
                page = sql.known_page(
                    connection, flow_id=window.flow_id, first_id=window.first_id,
                    end_id=window.end_id, after=after, limit=_PAGE,
                )  # fmt: skip
            for known in page:
                yield _record(known)
            if len(page) < _PAGE:
                return
            after = (page[-1].flow_id, page[-1].event_id)

    def payloads(self, places: Iterable[tuple[Key, str]]) -> Iterator[tuple[Key, bytes]]:
        """The snapshots byte for byte, by their keys."""
        keys = (key for key, _ in places)
        while batch := list(islice(keys, _PAYLOADS)):
            with translated(), self._engine.connect() as connection:
                found = sql.payloads_of(connection, batch)
            yield from found.items()


def _record(known: Known) -> Record:
    return Record(
        event_id=known.event_id, flow_id=known.flow_id, lead_id=known.lead_id, type=known.type,
        outcome=known.outcome, sha256=known.sha256, place=f"position {known.position}",
        position=known.position,
    )  # fmt: skip
