"""Export what is there now and leave: for cron, for tests, and for an operator in a hurry."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from auditstore import streams
from auditstore.database import check_schema
from auditstore.errors import AuditStoreError
from auditstore.sql import fence as fence_sql
from auditstore.sql.failures import translated
from auditstore.streams import Stream
from exporters.fence import Fence, SafePosition
from exporters.worker import Outcome, StoreOpener, Worker

_POLL: Final = 0.02
_PARALLEL: Final = 4


@dataclass(frozen=True, slots=True)
class OnceResult:
    """What became of each enabled stream; ``behind`` is true when writers that had not yet
    committed kept the newest events back.
    """

    outcomes: Sequence[tuple[Stream, Outcome]]
    behind: bool

    @property
    def failed(self) -> bool:
        """Whether a stream could not deliver what was there."""
        return any(outcome.error for _, outcome in self.outcomes)


def export_once(
    engine: Engine,
    open_store: StoreOpener,
    *,
    stream_ids: Sequence[int] | None = None,
    patience: float = 5.0,
    monotonic: Callable[[], float] = time.monotonic,
) -> OnceResult:
    """Deliver everything that was committed when this was called, without waiting for delays.

    Writers that are open get ``patience`` seconds to finish. A daemon may run at the same time.
    """
    with translated(), engine.connect() as connection:
        check_schema(connection)
        wanted = [
            stream
            for stream in streams.find(connection, enabled=True)
            if stream_ids is None or stream.stream_id in stream_ids
        ]
    safe, behind = _safe_position(engine, patience, monotonic)
    worker = Worker(engine, open_store)
    try:
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="stream") as pool:
            outcomes = list(pool.map(lambda stream: _work(worker, stream, safe), wanted))
    finally:
        worker.close()
    return OnceResult(list(zip(wanted, outcomes, strict=True)), behind)


def _work(worker: Worker, stream: Stream, position: SafePosition) -> Outcome:
    if stream.status.state == "halted":
        cause = stream.status.cause or "the stream is halted"
        return Outcome(halted=True, error=AuditStoreError(cause, hint=stream.status.hint or ""))
    return worker.work(stream.stream_id, position, flush=True)


def _safe_position(
    engine: Engine, patience: float, monotonic: Callable[[], float]
) -> tuple[SafePosition, bool]:
    with translated(), engine.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        wanted = fence_sql.high_water(connection).position
        fence = Fence(connection, monotonic=monotonic)
        give_up_at = monotonic() + patience
        while fence.advance() < wanted and monotonic() < give_up_at:
            time.sleep(_POLL)
        return fence.safe, fence.position < wanted
