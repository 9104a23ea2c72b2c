"""One stream's trouble is its own: stores that hang or refuse do not delay the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.eventually import eventually
from support.memory_store import DENIED, UNAVAILABLE
from support.site import QUICK, Site

from auditstore import streams


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    """A fresh database, no stream and no daemon yet."""
    made = Site(database_url)
    yield made
    made.close()


def test_broken_stores_do_not_delay_another_stream(site: Site) -> None:
    """A store that hangs and one that denies; a third stream keeps its bound of delay + 1 s."""
    hanging, denied, healthy = site.add(), site.add(), site.add(max_delay=2.0)
    site.stores[hanging].open.clear()
    site.stores[denied].trouble = DENIED
    site.start()
    site.append(hanging, 5)
    site.append(denied, 5)
    eventually(lambda: site.stores[hanging].hanging)
    eventually(lambda: site.stream(denied).status.state == "blocked")
    for _ in range(2):
        site.append(healthy, 3)
        assert site.wait(healthy) < 2.0 + 1.0
    assert site.stores[hanging].hanging == 1

    site.stores[hanging].open.set()
    site.stores[denied].trouble = None
    site.change(streams.resume, denied)
    site.wait()
    site.check()


@pytest.mark.parametrize("bucket", [None, "shared"])
def test_many_stores_that_hang_at_once(site: Site, bucket: str | None) -> None:
    """Twice as many as there are workers hang, apart or in one bucket, and hang again when
    tried again; healthy streams keep their bound all the while.
    """
    broken = [site.add(bucket=bucket) for _ in range(2 * QUICK.lanes.workers)]
    healthy = [site.add(max_delay=1.0) for _ in range(2)]
    for stream_id in broken:
        site.stores[stream_id].open.clear()
    site.start()
    for stream_id in broken:
        site.append(stream_id)
    eventually(lambda: sum(site.stores[each].hanging for each in broken) >= QUICK.lanes.workers)
    for _ in range(2):
        for stream_id in healthy:
            site.append(stream_id, 3)
        assert site.wait(*healthy) < 1.0 + 1.0
        # As a client's time limit does it, all at once.
        for stream_id in broken:
            site.stores[stream_id].trouble = UNAVAILABLE
            site.stores[stream_id].open.set()
        eventually(lambda: all(site.stream(each).status.attempts for each in broken))
        for stream_id in broken:
            site.stores[stream_id].trouble = None
            site.stores[stream_id].open.clear()
            site.change(streams.resume, stream_id)
        eventually(lambda: sum(site.stores[each].hanging for each in broken) > 3)
    for stream_id in broken:
        site.stores[stream_id].open.set()
    site.wait()
    site.check()
