"""Where a stream, its credential and its store come together."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from auditstore import credentials
from auditstore.objects import ObjectStore
from auditstore.streams import Stream
from auditstore.vault import Vault


def store_opener(vault: Vault) -> Callable[[Connection, Stream], ObjectStore]:
    """Opens the store of a stream, with the credential that the connection's database keeps."""
    from exporters.stores import open_store  # noqa: PLC0415  # the composition root

    def open_stream(connection: Connection, stream: Stream) -> ObjectStore:
        secret = credentials.secret_of(connection, vault, stream.credential_id)
        return open_store(
            stream.destination, region=stream.region, secret=secret, options=stream.options
        )

    return open_stream
