"""Everything a store and the way to it can do wrong, on several streams at once.

Meanwhile each stream says what is wrong and what to do; nobody touches it, and when the cause
is gone it goes on by itself, with each event in the bucket once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.eventually import eventually
from support.fault_proxy import Fault, FaultProxy, Rule
from support.fault_run import FaultRun
from support.store_faults import (
    COURSES,
    PATIENCE_S,
    TROUBLES,
    await_state,
    look,
    part_of,
    run_behind,
)

from auditstore.streams import Limits, Stream


@pytest.mark.parametrize("kind", ["s3", pytest.param("azure", marks=pytest.mark.long)])
def test_every_trouble_is_told_and_lived_through(
    kind: str, database_url: str, request: pytest.FixtureRequest
) -> None:
    """Retrying or blocked with cause and hint in plain words, delivered once afterwards."""
    place, proxy = (request.getfixturevalue(f"{kind}_{what}") for what in ("place", "proxy"))
    assert sorted(name for course in COURSES for name in course) == sorted(TROUBLES[kind])
    run = run_behind(
        proxy, database_url, place, pace=0.3,
        flows=(*(f"flow-{number}" for number in range(len(COURSES))), "healthy"),
        limits=Limits(max_events=60, max_bytes=200_000, max_delay=0.4),
    )  # fmt: skip
    *troubled, healthy = run.streams
    # Success that loses its headers on the way is success.
    clipped = proxy.inject(Fault(answer="clipped"), key=part_of(healthy))
    with run.running(within=PATIENCE_S):
        run.progress(events=100, within=PATIENCE_S)
        delivered = look(run, healthy).delivered_sequence
        with ThreadPoolExecutor(len(COURSES)) as threads:
            courses = [
                threads.submit(_go_through, run, proxy, stream, course)
                for stream, course in zip(troubled, COURSES, strict=True)
            ]
            for course in courses:
                course.result()
        # They never held up the one that is in order.
        eventually(
            lambda: look(run, healthy).delivered_sequence > delivered + 3,
            within=PATIENCE_S, what="the healthy stream goes on",
        )  # fmt: skip
        proxy.lift_all()
        run.recovered(within=PATIENCE_S)
        for stream in troubled:
            status = await_state(run, stream, "streaming", None, "")
            assert (status.cause, status.hint, status.attempts) == (None, None, 0)
    assert clipped.hits
    run.check()


def _go_through(run: FaultRun, proxy: FaultProxy, stream: Stream, course: tuple[str, ...]) -> None:
    """One trouble after the other; the last one stays."""
    before: list[Rule] = []
    for name in course:
        trouble = TROUBLES[proxy.dialect][name]
        rules = trouble.begin(proxy, part_of(stream))
        for rule in before:
            rule.lift()
        eventually(lambda met=rules: all(rule.hits for rule in met), within=PATIENCE_S, what=name)
        status = await_state(run, stream, trouble.state, trouble.code, trouble.says)
        assert trouble.hint in str(status.hint), (name, status)
        assert status.next_try_at is not None
        run.injected(name)
        before = rules
