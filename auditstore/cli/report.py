"""``auditstore report``: the reports that were kept, in every form, and whether they are whole."""

from __future__ import annotations

from pathlib import Path

import click

from auditstore.cli.context import Session
from auditstore.cli.display import (
    Column,
    Row,
    listing,
    plain,
    show,
    write_json,
)
from auditstore.cli.options import json_option
from auditstore.cli.reconcile_report import scope_in_words
from auditstore.cli.report_output import written_to
from auditstore.cli.wording import number, utc
from auditstore.reconciliation import kept
from auditstore.reconciliation.document import canonical, check_seal
from auditstore.reconciliation.replay import replay
from auditstore.reconciliation.report_csv import CsvReport
from auditstore.reconciliation.report_file import read_report
from auditstore.reconciliation.report_text import TextReport
from auditstore.reconciliation.reports import FORMATS, ReportFormat
from auditstore.sql import reconciliations as sql


@click.group()
def report() -> None:
    """Reports of comparisons that were kept: list, show, verify."""


@report.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True,
              help="At most so many, the newest first.")  # fmt: skip
@click.option("--flow", "flow_id", metavar="ID", help="Only those asked for this flow.")
@click.option("--stream", "stream_id", type=int, metavar="ID",
              help="Only those asked for this stream.")  # fmt: skip
@json_option
@click.pass_obj
def list_(
    session: Session, *, limit: int, flow_id: str | None, stream_id: int | None, as_json: bool
) -> None:
    """List the reports, newest first: made by hand, in the console and on schedule."""
    with session.reading() as connection:
        found = sql.find(connection, limit=limit, flow_id=flow_id, stream_id=stream_id)
    if as_json:
        write_json([
            {
                "number": each.number, "started_at": each.started_at, "ended_at": each.ended_at,
                "kept_at": each.kept_at, "actor": each.actor, "database_user": each.database_user,
                "scope": each.scope, "result": each.result, "counts": each.counts,
                "heads": each.heads, "sha256": each.sha256.hex(),
            }
            for each in found
        ])  # fmt: skip
        return
    if not found:
        show("No report is kept yet: `auditstore reconcile` makes one.")
        return
    columns = (
        Column("REPORT", right=True), Column("STARTED"), Column("RESULT"),
        Column("FINDINGS", right=True), Column("SCOPE", optional=1), Column("BY", optional=2),
        Column("SHA-256", optional=3, shrinking=True),
    )  # fmt: skip
    listing(
        columns,
        [
            Row((
                plain(each.number), plain(utc(each.started_at)),
                plain(each.result, "" if each.result == "reconciled" else "red"),
                plain(number(sum(each.counts.values()))), plain(scope_in_words(dict(each.scope))),
                plain(each.actor), plain(each.sha256.hex()),
            ))
            for each in found
        ],
    )  # fmt: skip


@report.command("show")
@click.argument("report_number", metavar="NUMBER", type=int)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="As `auditstore reconcile` has them.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write it there.")  # fmt: skip
@click.pass_obj
def show_(session: Session, *, report_number: int, form: ReportFormat, output: Path | None) -> None:
    """Show a report as it was kept, once its hash is verified."""
    with session.reading() as connection:
        values = kept.read(connection, report_number).values
    check_seal(values)
    with written_to(output) as out:
        if form == "json":
            out.write(canonical(values).decode() + "\n")
        elif form == "html":
            from auditstore.reconciliation.html import render  # noqa: PLC0415  # slow to import

            out.write(render(values))
        else:
            replay(values, CsvReport(out) if form == "csv" else TextReport(out))
            if form == "text":
                out.write(f"Report {report_number}, SHA-256 {values['sha256']}\n")


@report.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify(*, file: Path) -> None:
    """Verify a report in a file, JSON or HTML, by its own hash. Needs no database."""
    values = read_report(file)
    sha256 = check_seal(values)
    show(f"The report is whole: {values['result']}, SHA-256 {sha256}")
    for stream in values["streams"]:
        show(
            f"Stream {stream['stream_id']}: ledger head {stream['head_sequence']} "
            f"{stream['head_hash']}",
            indent="  ",
        )
