"""What it means that an event is on one side only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from auditstore.events import id_time
from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.view import View as StreamView
from auditstore.reconciliation.views.records import Record, View
from auditstore.reconciliation.views.spool import Side, Spool
from auditstore.sql import views as sql
from auditstore.sql.failures import translated

#: What is younger may still be on its way to either side.
GRACE: Final = timedelta(minutes=5)
#: LeadConduit deletes its events after so long; this store is where they survive.
RETENTION: Final = timedelta(days=90)
#: An event so much younger than its lead's first one came late, whatever its type.
LATE: Final = timedelta(hours=1)
LATE_TYPES: Final = frozenset({"retry", "feedback-received", "feedback-sent"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kind of finding, in words, and the lead that the event belongs to."""

    kind: Kind
    detail: str
    lead_id: str | None


class Judge:
    """Says of events of one side what their absence from the other means.

    ``stream`` is how the stream stood before its bucket was read, where that is one side.
    """

    def __init__(
        self, engine: Engine, spool: Spool, *, source: View, against: View, now: datetime,
        stream: StreamView | None,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._spool = spool
        self._source = source
        self._against = against
        self._now = now
        self._stream = stream

    def missing(self, records: Sequence[Record]) -> list[Verdict]:
        """Events that the source has and the other side lacks."""
        leads = self._leads(records)
        known = self._known_leads({lead for lead in leads if lead is not None})
        if self._stream is not None:
            return self._missing_in_stream(records, leads, known, self._stream)
        return [
            self._missing(record, lead, known) for record, lead in zip(records, leads, strict=True)
        ]

    def unknown(self, records: Sequence[Record]) -> list[Verdict]:
        """Events that the other side has and the source lacks."""
        leads = self._leads(records)
        return [self._unknown(record, lead) for record, lead in zip(records, leads, strict=True)]

    def _missing(self, record: Record, lead: str | None, known: dict[str, str]) -> Verdict:
        has, lacks = f"{self._source.name} has it", f"{self._against.name} has not"
        if self._is_young(record):
            return Verdict(Kind.NOT_YET_DUE, f"{has}, {lacks} yet", lead)
        return self._late(record, lead, known, f"{has}, {lacks}")

    def _late(self, record: Record, lead: str | None, known: dict[str, str], words: str) -> Verdict:
        first = known.get(lead) if lead is not None else None
        if first is None:
            return Verdict(Kind.MISSING_EVENT, words, lead)
        after = id_time(record.event_id) - id_time(first)
        if record.type not in LATE_TYPES and after < LATE:
            return Verdict(Kind.MISSING_EVENT, words, lead)
        late = f"a late {record.type or 'event'} of a lead that {self._against.name} knows"
        return Verdict(
            Kind.MISSING_LATE_EVENT, f"{words}: {late}, {after} after its first event", lead
        )

    def _missing_in_stream(
        self,
        records: Sequence[Record],
        leads: Sequence[str | None],
        known: dict[str, str],
        stream: StreamView,
    ) -> list[Verdict]:
        with translated(), self._engine.connect() as connection:
            places = sql.places_of(connection, [record.key for record in records])
        verdicts = []
        for record, lead in zip(records, leads, strict=True):
            place = places.get(record.key)
            if place is None:
                words = f"{self._source.name} has it, neither the outbox nor the bucket"
                verdicts.append(
                    Verdict(Kind.NOT_YET_DUE, f"{words} yet", lead)
                    if self._is_young(record)
                    else self._late(record, lead, known, words)
                )
                continue
            position, recorded_at = place
            verdicts.append(self._in_outbox(record, lead, known, stream, position, recorded_at))
        return verdicts

    def _in_outbox(  # noqa: PLR0917  # called once, above
        self,
        record: Record,
        lead: str | None,
        known: dict[str, str],
        stream: StreamView,
        position: int,
        recorded_at: datetime,
    ) -> Verdict:
        is_open = stream.enabled_at is not None and position > stream.stream.sealed_position
        if not is_open and not stream.covers(position):
            return Verdict(
                Kind.NOT_COVERED, "in the outbox, at a position that the stream did not cover", lead
            )
        if position <= stream.stream.delivered_position:
            return self._late(record, lead, known, "delivered, and not in the bucket any more")
        if stream.is_late(recorded_at):
            return Verdict(Kind.OVERDUE, "in the outbox, and not delivered in time", lead)
        return Verdict(
            Kind.NOT_YET_DUE, "in the outbox, and to be delivered within the delay", lead
        )

    def _unknown(self, record: Record, lead: str | None) -> Verdict:
        words = f"{self._against.name} has it, {self._source.name} has not"
        if self._is_young(record):
            return Verdict(Kind.NOT_YET_DUE, f"{words} yet", lead)
        if self._source.kind == "leadconduit" and id_time(record.event_id) < self._now - RETENTION:
            return Verdict(
                Kind.PAST_RETENTION, f"{words} any more: it keeps {RETENTION.days} days", lead
            )
        return Verdict(Kind.UNKNOWN_EVENT, words, lead)

    def _is_young(self, record: Record) -> bool:
        return id_time(record.event_id) > self._now - GRACE

    def _leads(self, records: Sequence[Record]) -> list[str | None]:
        """The lead of each: its own, or that of the event which its feedback refers to."""
        referred = {
            each.recipient_event_id
            for each in records
            if each.lead_id is None and each.recipient_event_id is not None
        }
        found = {event: self._spool.lead_of(event) for event in referred}
        unknown = [event for event, lead in found.items() if lead is None]
        if unknown:
            with translated(), self._engine.connect() as connection:
                found.update(sql.leads_of_events(connection, unknown))
        return [
            each.lead_id
            or (found.get(each.recipient_event_id) if each.recipient_event_id else None)
            for each in records
        ]

    def _known_leads(self, leads: set[str]) -> dict[str, str]:
        """Those that the other side knows, also by events outside of the interval."""
        against: Side = 1
        known = self._spool.leads(against, leads)
        if self._against.kind in {"outbox", "cloud"} and leads:
            with translated(), self._engine.connect() as connection:
                for lead, first in sql.first_events_of_leads(connection, sorted(leads)).items():
                    known[lead] = min(first, known.get(lead, first))
        return known
