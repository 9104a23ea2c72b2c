"""The views that a command names, opened with their stores, keys and files."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from auditstore import credentials
from auditstore.cli.context import Session
from auditstore.cli.stores import store_opener
from auditstore.destinations import check_encryption, parse_destination
from auditstore.errors import ConfigurationError
from auditstore.reconciliation.views.objects import BucketView
from auditstore.reconciliation.views.outbox import OutboxView
from auditstore.streams import Stream

if TYPE_CHECKING:
    from auditstore.reconciliation.views.leadconduit import LeadConduitView
    from auditstore.reconciliation.views.records import View

OUTBOX = "outbox"
LEADCONDUIT = "leadconduit"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the views are that are not this store's own."""

    location: str | None
    endpoint_url: str | None
    region: str | None
    credentials: tuple[str, ...]
    checkpoint: Path | None

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> Self:
        """Take these options out of those of a command."""
        return cls(**{name: given.pop(name) for name in cls.__dataclass_fields__})


class Sides:
    """Opens views, each when it is asked for; closes what it opened at the end."""

    def __init__(self, session: Session, places: Places, *, flow_id: str | None) -> None:
        self._session = session
        self._places = places
        self._flow_id = flow_id
        self._stack = ExitStack()
        self._leadconduit: LeadConduitView | None = None
        self._secrets = self._read_secrets()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def source(self, name: str, *, read_often: bool = False) -> View:
        """The outbox, LeadConduit, or else a file. ``read_often`` keeps what LeadConduit gives."""
        if name == OUTBOX:
            return OutboxView(self._session.engine)
        if name == LEADCONDUIT:
            return self._leadconduit_view(read_often=read_often)
        from auditstore.reconciliation.views.exports import ExportView  # noqa: PLC0415  # an extra

        path = Path(name)
        if not path.exists():
            raise ConfigurationError(
                f"there is no view and no file {name!r}",
                hint="Write outbox, leadconduit, or the name of an exported file.",
            )
        return ExportView(path, flow_id=self._flow_id)

    def location(self, url: str) -> View:
        """A bucket that this store need never have written."""
        from exporters.stores import open_store  # noqa: PLC0415  # the composition root

        destination = parse_destination(url, self._places.endpoint_url)
        check_encryption(destination.endpoint_url, {})
        store = open_store(
            destination, region=self._places.region, secret=self._secrets.get(destination.scheme)
        )
        self._stack.enter_context(closing(store))
        return BucketView(
            store, destination.prefix, name=f"the bucket {destination.url}", flow_id=self._flow_id
        )

    def cloud(self, stream: Stream) -> View:
        """What lies in the bucket of one of this store's streams."""
        with self._session.reading() as connection:
            store = store_opener(self._session.vault)(connection, stream)
        self._stack.enter_context(closing(store))
        return BucketView(
            store, stream.destination.prefix, kind="cloud", flow_id=stream.flow_id,
            name=f"the bucket {stream.url} of stream {stream.stream_id}",
        )  # fmt: skip

    def completed(self) -> None:
        """Everything was read and used: a checkpoint has done its work."""
        if self._leadconduit is not None:
            self._leadconduit.forget_checkpoint()

    def _leadconduit_view(self, *, read_often: bool) -> View:
        from auditstore.reconciliation.views.events_api import (  # noqa: PLC0415  # an extra
            DEFAULT_URL,
            Access,
        )
        from auditstore.reconciliation.views.leadconduit import LeadConduitView  # noqa: PLC0415

        settings = self._session.settings
        secret = self._secrets.get(LEADCONDUIT)
        key = settings.leadconduit_api_key if secret is None else secret["api_key"]
        if key is None:
            raise ConfigurationError(
                "there is no key for LeadConduit's API",
                hint="Set AUDITSTORE_LEADCONDUIT_API_KEY, or store the key with `auditstore "
                "credential add NAME --kind leadconduit` and name it with --credential NAME.",
            )
        checkpoint = self._places.checkpoint
        if checkpoint is None and read_often:
            checkpoint = Path(self._stack.enter_context(TemporaryDirectory())) / "leadconduit"
        access = Access(key, settings.leadconduit_url or DEFAULT_URL)
        self._leadconduit = LeadConduitView(access, checkpoint=checkpoint)
        return self._leadconduit

    def _read_secrets(self) -> dict[str, dict[str, str]]:
        """The secrets of the named credentials, by kind."""
        secrets: dict[str, dict[str, str]] = {}
        for name in self._places.credentials:
            with self._session.reading() as connection:
                found = credentials.get_by_name(connection, name)
                secret = credentials.secret_of(connection, self._session.vault, found.credential_id)
            if found.kind in secrets or secret is None:
                raise ConfigurationError(
                    f"two credentials for {found.kind} are named",
                    hint="Name one for the location, and one for LeadConduit.",
                )
            secrets[found.kind] = secret
        return secrets
