"""Intake against an independent judge and PostgreSQL: all that fuzzing found, again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from security.fuzz_intake import CORPUS, snapshots
from support.fixtures_postgres import Database
from support.intake_judge import check_snapshot
from support.sample_events import snapshot as sample

from auditstore import EventRepository
from auditstore.errors import EventRefused
from auditstore.events import MAX_DEPTH, MAX_LENIENT_DEPTH

KEPT = sorted(CORPUS.iterdir())


@pytest.fixture
def connection(database_any: Database) -> Iterator[sa.Connection]:
    """A connection to a fresh database of each version."""
    engine = sa.create_engine(database_any.url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_the_corpus_is_judged_as_it_was(connection: sa.Connection) -> None:
    """Each kept snapshot gets the verdict in its name, from us, from `json`, from the server."""
    assert len(KEPT) >= 50
    for path in KEPT:
        for beside in (0, 2):
            verdict = check_snapshot(connection, path.read_bytes(), beside=beside)
            said = f"refused-{verdict.field}" if verdict.field else "taken"
            assert path.name.rpartition("-")[0] == said, path


def test_new_snapshots_are_judged_alike(connection: sa.Connection) -> None:
    """A short round of the fuzzer, with a seed that hypothesis prints if it finds something."""

    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(snapshots)
    def judged(payload: bytes) -> None:
        check_snapshot(connection, payload)

    judged()


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_nesting_ends_where_it_is_documented(
    connection: sa.Connection, open_: str, close: str
) -> None:
    """1,024 levels, whatever Python this is; 500 beside what only the second parser takes."""

    def nested(levels: int, odd: str = "1") -> bytes:
        inner = open_ * (levels - 1) + odd + close * (levels - 1)
        return b'{"id":"%024x","vars":{"flow":{"id":"f"}},"x":%s}' % (levels, inner.encode())

    repository = EventRepository()
    with connection.begin():
        for levels, odd in ((MAX_DEPTH, "1"), (MAX_LENIENT_DEPTH, '"\\ud800"'), (3, "1e999")):
            taken = nested(levels, odd)
            assert repository.append(connection, taken).appended == 1
            (kept,) = repository.get(connection, f"{levels:024x}")
            assert kept.event.payload == taken
        for levels, odd in (
            (MAX_DEPTH + 1, "1"), (MAX_LENIENT_DEPTH + 1, '"\\ud800"'), (200_000, "1"),
        ):  # fmt: skip
            with pytest.raises(EventRefused, match="nested too deeply") as error:
                repository.append(connection, nested(levels, odd))
            assert error.value.field == "payload"


def test_an_event_over_the_limit_is_refused_and_one_at_it_comes_back(
    connection: sa.Connection,
) -> None:
    """16 MiB to the byte, through the server; one byte more names the sizes, nothing is kept."""
    limit = 16 * 1024 * 1024
    frame = b'{"id":"%024x","vars":{"flow":{"id":"f"}},"x":"%s"}' % (1, b"")
    whole = frame[:-2] + b"x" * (limit - len(frame)) + frame[-2:]
    with connection.begin():
        repository = EventRepository()
        with pytest.raises(EventRefused, match=f"{limit + 1} bytes, over the limit of {limit}"):
            repository.append(connection, [sample(1), whole + b" ", sample(2)])
        assert repository.find(connection) == []
        assert repository.append(connection, whole).appended == 1
        assert repository.find(connection)[0].event.payload == whole
