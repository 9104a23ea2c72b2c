"""The report for people: a few lines a stream, and the first findings of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, Protocol, TextIO, runtime_checkable

from auditstore.reconciliation.findings import Finding, Kind
from auditstore.reconciliation.patterns import Pattern, Sort
from auditstore.reconciliation.summary import Summary

#: How many findings of each kind are shown.
SHOWN: Final = 50
_SHOWN_HOURS: Final = 10
# Below so many milliseconds a delay is told in this unit.
_UNITS: Final = ((120_000, 1000, "s"), (7_200_000, 60_000, "min"), (172_800_000, 3_600_000, "h"))


@runtime_checkable
class Painter(Protocol):
    """An output that knows colours, as a terminal may."""

    def paint(self, line: str, style: str) -> None:
        """Write a line in a style, such as ``bold red``."""


class TextReport:
    """Written a stream at a time; holds at most :data:`SHOWN` findings of each kind."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._kept: dict[Kind, list[Finding]] = {}
        self._before: Summary | None = None

    def finding(self, finding: Finding, comparison_round: int) -> None:  # noqa: ARG002  # told with the stream
        """Kept if it is among the first of its kind; all are counted in the summary."""
        kept = self._kept.setdefault(finding.kind, [])
        if len(kept) < SHOWN:
            kept.append(finding)

    def stream(self, summary: Summary, comparison_round: int) -> None:
        """Write the stream's section, and begin the next."""
        after = ", after the repair" if comparison_round > 1 else ""
        what = summary.views or (
            f"Stream {summary.stream_id}: flow {summary.flow_id} to {summary.url}"
        )
        good = summary.result == "reconciled"
        self._line(f"{what}: {summary.result.upper()}{after}", "bold green" if good else "bold red")
        for line in _figures(summary):
            self._line(f"  {line}")
        if comparison_round > 1 and self._before is not None:
            self._line(f"  {_before(self._before)}")
        self._before = summary
        if summary.pattern is not None:
            for line in _pattern(summary.pattern, views=bool(summary.views)):
                self._line(f"  {line}")
        for kind in Kind:
            self._findings(kind, summary.counts[kind])
        if summary.error is not None:
            self._line(f"  {summary.error.message}")
            self._line(f"  {summary.error.hint}")
        self._out.write("\n")
        self._kept = {}

    def end(self, result: int) -> None:
        """The last line says how it all went."""
        self._line(
            {
                0: "Reconciled: outbox, ledger and stores hold the same.",
                1: "Differences were found.",
                2: "Not everything could be compared.",
            }[result],
            "bold green" if result == 0 else "bold red",
        )

    def _findings(self, kind: Kind, count: int) -> None:
        if not count:
            return
        kept = self._kept.get(kind, [])
        self._out.write("\n")
        self._line(
            f"  {kind.in_words} ({count}{'' if kind.is_difference else ', no difference'})",
            "bold yellow" if kind.is_difference else "bold",
        )
        for finding in kept:
            repaired = " [repaired]" if finding.repaired else ""
            if finding.planned:
                repaired = " [would be put back]"
            self._line(f"    {_place(finding)}: {finding.detail}{repaired}")
            told = [
                f"{word} {value}"
                for word, value in (("expected", finding.expected), ("found", finding.found))
                if value
            ]
            if told:
                self._line(f"      {', '.join(told)}", "dim")
            if finding.fields is not None:
                self._line(f"      {finding.fields}")
            if finding.command is not None:
                self._line(f"      shown by  {finding.command}", "cyan")
        if count > len(kept):
            self._line(f"    and {count - len(kept)} more: --format csv or json lists them all")

    def _line(self, text: str, style: str = "") -> None:
        line = printable(text)
        if style and isinstance(self._out, Painter):
            self._out.paint(line, style)
        else:
            self._out.write(line + "\n")


