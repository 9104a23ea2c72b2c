"""The command that shows an object, for whoever must decide what becomes of it."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Final

from auditstore.destinations import Destination
from auditstore.reconciliation.findings import Kind

#: What is never put right by itself: somebody has to look at the object.
LOOKED_AT: Final = frozenset({
    Kind.CHANGED_FILE, Kind.UNKNOWN_FILE, Kind.CHANGED_EVENT, Kind.DUPLICATE_EVENT,
    Kind.UNKNOWN_EVENT, Kind.UNREADABLE_LINE, Kind.RECOMPRESSED,
})  # fmt: skip


def show_command(destination: Destination, key: str) -> str | None:
    """A command for a POSIX shell that writes the object's content to standard output.

    ``None`` for a key that no command line can hold in print.
    """
    if not key.isprintable():
        return None
    compressed = key.endswith(".gz")
    if destination.scheme == "file":
        path = str(PurePosixPath(destination.bucket) / key)
        return f"{'zcat' if compressed else 'cat'} -- {shlex.quote(path)}"
    if destination.scheme == "s3":
        parts = ["aws", "s3", "cp", f"s3://{destination.bucket}/{key}", "-"]
        if destination.endpoint_url is not None:
            parts += ["--endpoint-url", destination.endpoint_url]
    else:
        parts = [
            "az", "storage", "blob", "download", "--container-name", destination.bucket,
            "--name", key, "--file", "/dev/stdout", "--no-progress", "--output", "none",
        ]  # fmt: skip
        if destination.endpoint_url is not None:
            parts += ["--blob-endpoint", destination.endpoint_url]
    return shlex.join(parts) + (" | zcat" if compressed else "")
