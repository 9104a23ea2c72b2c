"""Fixtures: an S3 server, Azurite, and a place on each kind of store."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditstore.destinations import Destination
from auditstore.objects import ObjectStore
from support.azurite import Azurite, running_azurite
from support.fault_proxy import FaultProxy, running_fault_proxy
from support.stores import (
    S3_SECRET,
    Place,
    make_bucket,
    make_container,
    running_moto,
    unique_name,
)
from support.strict_s3 import StrictS3, running_strict_s3


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The endpoint URL of an S3 server; tests make buckets of their own on it."""
    with running_moto() as url:
        yield url


@pytest.fixture(scope="session")
def strict_s3() -> Iterator[StrictS3]:
    """An S3 server that checks keys and policies; tests make users and buckets of their own."""
    with running_strict_s3() as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Azurite]:
    """Azurite's blob service; tests make containers of their own on it."""
    with running_azurite() as azurite:
        yield azurite


@pytest.fixture(scope="session")
def azurite(azurite_server: Azurite) -> str:
    """The connection string of Azurite's blob service."""
    return azurite_server.connection_string


@pytest.fixture
def folder_place(tmp_path: Path) -> Place:
    """A folder that is not there yet, below one that is."""
    return Place(
        kind="file",
        destination=Destination("file", str(tmp_path / "store")),
        secret=None,
        missing=Destination("file", str(tmp_path / "absent" / "store")),
        missing_code="NoSuchFolder",
    )


@pytest.fixture
def s3_place(moto_server: str) -> Place:
    """An empty bucket."""
    return Place(
        kind="s3",
        destination=Destination("s3", make_bucket(moto_server), "some/prefix", moto_server),
        secret=S3_SECRET,
        missing=Destination("s3", unique_name("absent"), "", moto_server),
        missing_code="NoSuchBucket",
    )


@pytest.fixture
def azure_place(azurite_server: Azurite) -> Place:
    """An empty container."""
    return Place(
        kind="azure",
        destination=Destination("azure", make_container(azurite_server), "some/prefix"),
        secret={"connection_string": azurite_server.connection_string},
        missing=Destination("azure", unique_name("absent")),
        missing_code="ContainerNotFound",
    )


@pytest.fixture(params=["folder", "s3", "azure"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of store in turn; only the servers that are needed are started."""
    found = request.getfixturevalue(f"{request.param}_place")
    assert isinstance(found, Place)
    return found


@pytest.fixture
def store(place: Place) -> Iterator[ObjectStore]:
    """A store on an empty place of each kind in turn."""
    opened = place.open()
    yield opened
    opened.close()


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A loopback port on which nothing answers: bound, never listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


@pytest.fixture
def s3_proxy(moto_server: str) -> Iterator[FaultProxy]:
    """A proxy of the test's own in front of the S3 server."""
    with running_fault_proxy(moto_server, "s3") as proxy:
        yield proxy


@pytest.fixture
def azure_proxy(azurite_server: Azurite) -> Iterator[FaultProxy]:
    """A proxy of the test's own in front of Azurite."""
    with running_fault_proxy(azurite_server.account_url, "azure") as proxy:
        yield proxy
