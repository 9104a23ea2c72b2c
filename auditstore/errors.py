"""Every error that this package raises: what happened, and what to do about it.

Drivers' errors are translated at the boundary (``raise ... from``); only the command
line turns an error into an exit code.
"""

from __future__ import annotations


class AuditStoreError(Exception):
    """What happened, in one sentence; ``hint`` says what to do.

    ``code`` is a stable word for programs (logs, status, JSON output).
    """

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(AuditStoreError):
    """A setting, an argument or a URL that cannot be used."""

    code = "configuration"


class CredentialRefused(AuditStoreError):
    """A new secret that does not work wherever it would be used; the old one stays in force."""

    code = "credential-refused"


class NotFound(AuditStoreError):
    """A stream, credential or event that is not there."""

    code = "not-found"


# --- appending --------------------------------------------------------------------


class EventRefused(AuditStoreError):
    """An event that cannot be stored; nothing of the call was appended.

    ``index`` is its place in the call (from 0), ``event_id`` its id where one could be
    read, ``field`` the part that is wrong.
    """

    code = "event-refused"

    def __init__(self, *, index: int, event_id: str | None, field: str, reason: str) -> None:
        name = f"event {event_id}" if event_id else f"event number {index}"
        super().__init__(
            f"{name} refused: {field}: {reason}",
            hint="Nothing of this call was appended. Correct the event and append it again.",
        )
        self.index = index
        self.event_id = event_id
        self.field = field
        self.reason = reason


class EventConflict(AuditStoreError):
    """The same event id with other content; nothing of the call was appended."""

    code = "event-conflict"

    def __init__(
        self, *, event_id: str, flow_id: str, stored_sha256: str, offered_sha256: str
    ) -> None:
        super().__init__(
            f"event {event_id} of flow {flow_id} is already stored with other content: "
            f"stored sha256 {stored_sha256}, offered sha256 {offered_sha256}",
            hint="Nothing of this call was appended. Events are immutable: "
            "give changed content an id of its own.",
        )
        self.event_id = event_id
        self.flow_id = flow_id
        self.stored_sha256 = stored_sha256
        self.offered_sha256 = offered_sha256


class AppenderBusy(AuditStoreError):
    """More waits to be committed than the appender's limits allow; nothing was appended."""

    code = "appender-busy"


class AppenderClosed(AuditStoreError):
    """The appender takes no more; nothing was appended."""

    code = "appender-closed"


_UNKNOWN = "; whether this call's events are stored is not known"

# --- people and programs ----------------------------------------------------------


class SignInRefused(AuditStoreError):
    """Wrong name or password, a disabled user, or too many attempts; which, is not told."""

    code = "sign-in-refused"


# --- the database -----------------------------------------------------------------


class DatabaseUnavailable(AuditStoreError):
    """The server cannot be reached or closed the connection; passing, retried."""

    code = "database-unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The connection was lost during the commit: the events are stored, or they are not."""

    code = "outcome-unknown"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(
            message if message.endswith(_UNKNOWN) else message + _UNKNOWN,
            hint=hint
            or "Append the same events again: those that are stored are counted as"
            " existing, and none is stored twice.",
        )


class DatabaseReadOnly(DatabaseUnavailable):
    """The server is reachable and takes no writes; passes with a promotion or a setting."""

    code = "database-read-only"


class DatabaseRefused(AuditStoreError):
    """The server answered, and what it answered needs an operator."""

    code = "database-refused"


class SchemaOutdated(AuditStoreError):
    """The database's schema is not the one this version works with."""

    code = "schema-outdated"


class TailingUnsafe(AuditStoreError):
    """Tailing this server could skip events, so it is refused."""

    code = "tailing-unsafe"


# --- stores -----------------------------------------------------------------------


class StoreUnavailable(AuditStoreError):
    """5xx, throttling, timeouts, resets, DNS: passes by itself, retried for ever."""

    code = "store-unavailable"


class StoreRefused(AuditStoreError):
    """The store says no until an operator changes something; nothing is skipped.

    ``code`` of an instance is the store's own word where it has one (``AccessDenied``).
    """

    code = "store-refused"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message, hint=hint)
        if code is not None:
            self.code = code


class ObjectConflict(AuditStoreError):
    """Our key holds other content. Never overwritten: the stream halts."""

    code = "object-conflict"


class LedgerMismatch(AuditStoreError):
    """The outbox no longer holds what the ledger says was sealed. The stream halts."""

    code = "ledger-mismatch"


class HistoryLost(AuditStoreError):
    """The database forgot something that was exported already. The stream halts."""

    code = "history-lost"


# --- reconciling ------------------------------------------------------------------


class WorkersLost(AuditStoreError):
    """Those who read for a comparison died again and again, or were not heard of any more."""

    code = "workers-lost"


class ClusterUnavailable(AuditStoreError):
    """The cluster's scheduler cannot be reached, or none of its workers can do the work."""

    code = "cluster-unavailable"


class ReportDamaged(AuditStoreError):
    """A reconciliation's report is not what its own hash says."""

    code = "report-damaged"


# --- other views of the events ------------------------------------------------------


class ViewUnreadable(AuditStoreError):
    """An export or an answer that is not what it should be: nobody knows what it lacks."""

    code = "view-unreadable"


class ListingUnreadable(AuditStoreError):
    """A listing of objects that cannot be read to its end, or is of another bucket."""

    code = "listing-unreadable"


class LeadConduitRefused(AuditStoreError):
    """LeadConduit says no until somebody changes something: the key, the address, the plan."""

    code = "leadconduit-refused"


class LeadConduitUnavailable(AuditStoreError):
    """LeadConduit does not answer, or not yet: 429, 5xx, timeouts, resets. Passes by itself."""

    code = "leadconduit-unavailable"


class LeadConduitChanged(AuditStoreError):
    """The Events API contradicts itself in the midst of a run: out of order, or repeated."""

    code = "leadconduit-changed"
