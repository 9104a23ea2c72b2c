"""``auditstore reconcile``: the comparison with its stores opened and its report written."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.display import harmless, note
from auditstore.cli.inventory_option import inventory_option, opened_inventory
from auditstore.cli.reconcile_report import ReportDesk
from auditstore.cli.reconcile_views import Views, compare_chosen
from auditstore.cli.repair import restorer
from auditstore.cli.report_output import written_to
from auditstore.cli.stores import store_opener, store_recipe
from auditstore.cli.view_options import place_options, side_options
from auditstore.cli.wording import MOMENT
from auditstore.cli.worker_options import WorkerChoice, worker_options
from auditstore.errors import AuditStoreError, NotFound
from auditstore.objects import ObjectStore
from auditstore.reconciliation import (
    Finding,
    Kind,
    Level,
    Readers,
    Scope,
    Summary,
    Workers,
    compare_increment,
    compare_stream,
)
from auditstore.reconciliation.listing import Listing
from auditstore.reconciliation.reports import (
    FORMATS,
    Report,
    ReportFormat,
    exit_code,
    open_report,
)
from auditstore.reconciliation.scope import Progress as ProgressReader
from auditstore.reconciliation.scope import Silent
from auditstore.streams import Stream

_MEBIBYTE: Final = 1024 * 1024


@click.command
@click.option("--flow", "flow_id", metavar="ID", help="Only the streams of this flow.")
@click.option("--stream", "stream_id", type=int, metavar="NUMBER", help="Only this stream.")
@click.option("--since", type=MOMENT, help="Only files with events recorded at or after this.")
@click.option("--until", type=MOMENT, help="Only files with events recorded before this.")
@click.option(
    "--level",
    type=click.Choice(["files", "events"]),
    default="files",
    show_default=True,
    help="Compare files by size and hash, or read each and compare every event.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="For people (html: one file with charts), or every finding for a program.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report there; it is there only once it is complete.",
)
@click.option("--repair", is_flag=True, help="Put missing files back, then compare again.")
@click.option(
    "--show-values",
    is_flag=True,
    help="Show the values of fields that differ, too; they are people's data.",
)
@click.option("--no-keep", is_flag=True, help="Do not keep the report in the database.")
@side_options
@place_options
@worker_options
@inventory_option
@click.option(
    "--incremental",
    is_flag=True,
    help="Only what is new since the last such run, and a sample of the rest.",
)
@click.option(
    "--anew",
    is_flag=True,
    help="With --incremental: forget what was verified before, and compare all.",
)
@click.pass_context
def reconcile(
    ctx: click.Context,
    /,
    *,
    flow_id: str | None,
    stream_id: int | None,
    since: datetime | None,
    until: datetime | None,
    level: Level,
    form: ReportFormat,
    output: Path | None,
    repair: bool,
    show_values: bool,
    no_keep: bool,
    incremental: bool,
    anew: bool,
    inventory: str | None,
    **given: Any,
) -> None:
    """Compare the outbox, the ledger and the store, for what the streams covered.

    With --source or --location it compares other views, event by event: LeadConduit's own, a
    file exported from it, a bucket that LeadConduit filled. --since and --until are of the time
    in the events' ids then.

    Leaves with 0 if all is reconciled, 1 if there are differences, and 2 if a stream could
    not be compared. Nothing is ever overwritten or deleted.
    """
    session: Session = ctx.obj
    if show_values and form == "html":
        raise click.UsageError("An HTML report never holds values: use another --format.")
    scope = Scope(level, since, until, values=show_values)
    if incremental and scope.is_bounded:
        raise click.UsageError("--incremental knows itself what is new: leave --since and --until.")
    if anew and not incremental:
        raise click.UsageError("--anew goes with --incremental.")
    choice = WorkerChoice.taken_from(given)
    views = Views.taken_from(given, repair=repair)
    _check_views(views, choice, incremental=incremental, inventory=inventory)
    how = "no" if not (repair or views.adopt) else "dry-run" if views.dry_run else "yes"
    desk = ReportDesk.opened(
        session, scope, views, flow_id, stream_id, repair=how, keep=not no_keep
    )
    chosen = partial(_chosen, session, flow_id, stream_id)
    usual = chosen() if views.includes_usual else []
    last_rounds = []
    with (
        choice.opened() as workers,
        opened_inventory(session, inventory, usual) as listing,
        written_to(output) as out,
    ):
        compare = _Compare(incremental, anew, workers, listing)
        report = open_report(form, out, desk.document, values=show_values)
        may_draw = output is not None or form == "text" or not sys.stdout.isatty()
        if not views.is_usual:
            last_rounds += compare_chosen(
                session, views, scope, report, flow_id=flow_id, chosen=chosen
            )
        for stream in usual:
            summary = _compare(
                session, stream, scope, report, compare, repair=how, may_draw=may_draw
            )
            last_rounds.append(summary)
        desk.close(exit_code(last_rounds))
        report.end(exit_code(last_rounds))
        if desk.keep() and form == "text":
            out.write(f"{desk.receipt}\n")
    if form != "text" and desk.number is not None:
        note(desk.receipt)
    desk.insist()
    ctx.exit(exit_code(last_rounds))


def _check_views(
    views: Views, choice: WorkerChoice, *, incremental: bool, inventory: str | None
) -> None:
    """Refuse what is only for this store's own streams where other views are compared."""
    if incremental and not views.is_usual:
        raise click.UsageError(
            "--incremental compares outbox, ledger and store, and no other view."
        )
    if not (choice.is_usual or views.includes_usual):
        raise click.UsageError(
            "--workers, --processes and --cluster read the buckets of this store's own streams."
        )
    if inventory is not None and (incremental or not views.is_usual):
        raise click.UsageError(
            "--inventory goes with a whole comparison of outbox, ledger and store."
        )


