"""The protocol every object store is behind: S3, Azure Blob, a folder.

It is the smallest set of calls that exporting and reconciling need. ``exporters.stores``
implements it, one module a store, and one conformance suite runs over all of them.
There is no overwrite and no delete in it, so no caller can do either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

#: Objects with this name prefix (after the last slash) are connection tests, not data.
VERIFICATION_PREFIX = "auditstore_verification"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as the store describes it.

    ``size`` in bytes. ``etag`` without quotes, ``None`` where the store has none (folder).
    ``metadata`` has lower-case names with hyphens whatever the store's own spelling; it is
    empty in listings of stores that do not list it.
    """

    key: str
    size: int
    etag: str | None = None
    version_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PutResult:
    """``created`` is true when this call (or a retry inside it) made the object.

    When it is false the key was taken before; ``info`` is ``None`` then, and the caller
    compares contents.
    """

    created: bool
    info: ObjectInfo | None = None


@dataclass(frozen=True, slots=True)
class NewObject:
    """What to write: the bytes, how browsers and loaders should read them, metadata.

    ``sha256`` is the digest of ``body``, sent so that the store can check what it got.
    """

    key: str
    body: bytes
    sha256: bytes
    content_type: str
    content_encoding: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class ObjectStore(Protocol):
    """One bucket, container or folder. Keys are full keys, the prefix included.

    Every method raises :class:`~auditstore.errors.StoreUnavailable` for what passes by
    itself and :class:`~auditstore.errors.StoreRefused` for what an operator must change.
    Instances may be shared between threads.
    """

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Create the object unless its key is taken, atomically; never overwrite."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Describe one object with its metadata, or ``None`` if it is not there."""
        ...

    def read(self, key: str) -> Iterator[bytes] | None:
        """The stored bytes in chunks, undecoded, or ``None`` if the object is not there."""
        ...

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix``, in no promised order, page by page.

        With ``start_after`` only keys greater than it in byte order.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True, slots=True)
class Fact:
    """What a store says of itself, for people; ``value`` is ``None`` where it does not say so
    to a credential without the permission ``needs``.
    """

    name: str
    value: str | None
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was learned; ``clock_ahead`` is in seconds, ``None`` where the store has no clock."""

    facts: tuple[Fact, ...]
    clock_ahead: float | None = None


@runtime_checkable
class Inspectable(Protocol):
    """A store that can be asked about itself. Delivering never depends on the answers."""

    def inspect(self, now: Callable[[], datetime]) -> Inspection:
        """Ask for protection of objects and the clock; ``now`` is the host's clock, aware.

        What the credential may not ask is left unknown. Raises as
        :class:`ObjectStore`'s methods do.
        """
        ...
