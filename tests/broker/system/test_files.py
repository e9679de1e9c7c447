"""A write that raises has changed nothing; a file that was moved is noticed."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from thingctl_broker.system.files import (
    FileIdentity,
    FileReplaced,
    NewFile,
    make_private_directory,
    remove_leftovers,
    sync_directory,
    write_atomic,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data" / "file"
    path.parent.mkdir()
    path.write_text("x")
    return path


def test_a_file_that_changes_is_still_the_same(file):
    placed = FileIdentity(file)
    file.write_text("y" * 10_000)
    os.truncate(file, 0)
    file.chmod(0o400)
    placed.check()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda file: file.unlink(), "removed or moved"),
        (lambda file: file.parent.rename(file.parent.with_name("other")), "removed or moved"),
        (lambda file: (file.rename(f"{file}.old"), file.write_text("x")), "replaced"),
    ],
)
def test_a_file_that_is_gone_or_another_is_missed(file, harm, words):
    other = file.with_name("other")
    other.write_text("x")
    placed = FileIdentity(other, file)
    placed.check()  # one file at a time: it is this one's turn
    harm(file)
    with pytest.raises(FileReplaced, match=words):
        placed.check()
    for _ in range(3):  # and no more of that: the good one must not hide the other
        with pytest.raises(FileReplaced, match=words):
            placed.check()


def test_what_comes_back_is_found(file):
    other = file.with_name("other")
    other.write_text("x")
    placed = FileIdentity(other, file)
    file.parent.rename(elsewhere := file.parent.with_name("elsewhere"))
    with pytest.raises(FileReplaced):
        placed.check()
    elsewhere.rename(file.parent)
    for _ in range(4):
        placed.check()


def test_what_was_never_there_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileIdentity(tmp_path / "nothing")


def fail_directories(monkeypatch, number=errno.EIO):
    """Make the flush of each directory fail; of files it works."""
    flush = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def create_exclusive(path, content):
    with NewFile(path) as file:
        file.write(content)
        file.keep()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "folder"
    make_private_directory(made)
    return made


def test_a_file_has_its_content_and_mode_and_no_neighbours(folder):
    os.umask(before := os.umask(0))
    write_atomic(folder / "a", b"1")
    write_atomic(folder / "a", b"22")
    write_atomic(folder / "b", b"", 0o644)
    create_exclusive(folder / "c", b"3")
    os.umask(before)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a": b"22", "b": b"", "c": b"3"}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"folder": 0o700, "a": 0o600, "b": 0o644, "c": 0o600}


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_directory_that_cannot_be_flushed_leaves_what_was_there(folder, monkeypatch, before):
    if before is not None:
        write_atomic(folder / "a", before)
    fail_directories(monkeypatch)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(folder / "a", b"new")
    with pytest.raises(OSError, match="Input/output error"):
        create_exclusive(folder / "c", b"new")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == (
        [] if before is None else [("a", before)]
    )


def test_what_cannot_be_undone_is_done(folder, monkeypatch):
    fail_directories(monkeypatch)

    def refuse(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(type(folder), "unlink", refuse)
    write_atomic(folder / "a", b"new")
    assert (folder / "a").read_bytes() == b"new"


def test_a_file_system_that_cannot_flush_directories_will_do(folder, monkeypatch):
    fail_directories(monkeypatch, errno.EINVAL)
    write_atomic(folder / "a", b"new")
    sync_directory(folder)
    assert (folder / "a").read_bytes() == b"new"


def test_a_file_that_was_replaced_before_it_was_first_looked_at_is_noticed(tmp_path):
    file = tmp_path / "log"
    with file.open("w") as opened:
        file.rename(tmp_path / "elsewhere")
        file.write_text("another")
        placed = FileIdentity(file, descriptor=opened.fileno())
        with pytest.raises(FileReplaced, match="replaced while it was used"):
            placed.check()


def test_a_file_system_without_hard_links_will_do(folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_atomic(folder / "a", b"old")
    fail_directories(monkeypatch)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(folder / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a", b"old")]


def test_a_file_that_is_there_already_is_not_made_and_stays(folder):
    (folder / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        create_exclusive(folder / "a", b"new")
    assert (folder / "a").read_bytes() == b"old"


@pytest.mark.parametrize("replaces", [True, False])
def test_a_new_file_goes_unless_it_is_kept(folder, replaces):
    with suppress(ZeroDivisionError), NewFile(folder / "a", replaces=replaces) as file:
        file.reserve(1000)
        file.write(b"content")
        1 / 0  # noqa: B018 - the fault
    assert list(folder.iterdir()) == []
    with NewFile(folder / "a", replaces=replaces) as file:
        file.reserve(1000)
        file.write(b"content")
        file.keep()
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("a", b"content")]


def test_no_descriptor_is_left_open(folder):
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    (folder / "a").mkdir()
    for _ in range(3):
        write_atomic(folder / "b", b"1")
        with suppress(OSError):
            write_atomic(folder / "a", b"1")
        with suppress(OSError):
            create_exclusive(folder / "b", b"1")
    assert len(list(open_files.iterdir())) == before
    assert {path.name for path in folder.iterdir()} == {"a", "b"}


def test_what_a_killed_process_has_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.json.0a.new", ".a.json.0a.old", "a.json", ".hidden", "b.new"):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.json", "b.new"]
