"""The folder: atomic, durable, and never outside of itself."""

import errno
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.stores import new_object, race, read_all

from auditstore.errors import AuditStoreError, StoreRefused, StoreUnavailable
from auditstore.objects import NewObject, PutResult
from exporters.stores.folder import FolderStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore(str(root))


@pytest.mark.parametrize(
    "key", ["../x", "a/../../x", "/etc/passwd", "a//b", "", "a/./b", "a/", "a\0b", "a/.tmp-x"]
)
def test_keys_stay_inside(store: FolderStore, key: str) -> None:
    """A key that could name a file elsewhere, or a temporary one, is refused by each call."""
    for call in (
        lambda: store.put_if_absent(new_object(key)),
        lambda: store.head(key),
        lambda: store.read(key),
    ):
        with pytest.raises(StoreRefused) as caught:
            call()
        assert caught.value.code == "InvalidKey"


@pytest.mark.parametrize("prefix", ["../", "/", "a/../../", "../outside/x"])
def test_listings_stay_inside(store: FolderStore, root: Path, prefix: str) -> None:
    """A prefix that points elsewhere lists nothing."""
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "x").write_text("x")
    store.put_if_absent(new_object("a/b"))
    assert list(store.list(prefix)) == []


def test_nothing_temporary_is_left_or_listed(store: FolderStore, root: Path) -> None:
    """After writes only the files are there; what a crash left is not listed."""
    store.put_if_absent(new_object("a/x"))
    store.put_if_absent(new_object("a/x"))
    assert [path.name for path in (root / "a").iterdir()] == ["x"]
    (root / "a" / ".tmp-left").write_text("half")
    assert [info.key for info in store.list("")] == ["a/x"]


def test_the_folder_is_made_but_not_its_parent(tmp_path: Path) -> None:
    """The folder itself is made by the first write; a missing parent is a missing disk."""
    there = FolderStore(str(tmp_path / "new"))
    assert list(there.list("")) == []
    assert there.put_if_absent(new_object("a/b/c")).created
    absent = FolderStore(str(tmp_path / "mount" / "store" / "events"))
    with pytest.raises(StoreRefused) as caught:
        absent.put_if_absent(new_object("x"))
    assert caught.value.code == "NoSuchFolder"
    assert not (tmp_path / "mount").exists()


def _put_nth(store: FolderStore, news: list[NewObject], number: int) -> PutResult:
    return store.put_if_absent(news[number])


def test_many_first_writers_make_the_folders_together(tmp_path: Path) -> None:
    """Writers that all find the folder missing get on with one another, each time."""
    for number in range(50):
        store = FolderStore(str(tmp_path / f"store-{number}"))
        news = [new_object(f"a/b/{writer}") for writer in range(8)]
        results = race(8, partial(_put_nth, store, news))
        assert all(result.created for result in results)


def test_a_file_in_place_of_the_folder(root: Path, store: FolderStore) -> None:
    """A file where the folder should be is refused, not replaced."""
    root.write_text("a file")
    with pytest.raises(StoreRefused):
        store.put_if_absent(new_object("x"))
    with pytest.raises(StoreRefused):
        list(store.list(""))
    assert root.read_text() == "a file"


def test_a_file_in_place_of_a_key_s_folder(store: FolderStore) -> None:
    """Where a key needs a folder and a file lies, and the other way round, it is refused."""
    store.put_if_absent(new_object("a"))
    with pytest.raises(StoreRefused):
        store.put_if_absent(new_object("a/b"))
    store.put_if_absent(new_object("c/d"))
    with pytest.raises(StoreRefused):
        store.put_if_absent(new_object("c"))
    assert read_all(store, "a") == b"hello\n"


