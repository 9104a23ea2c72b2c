"""Which places a key may name: not every one that the command line, on the server, may."""

from __future__ import annotations

from auditstore.destinations import Destination
from auditstore.streams import Stream
from auditstore.web.api.auth import Caller
from auditstore.web.api.problems import Refused


def insist_on_place(
    caller: Caller, place: Destination, *, has_secret: bool, before: Stream | None = None
) -> None:
    """Refuse what reaches beyond the flows: the server's own folders, and its own identity.

    Only an administrator of all flows may name a folder, or an endpoint at which the server
    would present what its environment has. ``before`` is a stream that is set already: what
    it has may stay.
    """
    if caller.role == "administrator" and caller.flows is None:
        return
    if place.scheme == "file":
        _refuse("a folder is a place on the exporter's own machine", "Choose s3:// or azure://.")
    if has_secret or place.endpoint_url is None or place.is_aws:
        return
    if before is None or before.credential_id is not None or (
        before.destination.endpoint_url != place.endpoint_url
    ):  # fmt: skip
        _refuse(
            "without a credential the server would present its own identity at that endpoint",
            "Name a credential, or leave the endpoint URL out.",
        )


def _refuse(why: str, hint: str) -> None:
    raise Refused(
        403, "place-not-allowed", f"{why}: this needs an administrator's key for all flows",
        hint=hint,
    )  # fmt: skip
