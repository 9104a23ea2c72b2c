"""What runs beside the daemon in its process: reconciliations on schedule, and their hooks."""

from __future__ import annotations

from typing import Final

from auditstore import database
from auditstore.cli.context import Session
from auditstore.cli.stores import store_opener
from auditstore.reconciliation.results import ResultSink
from exporters.hooks import Hooks
from exporters.kept_runs import KeptRuns
from exporters.reconciling import Reconciling, ReconcilingConfig
from exporters.worker import LONGEST_IDLE

# Hooks that were begun are waited for so long; the process leaves in any case.
_HOOKS_S: Final = 1.0


class Beside:
    """Begins at once, over an engine of its own, so that exporting lends it no connection."""

    def __init__(self, session: Session) -> None:
        config = ReconcilingConfig()
        self._engine = database.create_engine(
            session.database_url,
            application_name="auditstore reconciliation",
            # One that is paused while it chooses what to run keeps the others from choosing.
            longest_idle=LONGEST_IDLE,
            hide_parameters=True,
            pool_size=config.connections,
            max_overflow=config.hanging,
        )
        self._hooks = Hooks.of(session.settings.hooks)
        self._reconciling = Reconciling(
            self._engine, store_opener(session.vault), config, sinks=self._sinks()
        )
        self._reconciling.start()

    def stopping(self) -> None:
        """Let what runs end between two files, beside the daemon's uploads."""
        self._reconciling.stopping()

    def close(self) -> None:
        """Give back what was not finished."""
        self._reconciling.stop()
        if self._hooks is not None:
            self._hooks.close(within=_HOOKS_S)
        self._engine.dispose()

    def _sinks(self) -> list[ResultSink]:
        """Who takes the results: whatever else is to have them is joined here."""
        kept = KeptRuns(self._engine)
        return [kept] if self._hooks is None else [kept, self._hooks]
