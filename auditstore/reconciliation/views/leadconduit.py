"""LeadConduit's own view of the events, through its API; a run that was cut can go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from auditstore.reconciliation.views.checkpoint import Checkpoint
from auditstore.reconciliation.views.events_api import Access, EventsApi
from auditstore.reconciliation.views.records import Key, Record, Trouble, Window, record_of


class LeadConduitView:
    """The account's events of a window, in the order of their ids, each with its snapshot.

    With ``checkpoint`` each page is kept in that file, and a later run with the same window goes
    on after the last one, until :meth:`forget_checkpoint` ends that.
    """

    kind = "leadconduit"
    name = "LeadConduit"

    def __init__(
        self,
        access: Access,
        *,
        checkpoint: Path | None = None,
        open_api: Callable[[Access], EventsApi] = EventsApi,
    ) -> None:
        self._access = access
        self._checkpoint = checkpoint
        self._open_api = open_api

    def read(self, window: Window) -> Iterator[Record | Trouble]:
        """Every event of the window; the account is asked for all flows."""
        checkpoint = self._opened_checkpoint(window)
        last_id = None
        if checkpoint is not None:
            for event_id, payload in checkpoint.kept():
                last_id = event_id
                yield from _told(event_id, payload, window)
        with closing(self._open_api(self._access)) as api:
            before = None if window.until is None else window.end_id
            before = None if before == "g" else before
            while True:
                page = api.page(after_id=last_id, before_id=before, start=window.since)
                if not page.events:
                    break
                if checkpoint is not None:
                    checkpoint.keep(page)
                last_id = page.events[-1][0]
                for event_id, payload in page.events:
                    yield from _told(event_id, payload, window)

    def forget_checkpoint(self) -> None:
        """All is done: the next run with the same file looks anew."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)

    def payloads(self, places: Iterable[tuple[Key, str]]) -> Iterator[tuple[Key, bytes]]:  # noqa: ARG002  # the protocol's
        """Nothing: the snapshots came along."""
        return iter(())

    def _opened_checkpoint(self, window: Window) -> Checkpoint | None:
        if self._checkpoint is None:
            return None
        about = {"url": self._access.url, "from": window.first_id, "to": window.end_id}
        return Checkpoint(self._checkpoint, about)


def _told(event_id: str, payload: bytes, window: Window) -> Iterator[Record | Trouble]:
    if not window.holds_id(event_id):
        return
    told = record_of(payload, f"event {event_id} of the API")
    if isinstance(told, Trouble) or window.holds(told):
        yield told
