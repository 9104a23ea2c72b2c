"""A place by way of a fault proxy: the same bucket, another road to it."""

from __future__ import annotations

from dataclasses import replace

from support.azurite import ACCOUNT, Azurite
from support.fault_proxy import FaultProxy
from support.stores import Place


def behind(proxy: FaultProxy, place: Place) -> Place:
    """The same place with the proxy in between."""
    if place.kind == "s3":
        return replace(
            place,
            destination=replace(place.destination, endpoint_url=proxy.url),
            missing=replace(place.missing, endpoint_url=proxy.url),
        )
    # Azure signs the path, which stays the same, and not the host.
    account = Azurite(f"{proxy.url}/{ACCOUNT}")
    return replace(place, secret={"connection_string": account.connection_string})
