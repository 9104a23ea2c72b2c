"""Cron expressions: what is taken, what is refused, and when each stream's turn is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from auditstore.errors import ConfigurationError
from exporters.cron import SPREAD, check_cron, next_run

# A Wednesday.
NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("nonsense", "says"),
    [
        ("nonsense", "1 fields"),
        ("", "0 fields"),
        ("@daily", "1 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("61 * * * *", "59"),
        ("* * * * 8", "no weekday"),
        ("* * * * mon-", "no weekday"),
        ("* * * * mon/", "invalid literal"),
        ("*/0 * * * *", "Increment"),
        ("* * * * */0", "step"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 1 * mon", "both"),
    ],
)
def test_nonsense_is_refused(nonsense: str, says: str) -> None:
    """With what is wrong, and how to write it."""
    with pytest.raises(ConfigurationError, match=says) as error:
        check_cron(nonsense)
    assert error.value.hint


@pytest.mark.parametrize(
    ("given", "kept"),
    [("0  *  * * *", "0 * * * *"), ("OFF", "off"), ("0 3 * * MON", "0 3 * * mon")],
)
def test_how_it_is_kept(given: str, kept: str) -> None:
    """One spelling for each."""
    assert check_cron(given) == kept


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 12 * * 0", [29]),
        ("0 12 * * 7", [29]),
        ("0 12 * * sun", [29]),
        ("0 12 * * 1-5", [25, 26, 27]),
        ("0 12 * * 5-7", [27, 28, 29]),
        ("0 12 * * sat-mon", [28, 29]),
        ("0 12 * * 0,3", [25, 29]),
        ("0 12 * * */3", [25, 28, 29]),
        ("0 12 * * 3/2", [25, 27]),
    ],
)
def test_weekdays_count_from_sunday(expression: str, days: list[int]) -> None:
    """As cron counts them, by number or by name."""
    found, at = [], NOW
    while at.day <= 29 and at.month == 11:
        at = next_run(expression, after=at, stream_id=1, level="files") or NOW
        found.append(at)
    assert [each.day for each in found if each.month == 11][: len(days)] == days
    assert all(each - each.replace(hour=12, minute=0, second=0) < SPREAD for each in found)


def test_a_thousand_streams_are_spread() -> None:
    """They come within the spread, each always at its place, and at most a few in one second."""
    times = [next_run("0 * * * *", after=NOW, stream_id=n, level="files") for n in range(1000)]
    hours = {at.replace(minute=0, second=0) for at in times if at}
    assert hours == {NOW, NOW + timedelta(hours=1)} or hours == {NOW}
    assert all(at and at.minute < 10 for at in times)
    assert max(times.count(at) for at in set(times)) < 12
    for number, at in enumerate(times):
        assert at is not None
        again = next_run("0 * * * *", after=at, stream_id=number, level="files")
        assert again == at + timedelta(hours=1)


def test_what_comes_often_is_spread_less() -> None:
    """No stream's turn moves behind the next time of its expression."""
    for number in range(100):
        at = next_run("* * * * *", after=NOW, stream_id=number, level="files")
        assert at is not None
        assert timedelta(0) < at - NOW <= timedelta(minutes=1)
        assert at.second < 30


def test_off_never_comes() -> None:
    """There is no next run."""
    assert next_run("off", after=NOW, stream_id=1, level="files") is None
