"""What a report says of itself, and its way into the database."""

from __future__ import annotations

from typing import Any

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.reconcile_views import Views
from auditstore.errors import AuditStoreError
from auditstore.reconciliation import Scope, kept
from auditstore.reconciliation.document import Document
from auditstore.sql import server
from auditstore.sql.failures import translated


class ReportDesk:
    """The document of one run, and where it is kept."""

    def __init__(self, session: Session, document: Document, *, keep: bool) -> None:
        self.document = document
        self.number: int | None = None
        self._session = session
        self._keep = keep
        self._sha256 = ""
        self._failure: AuditStoreError | None = None

    @classmethod
    def opened(
        cls,
        session: Session,
        scope: Scope,
        views: Views,
        flow_id: str | None,
        stream_id: int | None,
        *,
        repair: str,
        keep: bool,
    ) -> ReportDesk:
        """Begin a report; raises DatabaseRefused at once if it is to be kept and cannot be."""
        with session.reading() as connection:
            if keep:
                kept.check_may_keep(connection)
            about = kept.about(
                connection, actor=streams.current_actor(), level=scope.level, since=scope.since,
                until=scope.until, flow=flow_id, stream=stream_id, repair=repair,
                views=None if views.is_usual else {
                    "source": views.source, "against": list(views.against),
                    "location": views.places.location, "adopt": views.adopt,
                },
            )  # fmt: skip
        return cls(session, Document(about), keep=keep)

    def close(self, result: int) -> None:
        """All is compared; ``result`` is the exit code."""
        try:
            with self._session.reading(check=False) as connection:
                ended_at = server.clock(connection)
        except AuditStoreError as error:
            # The database went away meanwhile: what was compared is told all the same.
            self._failure = error
            ended_at = self.document.about.started_at
        self.document.close(result, ended_at)

    def keep(self) -> bool:
        """Keep the report if that is wanted; a failure is raised by :meth:`insist`."""
        if not self._keep or self._failure is not None:
            return False
        values = self.document.values()
        self._sha256 = values["sha256"]
        try:
            with translated(), self._session.engine.begin() as connection:
                self.number = kept.keep(connection, values)
        except AuditStoreError as error:
            self._failure = error
        return self.number is not None

    @property
    def receipt(self) -> str:
        """Under which number it is kept, and its hash."""
        return f"Kept as report {self.number}, SHA-256 {self._sha256}"

    def insist(self) -> None:
        """Raise what kept the report from being kept, once it is written."""
        if self._keep and self._failure is not None:
            raise self._failure


def scope_in_words(scope: dict[str, Any]) -> str:
    """What was asked for, for a listing."""
    views = scope["views"]
    parts = [f"level {scope['level']}"]
    if views is not None:
        parts = [f"{views['source']} against {views['location'] or ' and '.join(views['against'])}"]
    parts += [f"{name} {scope[name]}" for name in ("flow", "stream") if scope[name] is not None]
    parts += [f"{name} {scope[name]}" for name in ("since", "until") if scope[name] is not None]
    return ", ".join(parts)
