"""Counts by hour, type and outcome on both sides, and the delays of delivery."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.ledger_builder import Scene
from support.stores import Place

from auditstore.reconciliation import Scope, patterns, tallies
from auditstore.reconciliation.comparison import compare_stream
from auditstore.reconciliation.patterns import Pattern, Period, Sort, Tally

MORNING = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@pytest.fixture
def scene(engine: sa.Engine, folder_place: Place) -> Scene:
    """A scene in a folder."""
    return Scene(engine, folder_place)


def pattern_of(scene: Scene, stream: int, *, level: Any = "events") -> Pattern:
    """The pattern of one comparison."""
    summary = compare_stream(
        scene.engine, stream, scene.place.open, Scope(level), report=lambda _: None, pattern=True
    )
    assert summary.pattern is not None
    return summary.pattern


def delivered(scene: Scene, **settings: Any) -> int:
    """A stream of two hours with four events each, a file an hour."""
    stream = scene.stream(max_events=4, **settings)
    for hour in (0, 1):
        scene.append(4, at=MORNING + timedelta(hours=hour))
    scene.deliver(stream)
    return stream


def hours(pattern: Pattern) -> list[tuple[int, int, int]]:
    """The tallies by hour."""
    return [(each.tally.expected, each.tally.found, each.tally.matched) for each in pattern.periods]


@pytest.mark.parametrize("level", ["files", "events"])
@pytest.mark.parametrize("layout", ["ndjson.gz", "json"])
def test_all_is_well(scene: Scene, level: str, layout: str) -> None:
    """Each hour and kind has as many found and matched as expected, in both layouts."""
    pattern = pattern_of(scene, delivered(scene, format=layout), level=level)

    assert hours(pattern) == [(4, 4, 4), (4, 4, 4)]
    assert [each.start for each in pattern.periods] == [
        int(datetime(2026, 3, 1, hour, tzinfo=UTC).timestamp()) for hour in (8, 9)
    ]
    (sort,) = pattern.sorts
    assert sort == Sort("recipient", "success", Tally(8, 8, 8))
    assert pattern.differing == ()


@pytest.mark.parametrize("level", ["files", "events"])
@pytest.mark.parametrize("layout", ["ndjson.gz", "json"])
def test_a_missing_hour_shows(scene: Scene, level: str, layout: str) -> None:
    """What is gone is expected in its hour and neither found nor matched."""
    stream = delivered(scene, format=layout)
    with scene.opened() as store:
        keys = sorted(info.key for info in store.list(""))
    if layout == "json":
        # Keys are by lead: those of the second hour are the later events of each.
        with scene.engine.connect() as connection:
            late = set(connection.scalars(
                sa.text("SELECT event_id FROM auditstore.events WHERE position > 4")
            ))  # fmt: skip
        keys = [key for key in keys if key.rpartition("/")[2].removesuffix(".json") in late]
    else:
        keys = [scene.files(stream)[1].sealed.object_key]
    for key in keys:
        scene.vandal.delete(key)

    pattern = pattern_of(scene, stream, level=level)

    assert hours(pattern) == [(4, 4, 4), (4, 0, 0)]
    (hour,) = pattern.differing
    assert (hour.type, hour.outcome, hour.tally) == ("recipient", "success", Tally(4, 0, 0))


def test_damaged_lines_count_as_what_they_say(scene: Scene) -> None:
    """At level events: one line gone, one of another type, one twice, each in its hour and kind."""
    stream = delivered(scene)
    file = scene.files(stream)[0]
    gone, altered, *rest = scene.lines(file)
    fields = json.loads(altered) | {"type": "filter", "outcome": "stop"}
    scene.rewrite(file, [json.dumps(fields).encode(), *rest, rest[0]])

    pattern = pattern_of(scene, stream)

    assert gone not in rest
    assert hours(pattern) == [(4, 4, 2), (4, 4, 4)]
    kinds = {(each.type, each.outcome): each.tally for each in pattern.differing}
    assert kinds == {
        ("filter", "stop"): Tally(0, 1, 0),
        ("recipient", "success"): Tally(4, 3, 2),
    }


def test_sums_are_those_of_the_summary(scene: Scene) -> None:
    """At either level, what the pattern counts is what the summary counts."""
    stream = delivered(scene)
    scene.rewrite(scene.files(stream)[0], scene.lines(scene.files(stream)[0])[:-1])
    for level in ("files", "events"):
        _, summary = scene.compare(stream, level=level)
        total = sum((each.tally for each in pattern_of(scene, stream, level=level).sorts), Tally())
        assert total == Tally(
            summary.events_expected, summary.events_found, summary.events_matched
        ), level


def test_delays(scene: Scene) -> None:
    """Percentiles of recorded to delivered, at most one percent too high; the worst is exact."""
    stream = scene.stream(max_events=200)
    scene.append(200)
    scene.tamper(
        "UPDATE auditstore.events SET recorded_at = CAST(:at AS timestamptz)"
        " - position * interval '100 milliseconds'",
        at=MORNING,
    )
    scene.deliver(stream)
    scene.tamper("UPDATE auditstore.files SET delivered_at = :at", at=MORNING)

    delay = pattern_of(scene, stream).delay

    assert delay is not None
    assert (delay.events, delay.worst) == (200, 20_000)
    for told, exact in ((delay.p50, 10_000), (delay.p95, 19_000), (delay.p99, 19_800)):
        assert exact <= told <= exact * 1.01 + 1


def test_nothing_delivered_has_no_delay(scene: Scene) -> None:
    """A stream without a file has an empty pattern."""
    pattern = pattern_of(scene, scene.stream())
    assert (pattern.periods, pattern.sorts, pattern.delay) == ((), (), None)


def test_long_spans_are_told_by_day_and_month(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More periods than a report may have make the step coarser; hours that differ stay hours."""
    monkeypatch.setattr(tallies, "MOST_PERIODS", 2)
    stream = scene.stream(max_events=2)
    for days in (0, 1, 40):
        scene.append(2, at=MORNING + timedelta(days=days))
    first, _, _ = scene.deliver(stream)
    scene.vandal.delete(first.sealed.object_key)

    pattern = pattern_of(scene, stream)

    assert pattern.step == "month"
    assert [f"{datetime.fromtimestamp(each.start, UTC):%Y-%m-%d}" for each in pattern.periods] == [
        "2026-03-01", "2026-04-01",
    ]  # fmt: skip
    (hour,) = pattern.differing
    assert hour.start == int(MORNING.replace(minute=0).timestamp())


def test_patterns_are_added_up() -> None:
    """Of several streams: counts by the coarsest step, percentiles of all deliveries together."""
    day = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    one = Pattern(
        "hour", (Period(day + 3600, Tally(5, 5, 5)), Period(day + 7200, Tally(1, 0, 0))),
        (Sort("source", "success", Tally(6, 5, 5)),),
        delay=patterns.delay({100: 6}, 90),
    )  # fmt: skip
    other = Pattern(
        "day", (Period(day, Tally(2, 2, 2)),), (Sort("source", "success", Tally(2, 2, 2)),),
        delay=patterns.delay({100: 1, 5000: 1}, 4980),
    )  # fmt: skip

    both = patterns.total([one, other])

    assert both is not None
    assert (both.step, both.periods) == ("day", (Period(day, Tally(8, 7, 7)),))
    assert both.sorts == (Sort("source", "success", Tally(8, 7, 7)),)
    assert both.delay is not None
    assert (both.delay.events, both.delay.p50, both.delay.p99) == (8, 100, 4980)
