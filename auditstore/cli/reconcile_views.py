"""``auditstore reconcile`` between other views than the outbox and its own streams' buckets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import click
from sqlalchemy import Engine

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.display import harmless
from auditstore.cli.view_sides import LEADCONDUIT, OUTBOX, Places, Sides
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.reconciliation import Finding, Kind, Scope, Summary
from auditstore.reconciliation.reports import Report
from auditstore.reconciliation.views import Pair, compare_views
from auditstore.reconciliation.views.importing import Importer
from auditstore.reconciliation.views.records import View, Window
from auditstore.streams import Stream

CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Views:
    """Which views were asked for, checked; see :func:`taken_from`."""

    source: str
    against: tuple[str, ...]
    adopt: bool
    dry_run: bool
    places: Places

    @classmethod
    def taken_from(cls, given: dict[str, Any], *, repair: bool) -> Self:
        """Take these options out of a command's; refuse what does not go together."""
        source, against = given.pop("source") or OUTBOX, given.pop("against")
        adopt, dry_run = given.pop("adopt"), given.pop("dry_run")
        places = Places.taken_from(given)
        if not against and places.location is None:
            against = (CLOUD,) if source == OUTBOX else (OUTBOX,)
        made = cls(source, tuple(sorted(set(against))), adopt, dry_run, places)
        made._check(repair=repair)
        return made

    @property
    def is_usual(self) -> bool:
        """Whether it is the outbox against its own streams' buckets."""
        return self.source == OUTBOX and self.against == (CLOUD,)

    @property
    def includes_usual(self) -> bool:
        """Whether that comparison is one of those that were asked for."""
        return self.is_usual or {CLOUD, OUTBOX} <= set(self.against)

    def _check(self, *, repair: bool) -> None:
        location = self.places.location
        wrong = [
            ("--location stands in the place of --against", location and self.against),
            ("the outbox cannot be compared with itself",
             self.source == OUTBOX and OUTBOX in self.against),
            ("--adopt takes events of LeadConduit or of an export into the outbox",
             self.adopt and (self.source == OUTBOX or OUTBOX not in self.against)),
            ("--dry-run goes with --adopt or --repair",
             self.dry_run and not (self.adopt or repair)),
            ("--checkpoint goes with LeadConduit's API",
             self.places.checkpoint and self.source != LEADCONDUIT),
            ("--endpoint-url and --region are those of a --location",
             (self.places.endpoint_url or self.places.region) and location is None),
            ("--credential is for a --location or for LeadConduit",
             self.places.credentials and location is None and self.source != LEADCONDUIT),
            ("--repair puts back files of this store's own streams", repair and not self.is_usual),
        ]  # fmt: skip
        for message, found in wrong:
            if found:
                raise ConfigurationError(
                    message, hint="`auditstore reconcile --help` says what goes together."
                )


def compare_chosen(
    session: Session,
    views: Views,
    scope: Scope,
    report: Report,
    *,
    flow_id: str | None,
    chosen: Callable[[], Sequence[Stream]],
) -> list[Summary]:
    """Compare the views that were asked for; the last round's sum of each pair.

    ``chosen`` gives the streams whose buckets are compared, where they are.
    """
    window = Window(flow_id, scope.since, scope.until)
    summaries = []
    with Sides(session, views.places, flow_id=flow_id) as sides:
        buckets = list(chosen()) if CLOUD in views.against else []
        several = len(buckets) + (OUTBOX in views.against) > 1
        source = sides.source(views.source, read_often=several)
        for pair in _pairs(sides, views, source, buckets):
            adopting = views.adopt and pair.against.kind == OUTBOX
            summary = _compare(
                session, views, pair, window, report, adopt=adopting, values=scope.values
            )
            summaries.append(summary)
        if all(summary.error is None for summary in summaries):
            sides.completed()
    return summaries


def _pairs(sides: Sides, views: Views, source: View, buckets: Sequence[Stream]) -> Iterator[Pair]:
    if views.places.location is not None:
        yield Pair(source, sides.location(views.places.location))
    # The outbox first: what is adopted into it is on its way to the buckets then.
    if OUTBOX in views.against:
        yield Pair(source, sides.source(OUTBOX))
    for stream in buckets:
        yield Pair(source, sides.cloud(stream), stream.stream_id)


def _compare(
    session: Session,
    views: Views,
    pair: Pair,
    window: Window,
    report: Report,
    *,
    adopt: bool,
    values: bool,
) -> Summary:
    counts: Counter[Kind] = Counter()

    def take(finding: Finding, number: int) -> None:
        counts[finding.kind] += 1
        report.finding(finding, number)

    of_pair = window if pair.stream_id is None else _window_of(session, pair.stream_id, window)
    adopter = None
    if adopt:
        adopter = Importer(
            session.engine, kind="adopt", source=pair.source.name,
            actor=streams.current_actor(), dry_run=views.dry_run,
        )  # fmt: skip
    try:
        with session.importing() if adopt else _reading(session) as engine:
            summary = compare_views(
                engine, pair, of_pair, report=take, done=report.stream, adopter=adopter,
                adopt=not views.dry_run, values=values,
            )  # fmt: skip
            if adopter is not None:
                adopter.finish()
    except AuditStoreError as error:
        # What was found by then is true, and not all.
        summary = Summary(
            pair.stream_id or 0, window.flow_id or "", "", "views",
            counts=counts, views=pair.name, error=error,
        )  # fmt: skip
        click.echo(
            f"Error: {harmless(pair.name)}: could not be compared: {harmless(error.message)}\n"
            f"Try:   {harmless(error.hint)}",
            err=True,
        )
        report.stream(summary, 1)
    return summary


@contextmanager
def _reading(session: Session) -> Iterator[Engine]:
    with session.reading():
        pass
    yield session.engine


def _window_of(session: Session, stream_id: int, window: Window) -> Window:
    with session.reading() as connection:
        flow_id = streams.get(connection, stream_id).flow_id
    return Window(flow_id, window.since, window.until)
