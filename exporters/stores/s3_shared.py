"""One S3 client for all streams that would have the very same one.

A client costs 120 ms of processor time and 13 MB (botocore 1.44), most of it for the service's
description; two hundred streams would take half a minute to start and 2.6 GB.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TYPE_CHECKING

from botocore.loaders import Loader, create_loader

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_lock = threading.Lock()
_clients: dict[Hashable, S3Client] = {}
_users: Counter[Hashable] = Counter()


def shared(key: Hashable, make: Callable[[], S3Client]) -> tuple[S3Client, Callable[[], None]]:
    """The client of ``key``, made if nobody has it, and what to call when done with it.

    The last one who is done closes it. Clients may be used by many threads at once.
    """
    with _lock:
        if key not in _clients:
            _clients[key] = make()
        _users[key] += 1
        return _clients[key], lambda: _done(key)


def _done(key: Hashable) -> None:
    with _lock:
        _users[key] -= 1
        if _users[key]:
            return
        del _users[key]
        client = _clients.pop(key)
    client.close()


@lru_cache(maxsize=4)
def loader(data_path: str | None) -> Loader:
    """botocore's service descriptions, read once; clients that are not shared share these."""
    return create_loader(data_path)
