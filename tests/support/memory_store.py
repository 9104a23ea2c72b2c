"""A store in memory, for what a real one cannot be made to do: fail on demand, or hang."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from auditstore.errors import StoreRefused, StoreUnavailable
from auditstore.objects import NewObject, ObjectInfo, PutResult

UNAVAILABLE = StoreUnavailable("the store is away", hint="It comes back by itself.")
DENIED = StoreRefused("the store says no", hint="Allow s3:PutObject.", code="AccessDenied")


class MemoryStore:
    """Implements the ``ObjectStore`` protocol, create-only as real stores are.

    While ``trouble`` is set every call raises it. While ``open`` is clear every put hangs, and
    ``hanging`` counts those that do. ``tries`` counts puts by key, ``closed`` calls of close.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.trouble: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.hanging = 0
        self.tries: Counter[str] = Counter()
        self.closed = 0
        self._lock = threading.Lock()

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Create the object unless its key is taken."""
        with self._lock:
            self.tries[new.key] += 1
            self.hanging += 1
        self.open.wait()
        with self._lock:
            self.hanging -= 1
            self._check()
            if new.key in self.objects:
                return PutResult(created=False)
            self.objects[new.key] = new.body
            return PutResult(created=True, info=self._info(new.key))

    def head(self, key: str) -> ObjectInfo | None:
        """Describe one object."""
        with self._lock:
            self._check()
            return self._info(key) if key in self.objects else None

    def read(self, key: str) -> Iterator[bytes] | None:
        """The object in small chunks."""
        with self._lock:
            self._check()
            body = self.objects.get(key)
        if body is None:
            return None
        return (body[start : start + 100] for start in range(0, len(body), 100))

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects by prefix."""
        with self._lock:
            self._check()
            keys = [key for key in self.objects if key.startswith(prefix)]
            return iter([self._info(key) for key in keys if key > (start_after or "")])

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed += 1

    def _check(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.objects[key]), etag=f"etag of {key}")
