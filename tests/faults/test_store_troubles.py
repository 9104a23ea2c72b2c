"""Everything a store and the way to it can do wrong, each to a stream of its own, at once.

Meanwhile each stream says what is wrong and what to do; nobody touches it, and when the cause
is gone it goes on by itself, with each event in the bucket once.
"""

from __future__ import annotations

import pytest
from support.eventually import eventually
from support.fault_proxy import Fault
from support.store_faults import PATIENCE_S, TROUBLES, await_state, look, part_of, run_behind

from auditstore.streams import Limits

HEALTHY = "healthy"


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_every_trouble_is_told_and_lived_through(
    kind: str, database_url: str, request: pytest.FixtureRequest
) -> None:
    """Retrying or blocked with cause and hint in plain words, delivered once afterwards."""
    place, proxy = (request.getfixturevalue(f"{kind}_{what}") for what in ("place", "proxy"))
    troubles = TROUBLES[kind]
    run = run_behind(
        proxy, database_url, place, flows=(*troubles, HEALTHY), pace=0.5,
        limits=Limits(max_events=60, max_bytes=200_000, max_delay=0.4),
    )  # fmt: skip
    of = {stream.flow_id: stream for stream in run.streams}
    # Success that loses its headers on the way is success.
    clipped = proxy.inject(Fault(answer="clipped"), key=part_of(of[HEALTHY]))
    with run.running(within=PATIENCE_S):
        run.progress(events=100, within=PATIENCE_S)
        rules = {
            name: trouble.begin(proxy, part_of(of[name])) for name, trouble in troubles.items()
        }
        for name, trouble in troubles.items():
            status = await_state(run, of[name], trouble.state, trouble.code, trouble.says)
            assert trouble.hint in str(status.hint), (name, status)
            assert status.next_try_at is not None
            run.injected(name)
        for name in troubles:
            assert all(rule.hits for rule in rules[name]), name
        # They never held up the one that is in order.
        delivered = look(run, of[HEALTHY]).delivered_sequence
        eventually(
            lambda: look(run, of[HEALTHY]).delivered_sequence > delivered + 1,
            within=PATIENCE_S, what="the healthy stream goes on",
        )  # fmt: skip
        proxy.lift_all()
        run.recovered(within=PATIENCE_S)
        for name in troubles:
            status = await_state(run, of[name], "streaming", None, "")
            assert (status.cause, status.hint, status.attempts) == (None, None, 0), name
    assert clipped.hits
    run.check()
