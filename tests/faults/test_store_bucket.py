"""A bucket that is deleted with all that is in it, and made again."""

from __future__ import annotations

from contextlib import suppress

import boto3
import orjson
import pytest
import sqlalchemy as sa
from azure.storage.blob import ContainerClient
from botocore.exceptions import ClientError
from support.commands import CommandLine
from support.eventually import eventually
from support.fault_proxy import Fault
from support.fault_run import FaultRun
from support.store_faults import PATIENCE_S, await_state, run_behind
from support.stores import Place
from support.through_proxy import behind

pytestmark = pytest.mark.long


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_bucket_deleted_and_made_again(
    kind: str, database_url: str, request: pytest.FixtureRequest
) -> None:
    """Blocked while it is gone, then on by itself; reconciling tells what is lost, and mends it."""
    place, proxy = (request.getfixturevalue(f"{kind}_{what}") for what in ("place", "proxy"))
    run = run_behind(proxy, database_url, place, pace=0.3)
    with run.running(within=PATIENCE_S):
        run.progress(events=100)
        eventually(lambda: _deleted(place), within=PATIENCE_S, what="the bucket is deleted")
        run.injected("bucket deleted")
        for stream in run.streams:
            status = await_state(run, stream, "blocked", place.missing_code, "is not there")
            assert "Create the" in str(status.hint)
        _make(place)
        run.recovered(within=PATIENCE_S)
        for stream in run.streams:
            await_state(run, stream, "streaming", None, "")

    lost = _lost(run)
    assert lost
    cli = CommandLine({"AUDITSTORE_DATABASE_URL": database_url, **_secret(behind(proxy, place))})
    cut = proxy.inject(Fault(answer="half"), method="GET", key="list-type=2|comp=list")
    cli.run("reconcile", code=2)
    assert cut.hits
    assert "missing" not in cli.printed[-1], "a listing that broke off is no proof of a loss"
    cut.lift()
    told = cli.run("reconcile", "--format", "json", code=1).stdout
    findings = orjson.loads(told)["findings"]
    missing = [finding["object_key"] for finding in findings if finding["kind"] == "missing-file"]
    assert sorted(missing) == sorted(lost)
    cli.run("reconcile", "--level", "events", "--repair", code=0)
    assert not _lost(run)
    run.check(f"{len(lost)} files put back")


def _lost(run: FaultRun) -> set[str]:
    """The keys of what was delivered and is not in the bucket."""
    with run.engine.connect() as connection:
        delivered = connection.execute(
            sa.text("SELECT object_key FROM auditstore.files WHERE delivered_at IS NOT NULL")
        ).scalars()
        keys = set(delivered)
    for stream in run.streams:
        store = run.open_store(stream)
        keys -= {info.key for info in store.list(f"{stream.destination.prefix}/")}
        store.close()
    return keys


# --- the bucket itself --------------------------------------------------------------


def _deleted(place: Place) -> bool:
    """Delete it with all that is in it; false where another file came meanwhile."""
    if place.kind == "azure":
        with _container(place) as container:
            container.delete_container()
        return True
    bucket = _bucket(place)
    with suppress(ClientError):
        bucket.object_versions.delete()
        bucket.delete()
        return True
    return False


def _make(place: Place) -> None:
    if place.kind == "azure":
        with _container(place) as container:
            container.create_container()
    else:
        _bucket(place).create()


def _container(place: Place) -> ContainerClient:
    secret = place.secret or {}
    return ContainerClient.from_connection_string(
        secret["connection_string"], place.destination.bucket
    )


def _bucket(place: Place):  # type: ignore[no-untyped-def]  # boto3 makes its classes at run time
    secret = _secret(place)
    return boto3.resource(
        "s3", endpoint_url=place.destination.endpoint_url, region_name="us-east-1",
        aws_access_key_id=secret["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret["AWS_SECRET_ACCESS_KEY"],
    ).Bucket(place.destination.bucket)  # fmt: skip


def _secret(place: Place) -> dict[str, str]:
    """The place's secret as the cloud's own tools find it in the environment."""
    secret = place.secret or {}
    if place.kind == "azure":
        return {"AZURE_STORAGE_CONNECTION_STRING": secret["connection_string"]}
    return {
        "AWS_ACCESS_KEY_ID": secret["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": secret["secret_access_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
