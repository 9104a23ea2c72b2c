"""Checks of a stream's store: credential, server, bucket, writing, reading, listing, protection.

Everything that delivering needs is tried for real, with one verification object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from auditstore.cli.doctor.findings import (
    DENIED,
    INCOMPLETE,
    NO_FILES,
    Finding,
    Findings,
    failure,
    unknown,
)
from auditstore.cli.doctor.refusals import is_denial, is_place, is_secret
from auditstore.cli.store_test import Step, StoreTest, try_store
from auditstore.cli.wording import age
from auditstore.destinations import check_encryption
from auditstore.errors import (
    AuditStoreError,
    ConfigurationError,
    StoreRefused,
    StoreUnavailable,
)
from auditstore.objects import Fact, Inspectable, ObjectStore
from auditstore.streams import Stream

_SKEW_S: Final = 60.0
# Beyond this, stores refuse requests.
_REFUSED_SKEW_S: Final = 900.0

OpenStore = Callable[[Connection, Stream], ObjectStore]


def open_checked(
    connection: Connection, stream: Stream, open_store: OpenStore, found: Findings
) -> ObjectStore | None:
    """The stream's store, with a finding about its credential; nothing is sent yet."""
    try:
        store = open_store(connection, stream)
    except AuditStoreError as error:
        found.append(failure("credential", error, NO_FILES, DENIED))
        return None
    return store


def check_store(
    store: ObjectStore, stream: Stream, now: Callable[[], datetime]
) -> Iterator[Finding]:
    """Write, read back, list; then what the store says of itself."""
    done = try_store(store, stream, now())
    yield from _credential_and_place(stream, done)
    for step in done.steps:
        if step.name in {"write", "read", "list"}:
            yield _step(step, done)
    if not isinstance(done.failure, StoreUnavailable):
        yield from _inspected(store, done, now)


def _credential_and_place(stream: Stream, done: StoreTest) -> Iterator[Finding]:
    """What the outcome of the write says of the server, the secret and the bucket."""
    error, wrote = done.failure, any(step.name == "write" and step.result == "works"
                                     for step in done.steps)  # fmt: skip
    server = stream.destination.endpoint_url or {"s3": "Amazon S3", "azure": "Azure"}.get(
        stream.destination.scheme, "the folder"
    )
    if isinstance(error, StoreUnavailable):
        yield failure("server", error, NO_FILES)
        return
    yield _server(stream, server)
    code = error.code if isinstance(error, StoreRefused) and not wrote else ""
    if stream.destination.scheme != "file":
        yield _credential(stream, error, code)
    if is_place(code) and error is not None:
        yield failure("bucket", error, NO_FILES)
    elif wrote:
        yield Finding("bucket", "ok", f"{stream.destination.bucket} is there")
    else:
        yield unknown("bucket", "the store says no before it says so")


def _server(stream: Stream, server: str) -> Finding:
    try:
        check_encryption(stream.destination.endpoint_url, {})
    except ConfigurationError as error:
        return Finding(
            "server", "warning", f"{server} answers; {error.message}",
            "It is so by the stream's option insecure_http. Give it an https:// address, then "
            f"auditstore stream set {stream.stream_id} --endpoint-url URL.",
        )  # fmt: skip
    return Finding("server", "ok", f"{server} answers")


def _credential(stream: Stream, error: AuditStoreError | None, code: str) -> Finding:
    named = stream.credential_name or "the environment's own"
    if error is not None and is_secret(code):
        return failure("credential", error, NO_FILES, DENIED)
    if is_place(code):
        return unknown("credential", "the bucket is not there to try it on")
    if stream.credential_name is None:
        return Finding("credential", "ok", f"{named}: accepted; the exporter's may be another",
                       "Run this as the exporter's user, on its host, to be sure.")  # fmt: skip
    return Finding("credential", "ok", f"{named}: accepted")


def _step(step: Step, done: StoreTest) -> Finding:
    names = {"write": "write", "read": "read back", "list": "list"}
    if step.result == "works":
        said = {"write": f"wrote {done.key}", "read": "read it back, unchanged",
                "list": "the listing has it"}  # fmt: skip
        return Finding(names[step.name], "ok", said[step.name])
    code = done.failure.code if step.result == "fails" and done.failure else step.code
    # Bucket and credential have been told of already.
    if is_place(code) or is_secret(code):
        return unknown(names[step.name], "see above")
    explains = (NO_FILES,) if step.name == "write" else (INCOMPLETE,)
    return Finding(
        names[step.name], "fails" if step.result == "fails" else "warning", step.message,
        step.hint, (*explains, DENIED) if is_denial(code) else explains,
    )  # fmt: skip


def _inspected(
    store: ObjectStore, done: StoreTest, now: Callable[[], datetime]
) -> Iterator[Finding]:
    if not isinstance(store, Inspectable):
        return
    try:
        inspection = store.inspect(now)
    except AuditStoreError as error:
        if done.failure is None:
            yield unknown("protection", error.message, error.hint)
        return
    ahead = inspection.clock_ahead
    if ahead is not None:
        yield _clock(ahead)
    if done.failure is not None and is_secret(done.failure.code):
        # Whoever is not known is told nothing, whatever it may do.
        return
    for fact in inspection.facts:
        yield _fact(fact, done)


def _clock(ahead: float) -> Finding:
    off = abs(ahead)
    if off < _SKEW_S:
        return Finding("store's clock", "ok", "this host's clock and the store's agree")
    side = "behind" if ahead > 0 else "ahead of"
    return Finding(
        "store's clock", "fails" if off >= _REFUSED_SKEW_S else "warning",
        f"this host's clock is {age(off)} {side} the store's; from 15 minutes on requests are "
        "refused", "Set this host's clock, and keep it set (NTP).", (NO_FILES, DENIED),
    )  # fmt: skip


def _fact(fact: Fact, done: StoreTest) -> Finding:
    value = fact.value
    if value is None and fact.name == "versioning" and done.version_id is not None:
        # The store told when it took the verification object.
        value = "on"
    if value is None:
        return Finding(fact.name, "note", f"not known: needs permission {fact.needs}")
    return Finding(fact.name, "note", value)
