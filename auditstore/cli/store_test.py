"""A small verification object, written and read back: what of a store works, in words."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from auditstore.destinations import Destination
from auditstore.errors import AuditStoreError, ObjectConflict, StoreRefused, StoreUnavailable
from auditstore.layout import encode_part, join
from auditstore.objects import VERIFICATION_PREFIX, NewObject, ObjectStore

_TO_COMPARE = (
    "Delivering works without until an exporter dies in the midst of it: what it had written is "
    "then compared. Reconciling needs it too. "
)
_TO_LIST = "Delivering works without; a failover and reconciling need it. "


class TriedPlace(Protocol):
    """Where a flow's events go, or are to go: a stream, or one that is not kept yet."""

    @property
    def flow_id(self) -> str:
        """The flow's id."""

    @property
    def destination(self) -> Destination:
        """Where its files go."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried: ``result`` is ``works``, ``warning`` or ``fails``.

    ``code`` is the error's, where there is one.
    """

    name: str
    result: str
    message: str = ""
    hint: str = ""
    code: str = ""


def _not_working(name: str, result: str, error: AuditStoreError, lead: str = "") -> Step:
    return Step(name, result, error.message, lead + error.hint, error.code)


@dataclass(slots=True)
class StoreTest:
    """The steps that were tried, and the error that ended them early, if any.

    ``version_id`` is the store's, where it keeps versions.
    """

    key: str
    version_id: str | None = None
    steps: list[Step] = field(default_factory=list)
    failure: AuditStoreError | None = None


def verification_key(place: TriedPlace, now: datetime) -> str:
    """``<prefix>/auditstore_verification_<flow>_<timestamp>.txt``."""
    stamp = f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
    name = f"{VERIFICATION_PREFIX}_{encode_part(place.flow_id)}_{stamp}.txt"
    return join(place.destination.prefix, name)


def try_store(store: ObjectStore, place: TriedPlace, now: datetime) -> StoreTest:
    """Connect, write, read back, list; stop at the first that delivering cannot do without."""
    test = StoreTest(verification_key(place, now))
    body = (
        f"auditstore wrote this at {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} to see whether the "
        f"stream of flow {place.flow_id} works. It is no event data and may be deleted.\n"
    ).encode()
    try:
        _write(test, store, body)
        _read(test, store, body)
        _list(test, store)
    except AuditStoreError as error:
        test.failure = error
    return test


def _write(test: StoreTest, store: ObjectStore, body: bytes) -> None:
    new = NewObject(
        key=test.key, body=body, sha256=hashlib.sha256(body).digest(),
        content_type="text/plain; charset=utf-8",
    )  # fmt: skip
    try:
        put = store.put_if_absent(new)
        if not put.created:
            raise ObjectConflict(
                f"the store says that {test.key} is there already, though its name is new",
                hint="Try again; if it stays so, this server does not write conditionally.",
            )
        test.version_id = put.info.version_id if put.info else None
    except StoreUnavailable as error:
        test.steps.append(_not_working("connect", "fails", error))
        raise
    except AuditStoreError as error:
        test.steps.append(Step("connect", "works"))
        test.steps.append(_not_working("write", "fails", error))
        raise
    test.steps += [Step("connect", "works"), Step("write", "works")]


def _read(test: StoreTest, store: ObjectStore, body: bytes) -> None:
    try:
        chunks = store.read(test.key)
        found = None if chunks is None else b"".join(chunks)
        if found != body:
            what = "is not there" if found is None else "has other content"
            raise ObjectConflict(
                f"the object that was just written {what}",
                hint="Something else deletes or changes objects in this place, or the endpoint is "
                "not the server that was written to. Exactly-once delivery needs a place of "
                "its own.",
            )
    except StoreRefused as error:
        test.steps.append(_not_working("read", "warning", error, _TO_COMPARE))
    except AuditStoreError as error:
        test.steps.append(_not_working("read", "fails", error))
        raise
    else:
        test.steps.append(Step("read", "works"))


def _list(test: StoreTest, store: ObjectStore) -> None:
    try:
        listed = any(info.key == test.key for info in store.list(test.key))
    except StoreRefused as error:
        test.steps.append(_not_working("list", "warning", error, _TO_LIST))
    except AuditStoreError as error:
        test.steps.append(_not_working("list", "fails", error))
        raise
    else:
        late = Step("list", "warning", "the object that was just written is not listed yet")
        test.steps.append(Step("list", "works") if listed else late)
