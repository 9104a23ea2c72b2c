"""What an exporter tells those who watch it: the core calls this, and knows nothing of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from auditstore.ledger import Delivery, SealedFile
from auditstore.streams import Stream


class Observer(Protocol):
    """Is told of what is committed, right after it is. Any thread calls; nothing may be raised."""

    def sealed(self, stream: Stream, file: SealedFile) -> None:
        """A file was sealed by this exporter."""

    def delivered(
        self, stream: Stream, file: SealedFile, delivery: Delivery, *, upload_seconds: float
    ) -> None:
        """This exporter recorded that a file lies in the store, whoever put it there.

        ``upload_seconds`` is what putting it took, comparing included where it was there.
        """

    def failed(self, stream: Stream, state: str) -> None:
        """A try failed; the stream's state is now ``retrying``, ``blocked`` or ``halted``."""


class _Unobserved:
    """Nobody watches."""

    def sealed(self, stream: Stream, file: SealedFile) -> None:
        pass

    def delivered(
        self, stream: Stream, file: SealedFile, delivery: Delivery, *, upload_seconds: float
    ) -> None:
        pass

    def failed(self, stream: Stream, state: str) -> None:
        pass


UNOBSERVED: Observer = _Unobserved()


@dataclass(frozen=True, slots=True)
class Pulse:
    """A daemon at this moment. Ages in seconds.

    ``tick_age`` counts from the last time that its scheduler began a tick. ``run`` is the
    server's run that ``fence_position`` is bound to; ``fence_age`` is None while there is no
    connection to have a fence on.
    """

    daemon_id: str
    tick_age: float
    fence_position: int
    fence_age: float | None
    run: str
