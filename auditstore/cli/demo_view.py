"""What the demo shows: one numbered section a step, each with what it means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from rich.text import Text

from auditstore.cli.display import Column, Row, console, heading, listing, pairs, plain, show
from auditstore.cli.wording import age, number, size
from auditstore.objects import VERIFICATION_PREFIX, ObjectInfo
from auditstore.streams import Stream

if TYPE_CHECKING:
    from auditstore.demo.run import Delivered, Stage
    from auditstore.demo.sample import Sample
    from auditstore.demo.traffic import Tally

_FOLDERS_SHOWN: Final = 2
_OBJECTS_SHOWN: Final = 3
_OUTCOMES: Final = ("accepted", "rejected", "stopped", "errored")
#: The fields of an event that are shown, in this order.
_FIELDS: Final = (
    "id", "type", "outcome", "reason", "step_id", "start_timestamp", "ms", "cost", "revenue",
    "vars", "transactions",
)  # fmt: skip
_VARIABLES: Final = ("lead", "flow", "source", "recipient", "submission")


def opening(keep: Path | None) -> None:
    """What is about to happen."""
    console().print(Text("auditstore demo", style="bold"))
    show("Leads are handled, their events are appended to PostgreSQL, the exporter takes them to "
         "several places, and a comparison shows that each event lies there exactly once. "
         "All of it happens on this machine, in "
         + ("a temporary folder that is removed at the end." if keep is None else f"{keep}."),
         style="dim")  # fmt: skip


def servers(stage: Stage) -> None:
    """What runs now."""
    from auditstore.demo.servers import BUCKET, HOW_TO_GET_AZURITE  # noqa: PLC0415  # an extra

    heading("1  Servers")
    azure = f"left out, there is no Azurite here ({HOW_TO_GET_AZURITE})"
    if stage.azure is not None:
        azure = f"Azurite at {stage.azure.url}, container {BUCKET}"
    pairs([
        ("   PostgreSQL", f"version {stage.postgres_version}, embedded, migrated"),
        ("   S3", f"moto at {stage.s3_url}, bucket {BUCKET}"),
        ("   Azure", azure),
        ("   Folder", f"{stage.archive}"),
    ])  # fmt: skip


def streams(found: Sequence[Stream]) -> None:
    """Which flow goes where."""
    heading("2  Streams")
    columns = (Column("STREAM", right=True), Column("FLOW"), Column("TO", shrinking=True),
               Column("FORMAT"), Column("CREDENTIAL"))  # fmt: skip
    listing(
        columns,
        [
            Row((
                plain(each.stream_id), plain(each.flow_id), plain(_short_url(each)),
                plain(each.format), plain(each.credential_name or "-"),
            ))
            for each in found
        ],
        indent="   ",
    )  # fmt: skip
    show("ndjson.gz: many events a file, one a line. json: LeadConduit's layout, one object an "
         "event. Credentials are kept encrypted.", indent="   ", style="dim")  # fmt: skip


def exporter_started(pid: int) -> None:
    """The daemon runs before the first lead comes."""
    show(f"The exporter runs: `auditstore export run`, process {pid}", indent="   ")


def leads(tally: Tally) -> None:
    """What the flows did."""
    heading("3  Leads")
    outcomes = ", ".join(f"{tally.outcomes[each]} {each}" for each in _OUTCOMES)
    show(f"{number(tally.leads, 'lead')} handled by two flows in {age(tally.seconds)}: {outcomes}",
         indent="   ")  # fmt: skip
    show(f"{number(tally.events, 'event')} appended in {number(tally.transactions, 'transaction')},"
         f" {tally.later} of them later than their lead: retries, returns, conversions",
         indent="   ")  # fmt: skip


def delivered(found: Sequence[Delivered]) -> None:
    """What the exporter did meanwhile."""
    heading("4  Export")
    columns = (Column("STREAM", right=True), Column("FILES", right=True),
               Column("EVENTS", right=True), Column("SLOWEST", right=True),
               Column("TO", shrinking=True))  # fmt: skip
    listing(
        columns,
        [
            Row((
                plain(each.stream.stream_id), plain(number(each.files)), plain(number(each.events)),
                plain(age(each.slowest.total_seconds())), plain(_short_url(each.stream)),
            ))
            for each in found
        ],
        indent="   ",
    )  # fmt: skip
    show("Slowest: from an append to the delivered file that holds it. A file waits up to 2 s for "
         "more events; the exporter has stopped in order.", indent="   ", style="dim")  # fmt: skip


def objects(places: Sequence[tuple[Stream, list[ObjectInfo]]]) -> None:
    """What lies where, as the stores list it."""
    heading("5  Objects")
    for stream, listed in places:
        # What the exporter wrote to learn whether the server keeps create-only writes.
        found = [info for info in listed if VERIFICATION_PREFIX not in info.key]
        total = sum(info.size for info in found)
        show(Text.assemble(
            (_short_url(stream), "cyan"), f"  {number(len(found), 'object')}, {size(total)}",
        ), indent="   ")  # fmt: skip
        prefix = stream.destination.prefix or stream.destination.bucket.lstrip("/")
        folders = [
            (folder, list(group))
            for folder, group in groupby(found, key=lambda info: info.key.rpartition("/")[0])
        ]
        for folder, group in folders[:_FOLDERS_SHOWN]:
            name = folder.removeprefix(prefix).strip("/")
            show(f"{name}/", indent="    ", style="dim")
            for info in group[:_OBJECTS_SHOWN]:
                show(f"{info.key.rpartition('/')[2]}  {size(info.size)}", indent="      ")
            if len(group) > _OBJECTS_SHOWN:
                show(f"and {len(group) - _OBJECTS_SHOWN} more", indent="      ", style="dim")
        if len(listed) > len(found):
            show("and a small object by which the exporter saw that the server refuses to "
                 "overwrite", indent="    ", style="dim")  # fmt: skip
        if len(folders) > _FOLDERS_SHOWN:
            show(f"and {len(folders) - _FOLDERS_SHOWN} more folders, one a lead", indent="    ",
                 style="dim")  # fmt: skip


def event(sample: Sample) -> None:
    """One event out of the bucket, the long parts cut short."""
    from auditstore.demo.sample import shortened  # noqa: PLC0415  # an extra

    heading("6  One event")
    show(f"Line {sample.line} of {sample.key.rpartition('/')[2]}, "
         f"{size(sample.size)}, shortened here:", indent="   ")  # fmt: skip
    fields = {name: sample.fields[name] for name in _FIELDS if name in sample.fields}
    variables = fields.get("vars", {})
    fields["vars"] = {name: variables[name] for name in _VARIABLES if name in variables}
    text = orjson.dumps(shortened(fields), option=orjson.OPT_INDENT_2).decode()
    for line in text.splitlines():
        console().print(Text(f"   {line}", style="dim"), overflow="ellipsis", no_wrap=True)
    show("Byte for byte as it was appended: bucket and outbox both have SHA-256 "
         f"{sample.sha256[:16]}…", indent="   ")  # fmt: skip


def reconciliation(report: dict[str, Any]) -> None:
    """The comparison, a line a stream, and whatever differs."""
    heading("7  Reconciliation")
    show("`auditstore reconcile --level events` has read every object again and compared each "
         "event with the outbox:", indent="   ")  # fmt: skip
    columns = (
        Column("STREAM", right=True), Column("FILES", right=True), Column("IN OUTBOX", right=True),
        Column("IN STORE", right=True), Column("EQUAL", right=True),
        Column("DIFFERENT", right=True), Column("RESULT"),
    )  # fmt: skip
    rows = []
    for each in report["streams"]:
        good = each["result"] == "reconciled"
        rows.append(
            Row((
                plain(each["stream_id"]), plain(number(each["files_matched"])),
                plain(number(each["events_expected"])), plain(number(each["events_found"])),
                plain(number(each["events_matched"])), plain(number(each["differences"])),
                plain(each["result"], "green" if good else "red"),
            ))
        )  # fmt: skip
    listing(columns, rows, indent="   ")
    for finding in report["findings"]:
        if finding["difference"]:
            show(f"{finding['kind']}: {finding['detail']}", indent="   ", style="red")


def ending(result: int, *, seconds: float, keep: Path | None) -> None:
    """What it came to, and where to go from here."""
    heading("Result")
    if result == 0:
        show(Text.assemble(
            ("Reconciled", "bold green"), ": every event lies in each of its places exactly once, "
            f"unaltered. It took {age(seconds)}; every server has stopped.",
        ), indent="   ")  # fmt: skip
    else:
        show(Text.assemble(("The two sides differ", "bold red"), ": see above."), indent="   ")
    if keep is not None:
        show(f"To look around: AUDITSTORE_HOME={keep} auditstore events list", indent="   ")
        show(f"The delivered files: {keep / 'archive'}", indent="   ")


def _short_url(stream: Stream) -> str:
    """The stream's URL, a folder's by its last two parts."""
    if stream.destination.scheme != "file":
        return stream.destination.url
    return "file:///…/" + "/".join(stream.destination.bucket.split("/")[-2:])
