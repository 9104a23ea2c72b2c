"""Any two views of the events, compared: both spooled by flow and id, then joined."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Engine

from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.inventory import temporary_database
from auditstore.reconciliation.patterns import Tally
from auditstore.reconciliation.scope import Scope
from auditstore.reconciliation.showing import LOOKED_AT, show_command
from auditstore.reconciliation.summary import Summary
from auditstore.reconciliation.tallies import Tallies, hour_of
from auditstore.reconciliation.view import View as StreamView
from auditstore.reconciliation.view import look
from auditstore.reconciliation.views import sameness
from auditstore.reconciliation.views.changes import Change, change_of
from auditstore.reconciliation.views.importing import Importer, Refusal
from auditstore.reconciliation.views.objects import object_of
from auditstore.reconciliation.views.records import Key, Record, Trouble, View, Window
from auditstore.reconciliation.views.spool import AGAINST, SOURCE, Side, Spool, Spooled
from auditstore.reconciliation.views.verdicts import Judge, Verdict
from auditstore.sql import server
from auditstore.sql.failures import translated

_ADOPTABLE: Final = frozenset({Kind.MISSING_EVENT, Kind.MISSING_LATE_EVENT})
_NAMED_FLOWS: Final = 5


@dataclass(frozen=True, slots=True)
class Pair:
    """Two views, and the stream whose bucket the second is, if it is one of this store's."""

    source: View
    against: View
    stream_id: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        name = f"{self.source.name} against {self.against.name}"
        return name[0].upper() + name[1:]


#: Takes each finding as it comes, with the round of the comparison: 1, and 2 after adopting.
Report = Callable[[Finding, int], None]


