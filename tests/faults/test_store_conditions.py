"""Somebody else's object under our key, on servers with and without create-only writes."""

from __future__ import annotations

import boto3
import pytest
import sqlalchemy as sa
from support.eventually import eventually
from support.fault_proxy import Fault, FaultProxy
from support.fault_run import FaultRun
from support.store_faults import await_state, look, part_of, run_behind
from support.stores import Place, read_all
from support.vandal import Vandal

from auditstore import streams
from auditstore.streams import Stream

pytestmark = pytest.mark.long

FOREIGN = b"somebody else's"
CONDITION = "if-none-match"
# Enough for a file or two a second and stream.
PACE = 0.3


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_foreign_object_halts_its_stream_alone(
    kind: str, database_url: str, request: pytest.FixtureRequest
) -> None:
    """Never overwritten, however often it is asked for; delivered once when it is moved away."""
    place, proxy = (request.getfixturevalue(f"{kind}_{what}") for what in ("place", "proxy"))
    run = run_behind(proxy, database_url, place, pace=PACE)
    with run.running():
        run.progress()
        _meet_a_foreign_object(run, proxy, place)
    run.check()


def test_a_server_that_ignores_conditions(
    database_url: str, s3_place: Place, s3_proxy: FaultProxy
) -> None:
    """It is looked at before each write, and so what somebody else wrote stays."""
    ignoring = s3_proxy.inject(Fault(without=CONDITION), having=CONDITION)
    run = run_behind(s3_proxy, database_url, s3_place, pace=PACE)
    with run.running():
        run.progress()
        assert ignoring.hits == 2, "the conditions were tried on the verification file alone"
        _meet_a_foreign_object(run, s3_proxy, s3_place)
    run.check()


def test_a_server_that_comes_to_refuse_conditions(
    database_url: str, s3_place: Place, s3_proxy: FaultProxy
) -> None:
    """Exchanged for one that answers 501, before a restart of the exporter and after it."""
    run = run_behind(s3_proxy, database_url, s3_place, pace=PACE)
    with run.running():
        run.progress()
        refusing = s3_proxy.inject(Fault(501, "NotImplemented"), method="PUT", having=CONDITION)
        run.injected("501")
        run.progress()
        assert refusing.hits
        _meet_a_foreign_object(run, s3_proxy, s3_place)
        known = refusing.hits
        assert run.exporters[0].stop() == 0
        run.exporters[0].start()
        run.progress()
        assert refusing.hits > known
        _meet_a_foreign_object(run, s3_proxy, s3_place)
        # Neither was shown as trouble that an operator would have to look into.
        assert "NotImplemented" not in run.exporters[0].logged()
    run.check()


def _meet_a_foreign_object(run: FaultRun, proxy: FaultProxy, place: Place) -> None:
    """Somebody takes the key of the first stream's next file; the other stream goes on."""
    stream, other = run.streams
    held_up = proxy.inject(Fault(503, "SlowDown"), key=part_of(stream))
    key = eventually(lambda: _sealed_key(run, stream), within=60, what="a file that waits")
    Vandal(place).write(key, FOREIGN)
    held_up.lift()
    run.injected("foreign object")
    status = await_state(run, stream, "halted", "object-conflict", key)
    assert "Move it away" in str(status.hint)
    assert f"auditstore stream resume {stream.stream_id}" in str(status.hint)
    assert status.next_try_at is None

    tried = len(proxy.tried("PUT", key))
    delivered = look(run, other).delivered_sequence
    eventually(lambda: look(run, other).delivered_sequence > delivered + 3, within=60)
    assert len(proxy.tried("PUT", key)) == tried, "it was tried again unasked"
    _resume(run, stream)
    await_state(run, stream, "halted", "object-conflict", key)
    store = run.open_store(stream)
    assert read_all(store, key) == FOREIGN
    store.close()

    _move_away(place, key)
    _resume(run, stream)
    run.recovered(within=60)
    await_state(run, stream, "streaming", None, "")


def _sealed_key(run: FaultRun, stream: Stream) -> str | None:
    with run.engine.connect() as connection:
        found = connection.execute(
            sa.text(
                "SELECT f.object_key FROM auditstore.files f JOIN auditstore.streams USING"
                " (stream_id) WHERE stream_id = :stream AND delivered_at IS NULL"
                " AND state = 'retrying'"
            ),
            {"stream": stream.stream_id},
        ).scalar_one_or_none()
    return None if found is None else str(found)


def _resume(run: FaultRun, stream: Stream) -> None:
    with run.engine.begin() as connection:
        streams.resume(connection, stream.stream_id, actor="test")
    eventually(lambda: look(run, stream).status.since > stream.status.since, within=60)


def _move_away(place: Place, key: str) -> None:
    if place.kind != "s3":
        Vandal(place).delete(key)
        return
    # With its only version: a bucket with versions would keep it.
    secret = place.secret or {}
    bucket = boto3.resource(
        "s3", endpoint_url=place.destination.endpoint_url, region_name="us-east-1",
        aws_access_key_id=secret["access_key_id"],
        aws_secret_access_key=secret["secret_access_key"],
    ).Bucket(place.destination.bucket)  # fmt: skip
    versions = list(bucket.object_versions.filter(Prefix=key))
    assert len(versions) == 1, "the foreign object was overwritten"
    versions[0].delete()
    bucket.meta.client.close()
