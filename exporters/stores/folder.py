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

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable
from auditstore.objects import NewObject, ObjectInfo, PutResult

_TEMPORARY = ".tmp-"
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
        final = self._path(new.key)
        try:
            self._make_parents(final.parent)
            created = _write_new(final, new.body)
        except OSError as error:
            raise _translate(error, new.key) from error
        return PutResult(created, ObjectInfo(key=new.key, size=len(new.body)) if created else None)

    def head(self, key: str) -> ObjectInfo | None:
        """The file's size; a folder has neither ETag nor metadata."""
        path = self._path(key)
        try:
            status = path.lstat()
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
        chunks = _chunks(self._path(key), key)
        try:
            # Opens the file: from here on, dropping the iterator closes it.
            next(chunks)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
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
            base = f"{folder}/" if folder else ""
            try:
                with os.scandir(self._root / folder) as entries:
                    found = list(entries)
                for entry in found:
                    key = base + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                            pending.append(key)
                    elif (
                        key.startswith(prefix)
                        and not entry.name.startswith(_TEMPORARY)
                        and entry.is_file(follow_symlinks=False)
                        and (start_after is None or os.fsencode(key) > start_after.encode())
                    ):
                        yield ObjectInfo(key=key, size=entry.stat(follow_symlinks=False).st_size)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _translate(error, folder) from error

    def close(self) -> None:
        """Nothing is held open between calls."""

    def _path(self, key: str) -> Path:
        """The file of ``key``, which must lie below the root by its very spelling."""
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
        return self._root.joinpath(*parts)

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

    def _make_parents(self, folder: Path) -> None:
        """Make the folders from the root down to ``folder``; each survives a power cut."""
        self._require_parent()
        missing = []
        current = folder
        while not current.is_dir():
            missing.append(current)
            if current == self._root:
                break
            current = current.parent
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                path.mkdir()
            # Also when another writer made it: it may not have come to this line yet.
            _sync_folder(path.parent)


def _write_new(final: Path, body: bytes) -> bool:
    temporary = final.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        created = _link(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    # Also when the name was taken: its writer may have died before syncing it.
    _sync_folder(final.parent)
    return created


def _link(temporary: Path, final: Path) -> bool:
    try:
        os.link(temporary, final)
    except FileExistsError:
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise StoreRefused(
                f"the file system of {final.parent} has no hard links, "
                "which writing without overwriting needs",
                hint="Use a folder on another file system (ext4, XFS, Btrfs, ZFS, APFS, NFS).",
                code="NoHardLinks",
            ) from error
        raise
    return True


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _chunks(path: Path, key: str) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield b""
            while chunk := file.read(_CHUNK):
                yield chunk
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        raise _translate(error, key) from error


def _translate(error: OSError, key: str) -> AuditStoreError:
    number = error.errno or 0
    message = f"the folder refused {key!r}: {os.strerror(number) if number else error}"
    hint = _HINTS.get(number, "Look at the folder and the system's log.")
    if number in _PASSING:
        return StoreUnavailable(message, hint=hint)
    code = errno.errorcode.get(number, "OSError")
    return StoreRefused(message, hint=hint, code=code)
