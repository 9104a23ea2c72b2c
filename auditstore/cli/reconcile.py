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
from typing import Any, Final, TextIO, cast

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from auditstore import streams
from auditstore.cli.context import Session
from auditstore.cli.display import HarmlessText, harmless
from auditstore.cli.reconcile_views import Views, compare_chosen
from auditstore.cli.stores import store_opener
from auditstore.cli.view_options import place_options, side_options
from auditstore.cli.wording import MOMENT
from auditstore.errors import AuditStoreError, ConfigurationError, NotFound
from auditstore.ledger import LedgerFile
from auditstore.objects import ObjectStore
from auditstore.reconciliation import (
    Finding,
    Kind,
    Level,
    Restore,
    Scope,
    Summary,
    compare_increment,
    compare_stream,
)
from auditstore.reconciliation.reports import Report, ReportFormat, exit_code, open_report
from auditstore.reconciliation.scope import Progress as ProgressReader
from auditstore.reconciliation.scope import Silent
from auditstore.sql.failures import translated
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
    type=click.Choice(["text", "json", "csv"]),
    default="text",
    show_default=True,
    help="For people, or every finding for a program.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report there; it is there only once it is complete.",
)
@click.option("--repair", is_flag=True, help="Put missing files back, then compare again.")
@side_options
@place_options
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
    incremental: bool,
    anew: bool,
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
    scope = Scope(level, since, until)
    if incremental and scope.is_bounded:
        raise click.UsageError("--incremental knows itself what is new: leave --since and --until.")
    if anew and not incremental:
        raise click.UsageError("--anew goes with --incremental.")
    views = Views.taken_from(given, repair=repair)
    if incremental and not views.is_usual:
        raise click.UsageError(
            "--incremental compares outbox, ledger and store, and no other view."
        )
    compare = _Compare(incremental=incremental, anew=anew)
    chosen = partial(_chosen, session, flow_id, stream_id)
    usual = chosen() if views.includes_usual else []
    last_rounds = []
    with _written_to(output) as out:
        report = open_report(form, out, scope)
        may_draw = output is not None or form == "text" or not sys.stdout.isatty()
        if not views.is_usual:
            last_rounds += compare_chosen(
                session, views, scope, report, flow_id=flow_id, chosen=chosen
            )
        for stream in usual:
            summary = _compare(
                session, stream, scope, report, compare, repair=repair, may_draw=may_draw
            )
            last_rounds.append(summary)
        report.end(exit_code(last_rounds))
    ctx.exit(exit_code(last_rounds))


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
    """Which of the two comparisons is asked for."""

    incremental: bool
    anew: bool

    def of(self, number: int) -> Callable[..., Summary]:
        """The comparison of this round, called with everything but the scope."""
        if not self.incremental:
            return compare_stream
        return partial(_increment, anew=self.anew and number == 1)


def _increment(
    engine: Engine,
    stream_id: int,
    open_store: Callable[[], ObjectStore],
    scope: Scope,
    **named: Any,
) -> Summary:
    return compare_increment(engine, stream_id, open_store, scope.level, **named)


def _compare(
    session: Session,
    stream: Stream,
    scope: Scope,
    report: Report,
    compare: _Compare,
    *,
    repair: bool,
    may_draw: bool,
) -> Summary:
    """Compare, and after a repair compare again; return how it stands at the end."""
    summary = _round(session, stream, scope, report, compare, 1, repair=repair, may_draw=may_draw)
    if summary.repaired:
        summary = _round(
            session, stream, scope, report, compare, 2, repair=False, may_draw=may_draw
        )
    return summary


def _round(  # noqa: PLR0917  # called twice, above, with what it says
    session: Session,
    stream: Stream,
    scope: Scope,
    report: Report,
    compare: _Compare,
    number: int,
    *,
    repair: bool,
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
                restore=partial(_restorer, engine) if repair else None,
                progress=progress,
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


def _restorer(engine: Engine, store: ObjectStore) -> Restore:
    from exporters.delivery import restore  # noqa: PLC0415  # the composition root

    def put_back(stream: Stream, row: LedgerFile) -> bool:
        with translated(), engine.connect() as connection:
            return restore(connection, stream, row, store)

    return put_back


# --- where it is written, and what is seen meanwhile ----------------------------------


@contextmanager
def _written_to(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that takes its name once the report is complete."""
    if output is None:
        # A bucket's names and an event's fields may hold what a terminal would obey.
        yield cast("TextIO", HarmlessText(sys.stdout)) if sys.stdout.isatty() else sys.stdout
        return
    unfinished = output.with_name(f"{output.name}.partial")
    # A device or a pipe is written as it is: nothing can take its place.
    is_plain = output.is_file() or not output.exists()
    try:
        with (unfinished if is_plain else output).open("w", encoding="utf-8", newline="") as out:
            yield out
        if is_plain:
            unfinished.replace(output)
    except OSError as error:
        raise ConfigurationError(
            f"the report cannot be written to {output}: {error.strerror or error}",
            hint="Name another file with --output.",
        ) from error
    finally:
        if is_plain:
            unfinished.unlink(missing_ok=True)


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
