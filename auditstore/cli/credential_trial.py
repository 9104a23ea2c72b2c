"""A new secret is tried on every stream that would use it, before it takes effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from sqlalchemy import Connection

from auditstore.cli.store_test import StoreTest, try_store
from auditstore.cli.stores import store_opener
from auditstore.errors import AuditStoreError, CredentialRefused, StoreRefused
from auditstore.streams import Stream
from auditstore.vault import Vault

_AT_ONCE: Final = 8
_MOST_CAUSES: Final = 5


class SecretKeeper(Protocol):
    """Who asks: a run of the command line, or a person in the console."""

    @property
    def vault(self) -> Vault:
        """The keys for secrets."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection to read from."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How the new secret did on one stream's store; ``warning`` where it did well enough."""

    stream: Stream
    failure: AuditStoreError | None
    warning: str = ""


def try_secret(
    session: SecretKeeper, secret: Mapping[str, str], using: Sequence[Stream]
) -> list[Trial]:
    """Write and read back on each stream's destination, enabled or not, with the new secret."""

    def one(stream: Stream) -> Trial:
        try:
            return _trial(session, stream, secret)
        except AuditStoreError as error:
            return Trial(stream, error)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="trial") as pool:
        return list(pool.map(one, using))


def _trial(session: SecretKeeper, stream: Stream, secret: Mapping[str, str]) -> Trial:
    from exporters.stores import open_store  # noqa: PLC0415  # the composition root

    store = open_store(
        stream.destination, region=stream.region, secret=secret, options=stream.options
    )
    with closing(store):
        done = try_store(store, stream, datetime.now(UTC))
    if done.failure is not None:
        return Trial(stream, done.failure)
    read = next(step for step in done.steps if step.name == "read")
    if read.result == "works":
        return Trial(stream, None)
    if not _old_one_reads(session, stream, done):
        return Trial(stream, None, "it may write and not read, as the old secret")
    return Trial(
        stream,
        StoreRefused(f"it may write and not read back: {read.message}", hint=read.hint,
                     code=read.code),
    )  # fmt: skip


def _old_one_reads(session: SecretKeeper, stream: Stream, done: StoreTest) -> bool:
    """Whether the secret in force reads what the new one has written."""
    try:
        with session.reading() as connection:
            store = store_opener(session.vault)(connection, stream)
        with closing(store):
            return store.read(done.key) is not None
    except AuditStoreError:
        # It is refused, or opened by no key any more: it takes nothing away to lose it.
        return False


def refuse_failures(name: str, trials: Sequence[Trial]) -> None:
    """Raise CredentialRefused if any stream's store would not work with the new secret."""
    failed = [trial for trial in trials if trial.failure is not None]
    if not failed:
        return
    why = "; ".join(
        f"stream {trial.stream.stream_id}: {trial.failure.message}"
        for trial in failed[:_MOST_CAUSES]
        if trial.failure is not None
    ) + (f"; and {len(failed) - _MOST_CAUSES} more" if len(failed) > _MOST_CAUSES else "")
    first = failed[0].failure
    raise CredentialRefused(
        f"the old secret of {name} stays in force, for the new one fails on "
        f"{len(failed)} of {len(trials)} streams: {why}",
        hint=f"{first.hint if first else ''} If a store is only away and you know the secret to "
        f"be right: auditstore credential rotate {name} --no-check".strip(),
    )


def insist_on_tried(name: str, *, tried: Sequence[Stream], using: Sequence[Stream]) -> None:
    """Raise CredentialRefused if streams began to use it, or changed, while it was tried."""
    before = {stream.stream_id: stream.settings() for stream in tried}
    changed = [
        stream.stream_id for stream in using if before.get(stream.stream_id) != stream.settings()
    ]
    if changed:
        ids = ", ".join(map(str, changed))
        raise CredentialRefused(
            f"the old secret of {name} stays in force, for stream {ids} changed while the new "
            "one was tried",
            hint="Rotate it again.",
        )