def printable(text: str) -> str:
    """One line without control characters: an object's key may hold any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _figures(summary: Summary) -> Iterator[str]:
    if summary.views:
        yield (
            f"events   {summary.events_expected} expected, {summary.events_found} found, "
            f"{summary.events_matched} matched, "
            f"{summary.events_rewritten} of them spelled otherwise"
        )
        return
    if summary.first_sequence is None:
        yield "ledger   no files"
    else:
        yield (
            f"ledger   files {summary.first_sequence} to {summary.last_sequence}, "
            f"head {summary.head_sequence} {summary.head_hash}"
        )
    if summary.verified_before:
        yield (
            f"before   files 1 to {summary.verified_before} were compared by earlier runs; of "
            "them only some are compared again here"
        )
    yield (
        f"files    {summary.files_expected} expected, {summary.files_found} found, "
        f"{summary.files_matched} matched"
    )
    yield (
        f"events   {summary.events_expected} expected, {summary.events_found} found, "
        f"{summary.events_matched} matched"
        + ("" if summary.level == "events" else " (by their files)")
    )
    yield (
        f"objects  {summary.objects_listed} listed, {summary.verification_objects} of them "
        f"connection tests, {summary.bytes_read} bytes read"
    )
    if summary.listing:
        yield f"listed   by {summary.listing}; what it lacks was asked for"


def _before(summary: Summary) -> str:
    return (
        f"before   {summary.differences} differences, {summary.files_matched} files matched, "
        f"{summary.events_matched} events matched; {summary.repaired} findings put right since"
    )


def _pattern(pattern: Pattern, *, views: bool) -> Iterator[str]:
    delay = pattern.delay
    if delay is not None:
        yield (
            f"delay    50 % within {seconds(delay.p50)}, 95 % {seconds(delay.p95)}, "
            f"99 % {seconds(delay.p99)}, worst {seconds(delay.worst)}"
        )
    differing = [sort for sort in pattern.sorts if sort.tally.differs]
    if not differing and not pattern.differing:
        return
    yield "by type and outcome, where they differ: expected, found, matched"
    for sort in differing:
        yield f"  {_sort(sort)}"
    yield f"by hour of {time_of(views=views)} (UTC), where they differ"
    for sort in pattern.differing[:_SHOWN_HOURS]:
        yield f"  {moment(sort.start or 0)}  {_sort(sort)}"
    more = len(pattern.differing) - _SHOWN_HOURS + pattern.differing_left_out
    if more > 0:
        yield f"  and {more} more"


def _sort(sort: Sort) -> str:
    tally = sort.tally
    return f"{kind_name(sort)}: {tally.expected}, {tally.found}, {tally.matched}"


def time_of(*, views: bool) -> str:
    """By what events are counted: two views have only the ids in common, which hold a time."""
    return "the event's id" if views else "recording"


def kind_name(sort: Sort) -> str:
    """Type and outcome in words."""
    return f"{sort.type or '(no type)'} {sort.outcome or '(no outcome)'}"


def moment(seconds_since_epoch: int) -> str:
    """A moment in UTC, to the minute."""
    return f"{datetime.fromtimestamp(seconds_since_epoch, UTC):%Y-%m-%d %H:%M}"


def seconds(milliseconds: int) -> str:
    """How long, in the unit that suits."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    for below, unit, name in _UNITS:
        if milliseconds < below:
            return f"{milliseconds / unit:.1f} {name}"
    return f"{milliseconds / 86_400_000:.1f} days"


def _place(finding: Finding) -> str:
    parts = []
    if finding.sequence is not None:
        parts.append(f"file {finding.sequence}")
    if finding.object_key is not None:
        parts.append(finding.object_key)
    if finding.event_id is not None:
        parts.append(f"event {finding.event_id}")
    if finding.type is not None:
        parts.append(f"{finding.type} {finding.outcome or ''}".strip())
    if finding.lead_id is not None:
        parts.append(f"lead {finding.lead_id}")
    if finding.position is not None:
        parts.append(f"position {finding.position}")
    return ", ".join(parts) or "stream"
