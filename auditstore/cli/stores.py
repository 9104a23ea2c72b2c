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
    recipe = store_recipe(vault)

    def open_stream(connection: Connection, stream: Stream) -> ObjectStore:
        return recipe(connection, stream)()

    return open_stream


def store_recipe(vault: Vault) -> Callable[[Connection, Stream], Callable[[], ObjectStore]]:
    """As :func:`store_opener`, but gives what opens the store later, here or elsewhere."""
    from exporters.stores.recipe import StoreRecipe  # noqa: PLC0415  # the composition root

    def of_stream(connection: Connection, stream: Stream) -> Callable[[], ObjectStore]:
        secret = credentials.secret_of(connection, vault, stream.credential_id)
        return StoreRecipe.of(
            stream.destination, region=stream.region, secret=secret, options=stream.options
        )

    return of_stream
