"""Which credentials somebody may choose who may see some flows only."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from auditstore import credentials, streams
from auditstore.credentials import Credential
from auditstore.errors import NotFound


def credentials_for(connection: Connection, flows: Collection[str] | None) -> list[Credential]:
    """Those that a stream of these flows uses already; all of them where ``flows`` is ``None``.

    Else whoever answers for one flow could read or fill the bucket of another with its credential.
    """
    found = credentials.find(connection)
    if flows is None:
        return found
    used = {
        stream.credential_id
        for flow_id in flows
        for stream in streams.find(connection, flow_id=flow_id)
    }
    return [each for each in found if each.credential_id in used]


def insist_on_credential(
    connection: Connection, flows: Collection[str] | None, name: str | None
) -> None:
    """Raise NotFound for a credential that may not be chosen, as for one that is not there."""
    if name and all(each.name != name for each in credentials_for(connection, flows)):
        raise NotFound(
            f"there is no credential {name!r} that the streams of these flows use",
            hint="An administrator gives a stream its first credential.",
        )