def _chosen(session: Session, flow_id: str | None, stream_id: int | None) -> list[Stream]:
    with session.reading() as connection:
        if stream_id is not None:
            found = [streams.get(connection, stream_id)]
        else:
            found = streams.find(connection, flow_id=flow_id)
    if stream_id is not None and flow_id is not None:
        found = [stream for stream in found if stream.flow_id == flow_id]
    if not found:
        raise NotFound(
            "there is no such stream to compare" if flow_id else "there is no stream to compare",
            hint="`auditstore stream list` shows the streams.",
        )
    return found


@dataclass(frozen=True, slots=True)
class _Compare:
    """Which of the two comparisons is asked for, and who reads for it."""

    incremental: bool
    anew: bool
    workers: Workers | None
    listing: Listing | None

    def of(self, number: int) -> Callable[..., Summary]:
        """The comparison of this round, called with everything but the scope."""
        if not self.incremental:
            return partial(compare_stream, listing=self.listing)
        return partial(_increment, anew=self.anew and number == 1)

    def readers(self, session: Session, stream: Stream) -> Readers | None:
        """Those who read a stream's files ahead, if any do."""
        if self.workers is None:
            return None
        return Readers(self.workers, partial(_recipe, session, stream))


def _increment(
    engine: Engine,
    stream_id: int,
    open_store: Callable[[], ObjectStore],
    scope: Scope,
    **named: Any,
) -> Summary:
    return compare_increment(
        engine, stream_id, open_store, scope.level, values=scope.values, **named
    )


def _compare(
    session: Session,
    stream: Stream,
    scope: Scope,
    report: Report,
    compare: _Compare,
    *,
    repair: str,
    may_draw: bool,
) -> Summary:
    """Compare, and after a repair compare again; return how it stands at the end."""
    summary = _round(session, stream, scope, report, compare, 1, repair=repair, may_draw=may_draw)
    if summary.repaired:
        summary = _round(session, stream, scope, report, compare, 2, repair="no", may_draw=may_draw)
    return summary


def _round(  # noqa: PLR0917  # called twice, above, with what it says
    session: Session,
    stream: Stream,
    scope: Scope,
    report: Report,
    compare: _Compare,
    number: int,
    *,
    repair: str,
    may_draw: bool,
) -> Summary:
    engine = session.engine
    counts: Counter[Kind] = Counter()

    def take(finding: Finding) -> None:
        counts[finding.kind] += 1
        report.finding(finding, number)

    with _progress(stream, may_draw=may_draw) as progress:
        try:
            summary = compare.of(number)(
                engine,
                stream.stream_id,
                partial(_open, session, stream),
                scope,
                report=take,
                restore=restorer(engine, repair),
                dry_run=repair == "dry-run",
                pattern=True,
                progress=progress,
                readers=compare.readers(session, stream),
            )
        except AuditStoreError as error:
            # What was found by then is true, and not all.
            summary = Summary(
                stream.stream_id,
                stream.flow_id,
                stream.url,
                scope.level,
                counts=counts,
                error=error,
            )
    if summary.error is not None:
        click.echo(
            f"Error: stream {stream.stream_id} could not be compared: "
            f"{harmless(summary.error.message)}\nTry:   {harmless(summary.error.hint)}",
            err=True,
        )
    report.stream(summary, number)
    return summary


def _open(session: Session, stream: Stream) -> ObjectStore:
    with session.reading() as connection:
        return store_opener(session.vault)(connection, stream)


def _recipe(session: Session, stream: Stream) -> Callable[[], ObjectStore]:
    with session.reading() as connection:
        return store_recipe(session.vault)(connection, stream)


# --- what is seen meanwhile -----------------------------------------------------------


class _Drawn:
    """Progress as a bar on the terminal."""

    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update

    def listing(self, objects: int) -> None:
        """The number of objects; how many there are is not known yet."""
        self._update(total=None, figures=f"{objects} objects listed")

    def comparing(self, done: int, total: int, bytes_read: int) -> None:
        """The share of files that are compared."""
        figures = f"{done} of {total} files, {bytes_read / _MEBIBYTE:.1f} MiB read"
        self._update(total=total, completed=done, figures=figures)


@contextmanager
def _progress(stream: Stream, *, may_draw: bool) -> Iterator[ProgressReader]:
    console = Console(stderr=True, highlight=False, markup=False)
    if not (console.is_terminal and may_draw):
        yield Silent()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(f"Stream {stream.stream_id}", total=None, figures="")
        yield _Drawn(partial(bar.update, task))
