"""An hour without the store, in scaled time: a second here is ten minutes there.

What the exporter waits between its tries is scaled with it, and the client's own tries are left
out, since their pauses cannot be. What servers and machine take for their work is not scaled: to
drain the backlog is measured in real seconds.
"""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from support.fault_proxy import Fault
from support.fault_run import FaultRun
from support.store_faults import PATIENCE_S, await_state, look, run_behind

from auditstore.streams import Limits
from exporters import worker

pytestmark = pytest.mark.long

SCALE = 600.0
HOUR_S = 3600 / SCALE
SCALED = {
    "exporters.worker._FIRST_RETRY": worker._FIRST_RETRY / SCALE,
    "exporters.worker._LONGEST_RETRY": worker._LONGEST_RETRY / SCALE,
    "exporters.worker._BLOCKED_RETRY": worker._BLOCKED_RETRY / SCALE,
    "exporters.stores.s3_session.ATTEMPTS": 1,
    "exporters.stores.azure_client.ATTEMPTS": 1,
}
# Full jitter up to a minute: half a minute on average, and so 120 tries in an hour.
MOST_TRIES = 180
LEAST_TRIES = 12


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_an_hour_without_the_store(
    kind: str, database_url: str, request: pytest.FixtureRequest
) -> None:
    """Asked again about every half minute, never more seldom than each; then all is delivered."""
    place, proxy = (request.getfixturevalue(f"{kind}_{what}") for what in ("place", "proxy"))
    run = run_behind(
        proxy, database_url, place, constants=SCALED, pace=0.1,
        limits=Limits(max_events=400, max_bytes=1_000_000, max_delay=0.2),
    )  # fmt: skip
    first = run.streams[0]
    with run.running():
        run.progress()
        before = run.writers.events
        # A quarter of an hour it is overloaded, then it is gone.
        busy = proxy.inject(Fault(503, "SlowDown" if kind == "s3" else "ServerBusy"))
        run.injected("hour without the store")
        began = time.monotonic()
        await_state(run, first, "retrying", "store-unavailable", "cannot take requests just now")
        _watch(run, until=began + HOUR_S / 4)
        proxy.go_away()
        busy.lift()
        await_state(run, first, "retrying", "store-unavailable", "cannot be reached")
        _watch(run, until=began + HOUR_S)
        scaled_hours = (time.monotonic() - began) / HOUR_S
        sealed = look(run, first)
        tries = sealed.status.attempts
        assert LEAST_TRIES <= tries <= MOST_TRIES * scaled_hours, tries
        # Writers never noticed, and one file waits, not a heap of them.
        backlog = run.writers.events - before
        assert backlog > 100
        assert sealed.sealed_sequence == sealed.delivered_sequence + 1

        proxy.come_back()
        took = run.recovered(within=PATIENCE_S)
        await_state(run, first, "streaming", None, "")
    run.check(
        f"{tries} tries of a stream in {60 * scaled_hours:.0f} scaled minutes; a backlog of about"
        f" {backlog} events, drained at {backlog / took:.0f} events/s"
    )


def _watch(run: FaultRun, *, until: float) -> None:
    """The next try is never further away than the longest wait."""
    longest = SCALED["exporters.worker._LONGEST_RETRY"]
    while time.monotonic() < until:
        with run.engine.connect() as connection:
            away = connection.execute(
                sa.text(
                    "SELECT extract(epoch FROM max(next_try_at - clock_timestamp()))"
                    " FROM auditstore.streams"
                )
            ).scalar_one()
        assert away is None or away <= longest, away
        time.sleep(0.02)
