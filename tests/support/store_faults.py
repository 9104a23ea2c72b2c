"""What object stores and the way to them do wrong, by dialect; and a fault run behind a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditstore import streams
from auditstore.streams import Stream, StreamState
from support.eventually import eventually
from support.fault_proxy import Fault, FaultProxy, Rule
from support.fault_run import FaultRun
from support.stores import Place
from support.through_proxy import behind

#: How long a loaded machine may take for what an idle one does in a second or two.
PATIENCE_S = 60

#: Seconds for the exporters of these tests, in place of a user's: what hangs is given up and
#: what failed is tried again while a test waits for it.
IMPATIENT: Mapping[str, float] = {
    "exporters.stores.s3_session.READ_TIMEOUT_S": 1.5,
    "exporters.stores.azure_client.READ_TIMEOUT_S": 1.5,
    "exporters.stores.s3_session.ATTEMPTS": 2,
    "exporters.stores.azure_client.ATTEMPTS": 2,
    "exporters.worker._LONGEST_RETRY": 1.0,
    "exporters.worker._BLOCKED_RETRY": 0.7,
}


@dataclass(frozen=True)
class Trouble:
    """Faults of one kind, and how a stream that meets them is shown.

    ``says`` is a part of the cause, ``hint`` one of what to do.
    """

    faults: tuple[Fault, ...]
    state: str
    code: str
    says: str
    hint: str
    #: For the second of the faults: which requests meet it.
    then_method: str = "PUT"

    def begin(self, proxy: FaultProxy, key: str) -> list[Rule]:
        """Let requests with ``key`` in their path meet the faults; the first of two once."""
        first, *then = self.faults
        rules = [proxy.inject(first, key=key, count=1 if then else None)]
        return rules + [proxy.inject(fault, method=self.then_method, key=key) for fault in then]


def _passing(*faults: Fault, says: str, then_method: str = "PUT") -> Trouble:
    return Trouble(
        faults, "retrying", "store-unavailable", says, "tried again by itself", then_method
    )


def _refusal(status: int, code: str, says: str, hint: str) -> Trouble:
    return Trouble((Fault(status, code),), "blocked", code, says, hint)


_BROKE_OFF = "cannot be reached or broke off"
_ON_THE_WAY = {
    "no answer, nothing stored": _passing(Fault(request="lost"), says=_BROKE_OFF),
    "no answer, stored": _passing(Fault(answer="never"), says=_BROKE_OFF),
    "stored late": _passing(Fault(request="late"), says=_BROKE_OFF),
    "cut within the body": _passing(Fault(request="cut"), says=_BROKE_OFF),
    "cut before the answer": _passing(Fault(answer="cut"), says=_BROKE_OFF),
    "half an answer": _passing(Fault(answer="torn"), says=_BROKE_OFF),
    "half an object to compare": _passing(
        Fault(answer="never"), Fault(answer="half"), says=_BROKE_OFF, then_method="GET"
    ),
}

TROUBLES: Mapping[str, Mapping[str, Trouble]] = {
    "s3": {
        **_ON_THE_WAY,
        "500": _passing(Fault(500, "InternalError"), says="InternalError"),
        "503": _passing(Fault(503, "SlowDown"), says="SlowDown"),
        "429": _passing(Fault(429, "TooManyRequests"), says="TooManyRequests"),
        "half a 503": _passing(Fault(503, "SlowDown", answer="half"), says="503"),
        "409": _passing(
            Fault(409, "ConditionalRequestConflict"), says="ConditionalRequestConflict"
        ),
        "corrupted on the way": _passing(Fault(request="corrupt"), says="BadDigest"),
        "denied": _refusal(403, "AccessDenied", "may not do this here", "s3:PutObject"),
        "token": _refusal(400, "ExpiredToken", "session token has run out", "rotate"),
        "signature": _refusal(
            403, "SignatureDoesNotMatch", "does not belong to the access key", "added character"
        ),
        "no bucket": _refusal(
            404, "NoSuchBucket", "the bucket is not there", "Create the bucket"
        ),
    },
    "azure": {
        **_ON_THE_WAY,
        "500": _passing(Fault(500, "InternalError"), says="InternalError"),
        "503": _passing(Fault(503, "ServerBusy"), says="ServerBusy"),
        "429": _passing(Fault(429, "TooManyRequests"), says="TooManyRequests"),
        "half a 503": _passing(Fault(503, "ServerBusy", answer="half"), says=_BROKE_OFF),
        "409": _passing(Fault(409, "ContainerBeingDeleted"), says="ContainerBeingDeleted"),
        "corrupted on the way": _passing(Fault(request="corrupt"), says="Md5Mismatch"),
        "denied": _refusal(
            403, "AuthorizationPermissionMismatch", "may not do this here",
            "add blobs in the container",
        ),
        "token": _refusal(403, "AuthenticationFailed", "has run out", "SAS and its dates"),
        "signature": _refusal(401, "InvalidAuthenticationInfo", "malformed", "rotate"),
        "no bucket": _refusal(
            404, "ContainerNotFound", "the container is not there", "Create the container"
        ),
    },
}  # fmt: skip


#: Which troubles one stream goes through, in order, without an end to them in between. After one
#: that leaves the object in the store the next could not tell what it would have done by itself.
COURSES: tuple[tuple[str, ...], ...] = (
    ("no answer, nothing stored", "no answer, stored"),
    ("stored late",),
    ("cut within the body", "corrupted on the way", "cut before the answer"),
    ("500", "503", "429", "409", "half a 503", "half an answer"),
    ("half an object to compare",),
    ("denied", "token", "signature", "no bucket"),
)


def run_behind(
    proxy: FaultProxy,
    database_url: str,
    place: Place,
    *,
    constants: Mapping[str, float] = IMPATIENT,
    exporter: Mapping[str, Any] | None = None,
    **settings: Any,
) -> FaultRun:
    """A fault run whose exporters reach the place by way of the proxy."""
    through = behind(proxy, place)
    return FaultRun(
        database_url, place, destination=through.destination, secret=through.secret,
        exporter={"constants": constants, **(exporter or {})}, **settings,
    )  # fmt: skip


# --- looking at the streams of a run ------------------------------------------------


def part_of(stream: Stream) -> str:
    """A pattern of what only the paths of the stream's own files have."""
    return f"/{stream.destination.prefix.rpartition('/')[2]}/.*gz"


def look(run: FaultRun, stream: Stream) -> Stream:
    """The stream as it stands."""
    with run.engine.connect() as connection:
        return streams.get(connection, stream.stream_id)


def await_state(
    run: FaultRun, stream: Stream, state: str, code: str | None, says: str
) -> StreamState:
    """Wait for this state, with ``says`` in its cause; a failure tells what came instead."""
    seen: list[StreamState] = []

    def wanted() -> StreamState | None:
        status = look(run, stream).status
        seen[:] = [status]
        same = (status.state, status.code) == (state, code) and says in (status.cause or "")
        return status if same else None

    try:
        return eventually(wanted, within=PATIENCE_S)
    except AssertionError:
        raise AssertionError(f"{stream.flow_id} is not {state} but {seen}") from None
