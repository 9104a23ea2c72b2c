"""Objects as files below one folder: atomic, durable, create-only.

A file appears under its final name complete and synced to disk, or not at all: it is
written beside that name as ``.tmp-...``, synced, and hard-linked, which fails if the name
is taken. A crash may leave a ``.tmp-...`` file; listings leave those out.

The folder counts as there as soon as its parent is: reading it is reading an empty folder,
and the first write makes it. Its parent is never made, so that a disk that is not mounted
stops the stream instead of filling the disk below it: let the folder lie two levels below
the mount point (``/mnt/audit/store/events``), with ``store`` made on the mounted disk.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable
from auditstore.layout import RESERVED_START
from auditstore.objects import Fact, Inspection, NewObject, ObjectInfo, PutResult
from exporters.stores.folder_paths import folder_below, is_folder, open_regular

_TEMPORARY = RESERVED_START
_CHUNK = 1024 * 1024
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EAGAIN})
_PASSING |= {errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT}
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_HINTS = {
    errno.EACCES: "Give the user that the exporter runs as permission to read and write there.",
    errno.EPERM: "Give the user that the exporter runs as permission to read and write there.",
    errno.EROFS: "The file system is mounted read-only: mount it for writing.",
    errno.ENAMETOOLONG: "A part of the key is longer than the file system allows: "
    "choose a shorter prefix or key template.",
    errno.ELOOP: "A symbolic link lies where the key needs a folder or a file, and below "
    "the stream's folder none is followed: put what it points to in its place.",
    errno.ENOTDIR: "A file lies where the key needs a folder: move it away.",
    errno.EISDIR: "A folder lies where the key needs a file: move it away.",
    errno.ENOSPC: "The disk is full: make space. Nothing is lost meanwhile.",
    errno.EDQUOT: "The disk quota is used up: make space. Nothing is lost meanwhile.",
    errno.EFBIG: "A file may not be that large there: raise the exporter's limit (`ulimit -f`), "
    "or choose a smaller --max-bytes.",
    errno.EIO: "The disk answers with errors: look at the system's log.",
}


class FolderStore:
    """The folder at the absolute path ``root``; keys are paths below it."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def put_if_absent(self, new: NewObject) -> PutResult:
        """Write the file unless its name is taken; it survives a power cut from then on.

        A folder keeps no metadata, content type or encoding: the name must tell them.
        """
        *parts, name = _key_parts(new.key)
        self._require_parent()
        try:
            with folder_below(self._root, parts, make=True) as folder:
                created = self._write_new(folder, name, new.body)
        except OSError as error:
            raise _translate(error, new.key) from error
        return PutResult(created, ObjectInfo(key=new.key, size=len(new.body)) if created else None)

    def head(self, key: str) -> ObjectInfo | None:
        """The file's size; a folder has neither ETag nor metadata."""
        *parts, name = _key_parts(key)
        try:
            with folder_below(self._root, parts) as folder:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            self._require_parent()
            return None
        except NotADirectoryError:
            return None
        except OSError as error:
            raise _translate(error, key) from error
        return ObjectInfo(key=key, size=status.st_size) if S_ISREG(status.st_mode) else None

    def read(self, key: str) -> Iterator[bytes] | None:
        """The file's bytes in chunks of 1 MiB."""
        chunks = self._chunks(key)
        try:
            # Opens the file: from here on, dropping the iterator closes it.
            next(chunks)
        except (FileNotFoundError, NotADirectoryError):
            self._require_parent()
            return None
        return chunks

    def list(self, prefix: str, *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Files whose key starts with ``prefix``, in no promised order."""
        self._require_parent()
        start = prefix.rpartition("/")[0]
        if start and {"", ".", ".."} & set(start.split("/")):
            return  # no key is spelled so, and following it could leave the folder
        pending = [start]
        while pending:
            folder = pending.pop()
            try:
                entries = self._scan(folder)
            except OSError as error:
                # Gone meanwhile, or a link, which leads to no object of ours.
                if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                    continue
                raise _translate(error, folder) from error
            for name, size in entries:
                key = f"{folder}/{name}" if folder else name
                if size is None:
                    if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                        pending.append(key)
                elif key.startswith(prefix) and (
                    start_after is None or os.fsencode(key) > start_after.encode()
                ):
                    yield ObjectInfo(key=key, size=size)

    def _scan(self, folder: str) -> builtins.list[tuple[str, int | None]]:
        """Names of files with their sizes, and of folders with None."""
        found: builtins.list[tuple[str, int | None]] = []
        parts = folder.split("/") if folder else []
        with folder_below(self._root, parts) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found.append((entry.name, None))
                elif entry.is_file(follow_symlinks=False) and not entry.name.startswith(_TEMPORARY):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
        return found

    def inspect(self, now: Callable[[], datetime]) -> Inspection:  # noqa: ARG002  # the protocol's
        """The space that is left; a folder goes by this host's clock."""
        self._require_parent()
        there = self._root if self._root.is_dir() else self._root.parent
        try:
            status = os.statvfs(there)
        except OSError as error:
            raise _translate(error, str(self._root)) from error
        free = status.f_bavail * status.f_frsize
        return Inspection((Fact("free space", f"{free / 1024**3:.1f} GiB"),))

    def close(self) -> None:
        """Nothing is held open between calls."""

    def _require_parent(self) -> None:
        """Tell a folder without files from one on a disk that is not mounted."""
        try:
            # One look: another writer may be making the folder at this moment.
            there = S_ISDIR(self._root.stat().st_mode)
        except FileNotFoundError:
            there = self._root.parent.is_dir()
        except OSError as error:
            raise _translate(error, str(self._root)) from error
        if not there:
            raise StoreRefused(
                f"the folder {self._root} is not there and cannot be made",
                hint=f"Make {self._root.parent}, or mount the disk that it lies on.",
                code="NoSuchFolder",
            )

    def _write_new(self, folder: int, name: str, body: bytes) -> bool:
        temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o666, dir_fd=folder), "wb") as file:  # noqa: PTH123  # a descriptor
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            created = self._link(folder, temporary, name)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
        # Also when the name was taken: its writer may have died before syncing it.
        os.fsync(folder)
        return created

    def _link(self, folder: int, temporary: str, name: str) -> bool:
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            if is_folder(folder, name):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise StoreRefused(
                    f"the file system of {self._root} has no hard links, "
                    "which writing without overwriting needs",
                    hint="Use a folder on another file system (ext4, XFS, Btrfs, ZFS, APFS, NFS).",
                    code="NoHardLinks",
                ) from error
            raise
        return True

    def _chunks(self, key: str) -> Iterator[bytes]:
        *parts, name = _key_parts(key)
        try:
            with folder_below(self._root, parts) as folder:
                descriptor = open_regular(folder, name)
            with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor
                yield b""
                while chunk := file.read(_CHUNK):
                    yield chunk
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            raise _translate(error, key) from error


def _key_parts(key: str) -> list[str]:
    """The parts of ``key``, which must name a file below the root by its very spelling."""
    parts = key.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in key:
        raise StoreRefused(
            f"the key {key!r} does not name a file below the folder",
            hint="Use a key template without empty parts, `.` and `..`.",
            code="InvalidKey",
        )
    if any(part.startswith(_TEMPORARY) for part in parts):
        raise StoreRefused(
            f"the key {key!r} has a part that starts with {_TEMPORARY}",
            hint="Names of this kind are kept for files that are being written.",
            code="InvalidKey",
        )
    return parts


def _translate(error: OSError, key: str) -> AuditStoreError:
    number = error.errno or 0
    message = f"the folder refused {key!r}: {os.strerror(number) if number else error}"
    hint = _HINTS.get(number, "Look at the folder and the system's log.")
    if number in _PASSING:
        return StoreUnavailable(message, hint=hint)
    code = errno.errorcode.get(number, "OSError")
    return StoreRefused(message, hint=hint, code=code)
