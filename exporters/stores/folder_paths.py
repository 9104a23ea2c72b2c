"""Folders below a root, opened a part at a time, so that no symbolic link leads out of it.

The root itself may be a link: an operator chose it. Below it only the exporter makes folders,
and whoever else can write there could turn one into a link to anywhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def folder_below(root: Path, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder ``parts`` below ``root``, made durably if asked; OSError.

    ELOOP tells that a part is a symbolic link.
    """
    if make and not root.is_dir():
        with suppress(FileExistsError):
            root.mkdir()
        sync_folder(root.parent)
    descriptor = os.open(root, _FOLDER)
    try:
        for part in parts:
            inner = _enter(descriptor, part, make=make)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_regular(folder: int, name: str) -> int:
    """A descriptor of a plain file to read; nothing else of that name is opened or waited for."""
    try:
        # Without O_NONBLOCK, a pipe of that name would be waited for.
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        raise
    if S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def is_folder(folder: int, name: str) -> bool:
    """Whether the name is a folder, and no link to one."""
    return S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def sync_folder(path: Path) -> None:
    """What was made or linked in the folder survives a power cut from now on."""
    descriptor = os.open(path, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _enter(folder: int, part: str, *, make: bool) -> int:
    try:
        return _open(folder, part)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):
        os.mkdir(part, dir_fd=folder)
    # Also when another writer made it: it may not have come to this line yet.
    os.fsync(folder)
    return _open(folder, part)


def _open(folder: int, part: str) -> int:
    try:
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError as error:
        # Linux says so of a link, too.
        if S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
        raise
