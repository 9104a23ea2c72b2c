"""Fixtures: real PostgreSQL servers, and a freshly migrated database for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from support.postgres import Cluster, installed_versions

VERSIONS = installed_versions()
NEWEST = max(VERSIONS)
TEMPLATE = "auditstore_template"


@dataclass(frozen=True, slots=True)
class Database:
    """One test's own database, with the schema in it."""

    cluster: Cluster
    name: str
    url: str


class Clusters:
    """The session's servers, one a version, each started when first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[int, Cluster] = {}
        self._migrated: set[int] = set()

    def of_version(self, version: int) -> Cluster:
        """The session's server of this major version."""
        if version not in self._running:
            # Dropping a database takes 0.2 s with fsync, 0.01 s without. What a test loses
            # without it is only what a crash of the whole machine would lose.
            cluster = Cluster.create(VERSIONS[version], settings={"fsync": "off"})
            self._stack.callback(cluster.destroy)
            self._running[version] = cluster
        return self._running[version]

    @contextmanager
    def database(self, version: int) -> Iterator[Database]:
        """A copy of a database that was migrated once; dropped at the end."""
        cluster = self.of_version(version)
        self._ensure_template(cluster)
        name = f"test_{uuid.uuid4().hex}"
        cluster.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        try:
            yield Database(cluster, name, cluster.url(name))
        finally:
            drop_database(cluster, name)

    def _ensure_template(self, cluster: Cluster) -> None:
        # Here, since tests of the servers alone need no schema.
        from auditstore.database import migrate  # noqa: PLC0415

        if cluster.version not in self._migrated:
            cluster.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
            cluster.execute(f"CREATE DATABASE {TEMPLATE}")
            migrate(cluster.url(TEMPLATE))
            self._migrated.add(cluster.version)


def drop_database(cluster: Cluster, name: str) -> None:
    """Drop a database with whatever a test left in it: sessions, prepared transactions."""
    left = cluster.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", name)
    for (gid,) in left:
        quoted = gid.replace("'", "''")
        cluster.execute(f"ROLLBACK PREPARED '{quoted}'", database=name)
    cluster.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def clusters() -> Iterator[Clusters]:
    """The session's servers by version; they die with the session, however it ends."""
    with ExitStack() as stack:
        yield Clusters(stack)


@pytest.fixture(scope="session")
def cluster(clusters: Clusters) -> Cluster:
    """The session's server of the newest version, the embedded package's."""
    return clusters.of_version(NEWEST)


@pytest.fixture(scope="session")
def all_clusters(clusters: Clusters) -> list[Cluster]:
    """The session's servers, one for each version found."""
    return [clusters.of_version(version) for version in sorted(VERSIONS)]


@pytest.fixture(scope="session", params=sorted(VERSIONS), ids=lambda version: f"pg{version}")
def cluster_any(request: pytest.FixtureRequest, clusters: Clusters) -> Cluster:
    """Each version's server in turn."""
    return clusters.of_version(request.param)


@pytest.fixture
def database(clusters: Clusters) -> Iterator[Database]:
    """A fresh, migrated database on the newest version."""
    with clusters.database(NEWEST) as fresh:
        yield fresh


@pytest.fixture
def database_url(database: Database) -> str:
    """The URL of :func:`database`."""
    return database.url


@pytest.fixture
def engine(database: Database) -> Iterator[sa.Engine]:
    """An engine on :func:`database`."""
    made = sa.create_engine(database.url)
    yield made
    made.dispose()


@pytest.fixture
def database_any(clusters: Clusters, cluster_any: Cluster) -> Iterator[Database]:
    """A fresh, migrated database on each version in turn."""
    with clusters.database(cluster_any.version) as fresh:
        yield fresh


@pytest.fixture
def restartable_cluster() -> Iterator[Cluster]:
    """A server of the test's own, of the newest version, with fsync, to crash and restart."""
    own = Cluster.create(VERSIONS[NEWEST])
    yield own
    own.destroy()
