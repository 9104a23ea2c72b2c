"""The demo's stage: servers, streams and flows, set up on this machine and taken down again."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from auditstore import credentials, database, streams
from auditstore.demo import servers
from auditstore.demo.flow_engine import FlowEngine
from auditstore.demo.processes import undisturbed
from auditstore.demo.traffic import FOLLOW_UP_S
from auditstore.embedded import start_embedded
from auditstore.errors import AuditStoreError, ConfigurationError
from auditstore.objects import ObjectInfo, ObjectStore
from auditstore.sql import events as events_sql
from auditstore.sql import ledger as ledger_sql
from auditstore.sql import server as server_sql
from auditstore.streams import NewStream, Stream
from auditstore.vault import Vault, new_key
from exporters.stores import open_store

HOME_FLOW: Final = "home-insurance"
AUTO_FLOW: Final = "auto-insurance"
_ACTOR: Final = "auditstore demo"
_DELIVERY_TIMEOUT_S: Final = 40.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that the demo runs on. ``azure`` is ``None`` where there is no Azurite."""

    folder: Path
    database_url: str
    postgres_version: int
    engine: Engine
    keys: tuple[str, ...]
    s3_url: str
    azure: servers.AzureServer | None

    @property
    def archive(self) -> Path:
        """The folder that stands for a disk or a mounted share."""
        return self.folder / "archive"

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which a command of auditstore works on this stage."""
        return {
            "AUDITSTORE_DATABASE_URL": self.database_url,
            "AUDITSTORE_SECRET_KEYS": ",".join(self.keys),
        }

    @contextmanager
    def open_store(self, stream: Stream) -> Iterator[ObjectStore]:
        """The stream's store, with the credential that the database keeps."""
        with self.engine.connect() as connection:
            secret = credentials.secret_of(connection, Vault(self.keys), stream.credential_id)
        store = open_store(
            stream.destination, region=stream.region, secret=secret, options=stream.options
        )
        try:
            yield store
        finally:
            store.close()


@contextmanager
def playing(keep: Path | None) -> Iterator[Stage]:
    """Start the servers; stop them at the end, and remove their folder unless it is to keep."""
    with ExitStack() as stack:
        folder = _folder(keep, stack)
        with undisturbed():
            postgres = stack.enter_context(start_embedded(folder / "postgresql"))
        database.migrate(postgres.url)
        engine = database.create_engine(postgres.url, application_name="flow engine")
        stack.callback(engine.dispose)
        s3_url = stack.enter_context(servers.s3())
        command = servers.azurite_command()
        azure = None
        if command is not None:
            azure = stack.enter_context(servers.azurite(command, folder / "azurite"))
        stage = Stage(
            folder=folder, database_url=postgres.url, postgres_version=_version(engine),
            engine=engine, keys=(new_key(),), s3_url=s3_url, azure=azure,
        )  # fmt: skip
        stage.archive.mkdir()
        yield stage


def add_streams(stage: Stage) -> list[Stream]:
    """Keep the credentials encrypted, and add a stream to every place that there is."""
    vault = Vault(stage.keys)
    with stage.engine.begin() as connection:
        s3 = credentials.add(
            connection, vault, name="demo-s3", kind="s3", secret=servers.S3_SECRET, actor=_ACTOR
        )
        new = [
            NewStream(
                HOME_FLOW, f"s3://{servers.BUCKET}/home", endpoint_url=stage.s3_url,
                region=servers.REGION, credential_id=s3.credential_id,
            ),
            NewStream(HOME_FLOW, (stage.archive / "home").as_uri()),
            NewStream(AUTO_FLOW, (stage.archive / "auto").as_uri(), format="json"),
        ]  # fmt: skip
        if stage.azure is not None:
            azure = credentials.add(
                connection, vault, name="demo-azure", kind="azure", secret=stage.azure.secret,
                actor=_ACTOR,
            )  # fmt: skip
            new.append(
                NewStream(
                    AUTO_FLOW, f"azure://{servers.BUCKET}/auto", credential_id=azure.credential_id
                )
            )
        return [streams.add(connection, each, actor=_ACTOR) for each in new]


def flows() -> list[FlowEngine]:
    """Two flows, each of which the streams take to two places."""
    return [
        FlowEngine(flow_id=HOME_FLOW, flow_name="Home insurance", seed=1, follow_up_s=FOLLOW_UP_S),
        FlowEngine(flow_id=AUTO_FLOW, flow_name="Auto insurance", seed=2, follow_up_s=FOLLOW_UP_S),
    ]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the ledger says of one stream; ``slowest`` from an append to its delivered file."""

    stream: Stream
    files: int
    events: int
    slowest: timedelta


def wait_until_delivered(stage: Stage, *, watch: Callable[[int], None]) -> list[Delivered]:
    """Wait until every appended event is in each of its places; ``watch`` hears how many wait."""
    deadline = time.monotonic() + _DELIVERY_TIMEOUT_S
    while True:
        with stage.engine.connect() as connection:
            found = streams.find(connection)
            waiting = sum(
                events_sql.waiting(connection, each.flow_id, after=each.delivered_position)[0]
                for each in found
            )
        if not waiting:
            return [_delivered(stage, stream) for stream in found]
        for stream in found:
            if stream.status.state != "streaming":
                raise AuditStoreError(
                    f"stream {stream.stream_id} is {stream.status.state}: {stream.status.cause}",
                    hint=stream.status.hint or "",
                )
        if time.monotonic() > deadline:
            raise AuditStoreError(
                f"{waiting} events were not delivered in {_DELIVERY_TIMEOUT_S:.0f} s",
                hint="Is this machine very busy? Try again.",
            )
        watch(waiting)
        time.sleep(0.1)


def objects_of(stage: Stage, stream: Stream) -> list[ObjectInfo]:
    """What lies in a stream's place, as the store lists it, by key."""
    with stage.open_store(stream) as store:
        return sorted(store.list(stream.destination.prefix), key=lambda info: info.key)


def _delivered(stage: Stage, stream: Stream) -> Delivered:
    with stage.engine.connect() as connection:
        files = list(ledger_sql.stream_files(connection, stream.stream_id))
    waits = [
        file.delivered_at - file.sealed.first_recorded_at for file in files if file.delivered_at
    ]
    return Delivered(
        stream, len(files), sum(file.sealed.event_count for file in files),
        max(waits, default=timedelta()),
    )  # fmt: skip


def _folder(keep: Path | None, stack: ExitStack) -> Path:
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="auditstore-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise ConfigurationError(
                f"the folder {keep} is not empty",
                hint="Name another one with --keep, or remove what is in it.",
            )
    except OSError as error:
        raise ConfigurationError(
            f"the folder {keep} cannot be used: {error.strerror}", hint="Name another one."
        ) from error
    return keep.resolve()


def _version(engine: Engine) -> int:
    with engine.connect() as connection:
        return server_sql.version(connection)