def compare_views(
    engine: Engine,
    pair: Pair,
    window: Window,
    *,
    report: Report,
    done: Callable[[Summary, int], None],
    adopter: Importer | None = None,
    adopt: bool = False,
    values: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Compare two views; each finding goes to ``report`` at once, each round's sum to ``done``.

    With ``adopter`` the missing events of the source are appended to the outbox, which must be
    the second view, and then it is compared again; unless ``adopt`` is set it only says what it
    would append. ``values`` asks for those of fields that differ. Returns the last round's sum.
    Raises where a view cannot be read to its end.
    """
    with temporary_database() as database:
        comparison = Comparison(engine, pair, window, database, report, clock, values=values)
        comparison.load()
        summary = comparison.compare(1, adopter, adopt=adopt)
        done(summary, 1)
        if adopter is not None and adopter.result.appended and adopt:
            comparison.load_against()
            summary = comparison.compare(2, None)
            done(summary, 2)
        return summary


class Comparison:
    """One pair with its spool; see :func:`compare_views`."""

    def __init__(  # noqa: PLR0917  # made once, above
        self,
        engine: Engine,
        pair: Pair,
        window: Window,
        database: sqlite3.Connection,
        report: Report,
        clock: Callable[[], float],
        *,
        values: bool,
    ) -> None:
        self._engine = engine
        self._pair = pair
        self._window = window
        self._database = database
        self._spool = Spool(database)
        self._tallies = Tallies(database)
        self._values = values
        self._report = report
        self._clock = clock
        self._began = clock()
        self._summary = Summary(0, "", "", "views")
        self._round = 1
        self._stream: StreamView | None = None
        self._now = datetime.now(UTC)

    # --- reading both sides -----------------------------------------------------------

    def load(self) -> None:
        """Read both views, the outbox first, so that equal events need no second look."""
        with translated(), self._engine.connect() as connection:
            self._now = server.clock(connection)
        if self._pair.source.kind == "outbox":
            self._load(SOURCE, self._pair.source)
            self.load_against()
        else:
            self.load_against()
            self._load(SOURCE, self._pair.source)

    def load_against(self) -> None:
        """Read the second view, anew if it was read before."""
        self._spool.clear(AGAINST)
        if self._pair.stream_id is not None:
            self._stream = look(self._engine, self._pair.stream_id, Scope())
        self._load(AGAINST, self._pair.against)

    def _load(self, side: Side, view: View) -> None:
        for told in view.read(self._window):
            if isinstance(told, Trouble):
                self._spool.add_trouble(side, told)
                continue
            other = self._spool.add(side, told)
            if other is not None:
                self._spool.add_trouble(side, _repeated(told, other))

    # --- comparing them ---------------------------------------------------------------

    def compare(self, number: int, adopter: Importer | None, *, adopt: bool = False) -> Summary:
        """Report every difference; the sum of it."""
        self._round = number
        self._summary = self._new_summary()
        self._tallies = Tallies(self._database)
        self._note_troubles()
        for kind, events in self._spool.shared_kinds():
            self._tallies.add({kind: Tally(events, events, events)})
        changed = self._note_changed()
        self._summary.events_matched = self._spool.matched() - changed
        self._note_missing(adopter, adopt=adopt)
        self._note_unknown()
        self._summary.pattern = self._tallies.pattern()
        self._summary.seconds = self._clock() - self._began
        return self._summary

    def _new_summary(self) -> Summary:
        stream = None if self._stream is None else self._stream.stream
        return Summary(
            stream_id=0 if stream is None else stream.stream_id,
            flow_id=self._window.flow_id or "",
            url="" if stream is None else stream.url,
            level="views",
            compared_at=self._now,
            events_expected=self._spool.count(SOURCE),
            events_found=self._spool.count(AGAINST),
            views=self._pair.name + self._limits(),
        )

    def _note_troubles(self) -> None:
        for side, view in ((SOURCE, self._pair.source), (AGAINST, self._pair.against)):
            for trouble in self._spool.troubles(side):
                self._note(
                    trouble.kind, f"{view.name}: {trouble.detail}", self._window.flow_id or "",
                    event_id=trouble.event_id, lead_id=trouble.lead_id, object_key=trouble.place,
                    expected=trouble.expected, found=trouble.found, side=side,
                )  # fmt: skip

    def _note_changed(self) -> int:
        """Report events with other content on either side; how many they are."""
        changed = 0
        partial = False
        for batch in self._spool.different():
            partial = partial or any(one.record.partial for one, _ in batch)
            unclear = [pair for pair in batch if not _is_same(*pair)]
            self._summary.events_rewritten += len(batch) - len(unclear)
            if not unclear:
                continue
            ours = self._payloads(self._pair.source, [one.record for one, _ in unclear])
            theirs = self._payloads(self._pair.against, [other.record for _, other in unclear])
            for one, other in unclear:
                change = change_of(one.record, ours, theirs, values=self._values)
                if change is None:
                    self._summary.events_rewritten += 1
                    continue
                changed += 1
                self._note_change(one.record, other.record, change)
        if self._summary.events_rewritten:
            self._note(
                Kind.REWRITTEN,
                "events have the same content as far as the export's columns tell"
                if partial
                else "events have other bytes and the same content",
                self._window.flow_id or "", found=f"{self._summary.events_rewritten} events",
            )  # fmt: skip
        return changed

    def _note_change(self, one: Record, other: Record, change: Change) -> None:
        names = {
            name: value if (value := one.names[name]) is not None else other.names[name]
            for name in one.names
        }
        if self._pair.against.kind != "outbox":
            names["object_key"] = other.names["object_key"]
        kind = (hour_of(one.made_at), names["type"], names["outcome"])
        self._tallies.add({kind: Tally(0, 0, -1)})
        self._note(
            Kind.CHANGED_EVENT,
            f"{self._pair.source.name} and {self._pair.against.name} have the event with other "
            f"content: {change.in_words}",
            one.flow_id, expected=one.sha256.hex(), found=other.sha256.hex(),
            fields=change.fields, side=AGAINST, **names,
        )  # fmt: skip

    def _note_missing(self, adopter: Importer | None, *, adopt: bool) -> None:
        judge = self._judge()
        flows, first, end = self._reach(AGAINST, self._pair.against)
        for batch in self._spool.lonely(SOURCE, first=first, end=end):
            records = [record for record in batch if flows is None or record.flow_id in flows]
            verdicts = judge.missing(records)
            refused = self._adopt(adopter, records, verdicts)
            for record, verdict in zip(records, verdicts, strict=True):
                fixable = verdict.kind in _ADOPTABLE and self._pair.against.kind == "outbox"
                refusal = refused.get(record.key)
                taken = fixable and adopter is not None and refusal is None
                detail = verdict.detail
                if refusal is not None:
                    detail += f"; it cannot be appended: {refusal.detail}"
                elif taken and not adopt:
                    detail += "; it would be appended"
                self._count(record, verdict, Tally(expected=1))
                self._note(
                    verdict.kind, detail, record.flow_id,
                    **record.names | {"lead_id": verdict.lead_id},
                    expected=record.sha256.hex(), fixable=fixable and not record.partial,
                    repaired=taken and adopt,
                )  # fmt: skip

    def _note_unknown(self) -> None:
        judge = self._judge()
        flows, first, end = self._reach(SOURCE, self._pair.source)
        for batch in self._spool.lonely(AGAINST, first=first, end=end):
            records = [record for record in batch if flows is None or record.flow_id in flows]
            for record, verdict in zip(records, judge.unknown(records), strict=True):
                self._count(record, verdict, Tally(found=1))
                self._note(
                    verdict.kind, verdict.detail, record.flow_id,
                    **record.names | {"lead_id": verdict.lead_id},
                    found=record.sha256.hex(), side=AGAINST,
                )  # fmt: skip

    def _count(self, record: Record, verdict: Verdict, tally: Tally) -> None:
        # What is not due yet, or is not kept so long, is expected nowhere.
        if verdict.kind.is_difference:
            self._tallies.add({(hour_of(record.made_at), record.type, record.outcome): tally})

    def _adopt(
        self, adopter: Importer | None, records: Sequence[Record], verdicts: Sequence[Verdict]
    ) -> dict[Key, Refusal]:
        chosen = [
            record
            for record, verdict in zip(records, verdicts, strict=True)
            if verdict.kind in _ADOPTABLE
        ]
        if adopter is None or not chosen:
            return {}
        return {refusal.record.key: refusal for refusal in adopter.take(chosen)}

    # --- what the sides can answer for --------------------------------------------------

    def _reach(self, side: Side, view: View) -> tuple[set[str] | None, str, str]:
        """Of which flows (all if ``None``) and ids a view can be expected to have events.

        An export is a cut out of time and flows, and a bucket was begun some day. One without any
        event is not taken to be a cut of nothing: then everything is missing.
        """
        bounds = self._spool.bounds(side)
        if view.kind not in {"export", "location"} or bounds is None:
            return None, "0" * 24, "g"
        first = "0" * 24 if self._window.since is not None else bounds[0]
        end = "g"
        if view.kind == "export" and self._window.until is None:
            end = bounds[1] + "0"  # the first text behind the greatest id
        flows = None if self._window.flow_id is not None else self._spool.flows(side)
        return flows, first, end

    def _limits(self) -> str:
        """What a reader must know of the flows that were not looked at."""
        for side, view in ((SOURCE, self._pair.source), (AGAINST, self._pair.against)):
            flows, _, _ = self._reach(side, view)
            if flows is not None:
                named = sorted(flows)
                more = len(named) - _NAMED_FLOWS
                return f" (only flow {', '.join(named[:_NAMED_FLOWS])}" + (
                    f" and {more} more)" if more > 0 else ")"
                )
        return ""

    def _judge(self) -> Judge:
        return Judge(
            self._engine, self._spool, source=self._pair.source, against=self._pair.against,
            now=self._now, stream=self._stream,
        )  # fmt: skip

    def _payloads(self, view: View, records: Sequence[Record]) -> dict[Key, bytes]:
        found = {each.key: each.payload for each in records if each.payload is not None}
        # By place: the events of one object stand together then.
        wanted = sorted(
            ((each.key, each.place) for each in records if each.payload is None),
            key=lambda pair: pair[1],
        )
        return found | dict(view.payloads(wanted))

    def _note(
        self, kind: Kind, detail: str, flow_id: str, *, side: Side = SOURCE, **fields: Any
    ) -> None:
        """Report a finding; ``side`` is the one that its object lies on."""
        key = fields.get("object_key")
        if side == AGAINST and self._stream is not None and kind in LOOKED_AT and key is not None:
            destination = self._stream.stream.destination
            fields["command"] = show_command(destination, object_of(key))
        finding = Finding(kind, self._summary.stream_id, flow_id, detail, **fields)
        self._summary.counts[kind] += 1
        self._summary.repaired += finding.repaired
        self._report(finding, self._round)


def _is_same(one: Spooled, other: Spooled) -> bool:
    return one.content is not None and one.content == other.content


def _repeated(record: Record, other: Spooled) -> Trouble:
    if record.sha256 == other.record.sha256:
        how = "the same content"
    elif other.content is None or record.payload is None:
        how = "other bytes"
    else:
        same = sameness.digest(record.payload) == other.content
        how = "the same content in other bytes" if same else "other content"
    return Trouble(
        Kind.DUPLICATE_EVENT,
        f"it has the event a second time, with {how}; the first is {other.record.place}",
        record.place, event_id=record.event_id, lead_id=record.lead_id,
        expected=other.record.sha256.hex(), found=record.sha256.hex(),
    )  # fmt: skip
