"""What the page shows, put in its order; the template only writes it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from auditstore.reconciliation.findings import Kind
from auditstore.reconciliation.html import charts
from auditstore.reconciliation.html.charts import Chart
from auditstore.reconciliation.html.wording import number, words
from auditstore.reconciliation.patterns import Pattern
from auditstore.reconciliation.replay import pattern
from auditstore.reconciliation.report_text import seconds, time_of

_VERDICTS: Final = {
    "reconciled": ("ok", "\u2713", "Everything is there, exactly as it was recorded."),
    "differences": ("bad", "\u2260", "Differences were found. They are listed below."),
    "not compared": ("bad", "?", "Not everything could be compared. What was found is below."),
}
_MEANINGS: Final = {
    Kind.MISSING_FILE: "A file that was delivered is gone.",
    Kind.CHANGED_FILE: "A file holds something other than what was delivered.",
    Kind.UNKNOWN_FILE: "An object that nobody delivered.",
    Kind.MISSING_EVENT: "An event of the outbox is not where it should be.",
    Kind.CHANGED_EVENT: "An event is there with other content.",
    Kind.DUPLICATE_EVENT: "An event is there more than once.",
    Kind.UNKNOWN_EVENT: "An event that the outbox does not know, or not here.",
    Kind.UNREADABLE_LINE: "A line that is no event.",
    Kind.OUTBOX_DIFFERS: "The outbox is not what was sealed.",
    Kind.BROKEN_CHAIN: "The ledger is not what it was.",
    Kind.OVERDUE: "Not delivered in time.",
    Kind.NOT_YET_DUE: "Not delivered yet, and still within its time.",
    Kind.MISSING_LATE_EVENT: "A late event, such as feedback, is not where its lead is.",
    Kind.REWRITTEN: "Other bytes, the same content.",
    Kind.NOT_COVERED: "Outside of what the stream covered.",
    Kind.PAST_RETENTION: "Older than what LeadConduit keeps.",
    Kind.RECOMPRESSED: "Other stored bytes, the same content.",
}


# Told only where there are any.
_RARE: Final = frozenset({"repaired", "planned", "events_rewritten"})


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table of figures: one value a round."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The findings of one kind in one round."""

    kind: str
    title: str
    meaning: str
    is_difference: bool
    count: int
    findings: tuple[Mapping[str, Any], ...]

    @property
    def left_out(self) -> int:
        """How many are counted and not shown."""
        return self.count - len(self.findings)


@dataclass(frozen=True, slots=True)
class Round:
    """The findings of one comparison, by kind."""

    number: int
    groups: tuple[Group, ...]


class Section:
    """One stream, or the sum of all: figures, charts, and a stream's findings."""

    def __init__(self, rounds: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> None:
        self.rounds = rounds
        self.last = rounds[-1]
        self._values = values
        self.pattern: Pattern | None = pattern(self.last["pattern"])

    @property
    def title(self) -> str:
        """Which stream, or which two views."""
        return self.last["views"] or f"Stream {self.last['stream_id']}"

    @property
    def verdict(self) -> tuple[str, str, str]:
        """Class, sign and words for how it stands."""
        return _VERDICTS[self.last["result"]]

    @property
    def columns(self) -> tuple[str, ...]:
        """What each value of a figure is of."""
        names = ("Before the repair", "After the repair")
        return ("Figure", "Count") if len(self.rounds) == 1 else ("Figure", *names)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Expected, found and matched, and what was read for it."""
        names = (
            ("Files expected", "files_expected"), ("Files found", "files_found"),
            ("Files matched", "files_matched"), ("Events expected", "events_expected"),
            ("Events found", "events_found"), ("Events matched", "events_matched"),
            ("Differences", "differences"), ("Put back", "repaired"),
            ("Would be put back", "planned"), ("Spelled otherwise", "events_rewritten"),
            ("Objects listed", "objects_listed"),
            ("Connection tests among them", "verification_objects"), ("Bytes read", "bytes_read"),
        )  # fmt: skip
        return tuple(
            Figure(title, tuple(number(each[name]) for each in self.rounds))
            for title, name in names
            if name not in _RARE or any(each[name] for each in self.rounds)
        )

    @property
    def charts(self) -> tuple[Chart, ...]:
        """By time, and the delays; none where nothing was counted."""
        if self.pattern is None:
            return ()
        found = [charts.over_time(self.pattern, by=time_of(views=bool(self._values["views"])))]
        if self.pattern.delay is not None:
            found.append(charts.of_delays(self.pattern.delay))
        return tuple(chart for chart in found if chart is not None)

    @property
    def widest(self) -> int:
        """The largest count of a type and outcome: what the bars are drawn against."""
        sorts = () if self.pattern is None else self.pattern.sorts
        return max((max(each.tally.expected, each.tally.found) for each in sorts), default=1) or 1

    @property
    def findings(self) -> tuple[Round, ...]:
        """By round and kind, those that there are."""
        return tuple(
            Round(each["round"], groups) for each in self.rounds if (groups := self._groups(each))
        )

    def _groups(self, stream: Mapping[str, Any]) -> tuple[Group, ...]:
        of_round = [
            finding
            for finding in self._values["findings"]
            if finding["comparison"] == stream["comparison"]
        ]
        return tuple(
            Group(
                kind, words(kind), _meaning(kind), _is_difference(kind), count,
                tuple(each for each in of_round if each["kind"] == kind),
            )
            for kind, count in sorted(stream["counts"].items(), key=_order)
            if count
        )  # fmt: skip


class Page:
    """The whole report."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.verdict = _VERDICTS[values["result"]]
        self.total = Section(values["totals"], values)
        comparisons: list[list[Mapping[str, Any]]] = []
        for each in values["streams"]:
            if each["round"] == 1:
                comparisons.append([])
            comparisons[-1].append(each)
        self.streams = tuple(Section(rounds, values) for rounds in comparisons)

    @property
    def tiles(self) -> tuple[tuple[str, str, str, str], ...]:
        """The figures that are read first: title, value, what it is out of, class."""
        last = self.total.last
        found = [
            _share("Events matched", last["events_matched"], last["events_expected"]),
            _share("Files matched", last["files_matched"], last["files_expected"]),
            ("Differences", number(last["differences"]), _plural(last["streams"], "stream"),
             "bad" if last["differences"] else "ok"),
        ]  # fmt: skip
        before = self.total.rounds[0]
        if before["repaired"]:
            found.append(("Put back", number(before["repaired"]), "see before and after", "ok"))
        elif before["planned"]:
            found.append(("Would be put back", number(before["planned"]), "dry run", "warn"))
        elif self.total.pattern is not None and self.total.pattern.delay is not None:
            worst = seconds(self.total.pattern.delay.p95)
            found.append(("Delivered within", worst, "95 % of the events", ""))
        return tuple(found)


def _share(title: str, matched: int, expected: int) -> tuple[str, str, str, str]:
    state = "ok" if matched == expected else "bad"
    return (title, number(matched), f"of {number(expected)} expected", state)


def _plural(count: int, noun: str) -> str:
    return f"in {number(count)} {noun}" + ("" if count == 1 else "s")


def _order(item: tuple[str, int]) -> int:
    # The values' own order is lost where they were kept. What another version found comes last.
    known = list(Kind)
    return known.index(Kind(item[0])) if item[0] in known else len(known)


def _meaning(kind: str) -> str:
    return _MEANINGS.get(Kind(kind), "") if kind in list(Kind) else ""


def _is_difference(kind: str) -> bool:
    return kind not in list(Kind) or Kind(kind).is_difference