def test_a_name_that_is_too_long_is_refused(store: FolderStore) -> None:
    """The file system's own limit is told in words."""
    with pytest.raises(StoreRefused) as caught:
        store.put_if_absent(new_object("x" * 300))
    assert caught.value.code == "ENAMETOOLONG"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.EACCES, StoreRefused),
        (errno.EROFS, StoreRefused),
    ],
)
def test_failures_of_the_disk(
    store: FolderStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[AuditStoreError],
) -> None:
    """A full or failing disk passes once mended; rights and read-only are the operator's."""

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(kind) as caught:
            store.put_if_absent(new_object("x"))
    assert caught.value.hint
    assert not list(root.glob("*/.tmp-*"))
    assert not (root / "x").exists()
    assert store.put_if_absent(new_object("x")).created


def test_a_file_system_without_hard_links_is_refused(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing without overwriting needs hard links: without them nothing is written."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(StoreRefused) as caught:
        store.put_if_absent(new_object("x"))
    assert caught.value.code == "NoHardLinks"
    assert store.head("x") is None


def test_all_is_synced_before_it_counts(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before it gets its name, and its folder and new parents after."""
    steps: list[str] = []
    sync, link = os.fsync, os.link

    def record_sync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        steps.append("temporary" if name.startswith(".tmp-") else name)
        sync(descriptor)

    def record_link(source: str, target: str, **folders: Any) -> None:
        steps.append("link")
        link(source, target, **folders)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "link", record_link)
    store.put_if_absent(new_object("a/b/x"))
    assert steps == [root.parent.name, "store", "a", "temporary", "link", "b"]


# --- links and other things that lie in the way ----------------------------------------


@pytest.mark.parametrize("target", ["elsewhere", "nowhere", "/etc"])
def test_a_link_below_the_folder_is_never_followed(
    store: FolderStore, root: Path, target: str
) -> None:
    """Nothing is written, read, listed or described through it, and the refusal says why."""
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_bytes(b"hello\n")
    store.put_if_absent(new_object("before"))
    (root / "link").symlink_to(root.parent / target)
    for call in (
        lambda: store.put_if_absent(new_object("link/x")),
        lambda: store.put_if_absent(new_object("link/a/x")),
        lambda: store.read("link/secret"),
        lambda: store.head("link/secret"),
    ):
        with pytest.raises(StoreRefused) as caught:
            call()
        assert caught.value.code == "ELOOP"
        assert "symbolic link" in caught.value.hint
    assert [info.key for info in store.list("")] == ["before"]
    assert list(store.list("link/")) == []
    assert [path.name for path in elsewhere.iterdir()] == ["secret"]


def test_a_link_under_the_files_own_name_is_neither_followed_nor_replaced(
    store: FolderStore, root: Path
) -> None:
    """Not even where it leads to the same bytes: they could change behind our back."""
    store.put_if_absent(new_object("before"))
    outside = root.parent / "outside"
    outside.write_bytes(b"hello\n")
    (root / "x").symlink_to(outside)
    assert not store.put_if_absent(new_object("x")).created
    with pytest.raises(StoreRefused) as caught:
        store.read("x")
    assert caught.value.code == "ELOOP"
    assert store.head("x") is None
    assert (root / "x").is_symlink()
    assert outside.read_bytes() == b"hello\n"


def test_a_link_as_the_folder_itself_is_the_operators_choice(tmp_path: Path) -> None:
    """`/mnt/audit` may be a link to today's disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "audit").symlink_to(tmp_path / "disk")
    store = FolderStore(str(tmp_path / "audit"))
    assert store.put_if_absent(new_object("a/x")).created
    assert (tmp_path / "disk" / "a" / "x").read_bytes() == b"hello\n"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_not_waited_for(store: FolderStore, root: Path, kind: str) -> None:
    """A pipe under a key would let a reader wait for ever; it counts as taken, and as no object."""
    store.put_if_absent(new_object("before"))
    if kind == "pipe":
        os.mkfifo(root / "x")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(root / "x"))
    assert store.read("x") is None
    assert store.head("x") is None
    assert not store.put_if_absent(new_object("x")).created
    assert [info.key for info in store.list("")] == ["before"]
