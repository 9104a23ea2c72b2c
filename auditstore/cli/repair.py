"""How a missing file is put back, or made ready as if it were."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine

from auditstore.ledger import LedgerFile
from auditstore.objects import ObjectStore
from auditstore.reconciliation import Restore
from auditstore.sql.failures import translated
from auditstore.streams import Stream


def restorer(engine: Engine, repair: str) -> Callable[[ObjectStore], Restore] | None:
    """For ``repair`` as it was asked for: ``no``, ``dry-run`` or ``yes``."""
    if repair == "no":
        return None

    def of_store(store: ObjectStore) -> Restore:
        from exporters import delivery  # noqa: PLC0415  # the composition root

        def put_back(stream: Stream, row: LedgerFile) -> bool:
            with translated(), engine.connect() as connection:
                if repair == "dry-run":
                    delivery.rehearse(connection, stream, row)
                    return False
                return delivery.restore(connection, stream, row, store)

        return put_back

    return of_store
