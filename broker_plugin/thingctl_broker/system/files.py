"""Writes files whole or not at all, and notices files that were removed or moved.

A write that raises has changed nothing, also when only the last flush to the disk failed: an answer
that refuses a change is then true.

A database whose directory was removed or moved under a running process can be written as
before: the files live on without a name until they are closed, and then they are gone, with
every commit in them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from itertools import cycle
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

FULL_BELOW: Final = 128 * 1024
"""Bytes that a disk has free at the least, or it is called full."""

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CANNOT_FLUSH: Final = {errno.EINVAL, errno.ENOTSUP}
"""What file systems say that cannot flush a directory: they keep names in another way."""

_CANNOT_LINK: Final = {errno.EPERM, errno.ENOTSUP, errno.EMLINK}
"""What file systems say that have no hard links."""


def make_private_directory(directory: Path) -> None:
    """Make a directory with mode 0700, and its parents, if it is not there; raises OSError."""
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(directory.parent)


def write_atomic(path: Path, content: bytes, mode: int = 0o600, group: str | None = None) -> None:
    """Put a file with this content, mode and group at ``path``, durably.

    Raises OSError; then the file that was there is there as before, and no other one. (LookupError
    for a group that is not there, likewise.)
    """
    with NewFile(path, replaces=True) as file:
        if group is not None:
            shutil.chown(file.written, group=group)
        os.fchmod(file.descriptor, mode)
        file.write(content)
        file.keep()


class NewFile:
    """A file with mode 0600 that is made before its content is known, and goes unless it is kept.

    A context manager. Where it ``replaces`` what is at ``path``, it has another name until it is kept.
    """

    def __init__(self, path: Path, *, replaces: bool = False) -> None:
        """Raises FileExistsError for a file that it does not replace, or OSError."""
        self._target = path
        self._kept = False
        self.written = path.with_name(f".{path.name}.{os.urandom(6).hex()}.new") if replaces else path
        # The directory first: a want of descriptors must not show when the work is done.
        self._directory = os.open(path.parent, _DIRECTORY)
        try:
            self.descriptor = os.open(self.written, _NEW, 0o600)
        except OSError:
            os.close(self._directory)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        os.close(self._directory)
        if not self._kept:
            with contextlib.suppress(OSError):
                self.written.unlink()

    def reserve(self, size: int) -> None:
        """Take so many bytes of the disk; raises OSError when there is no room."""
        os.posix_fallocate(self.descriptor, 0, size)

    def write(self, content: bytes) -> None:
        """Make this the whole content, and flush it to the disk; raises OSError."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        with self.stream() as file:
            file.write(content)
        os.ftruncate(self.descriptor, len(content))  # late: what was reserved stays ours until then
        os.fsync(self.descriptor)

    def stream(self) -> BinaryIO:
        """Return the file as one to write to and to close."""
        return os.fdopen(os.dup(self.descriptor), "wb")

    def keep(self) -> None:
        """Flush the file and its name to the disk.

        Raises OSError; then there is at the path what was there before.
        """
        os.fsync(self.descriptor)
        if self.written == self._target:
            _flush(self._directory)
        else:
            self._replace()
        self._kept = True

    def _replace(self) -> None:
        before = _second_name(self._target, self.written.with_suffix(".old"))
        try:
            self.written.replace(self._target)
            try:
                _flush(self._directory)
            except OSError:
                if _put_back(before, self._target):
                    raise
                # The new file is what is there, so that is the answer.
        finally:
            if before is not None:
                with contextlib.suppress(OSError):
                    before.unlink()


def remove_leftovers(directory: Path) -> None:
    """Remove what a process that was killed has left of files that it replaced; no other may write there."""
    for ending in ("new", "old"):
        for path in directory.glob(f".*.{ending}"):
            with contextlib.suppress(OSError):
                path.unlink()


def disk_fault(path: Path, error: Exception) -> str:
    """Return the text of an error, and whether the disk of ``path`` is full: SQLite has many texts for it."""
    text = str(error)
    with contextlib.suppress(OSError):
        disk = os.statvfs(path.parent)
        if "full" not in text and disk.f_bavail * disk.f_frsize < FULL_BELOW:
            return f"{text} (the disk is full)"
    return text


def sync_directory(directory: Path) -> None:
    """Flush the names in a directory to the disk; raises OSError."""
    handle = os.open(directory, _DIRECTORY)
    try:
        _flush(handle)
    finally:
        os.close(handle)


def _flush(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise


def _second_name(path: Path, other: Path) -> Path | None:
    """Give the file at ``path`` another name; None: there is no such file. Raises OSError."""
    try:
        other.hardlink_to(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        if not path.exists():
            return None
        shutil.copy2(path, other)
    return other


def _put_back(before: Path | None, path: Path) -> bool:
    """Put the file with the second name back; False: that failed."""
    try:
        if before is None:
            path.unlink()
        else:
            before.replace(path)
    except OSError:
        return False
    return True


class FileReplaced(Exception):
    """A file is not there any more, or another one is; the text says which."""


class FileIdentity:
    """Files of one directory that are open, as they were found at first."""

    def __init__(self, *paths: Path, descriptor: int | None = None) -> None:
        """``descriptor``: of the one file, if it is open. Raises OSError when a file is not there."""
        self._found = [
            (str(path), _identity(str(path) if descriptor is None else descriptor)) for path in paths
        ]
        self._turns = cycle(self._found)
        self._missed = False

    def check(self) -> None:
        """Raise :class:`FileReplaced` when a path does not name the same file any more.

        Looks at one of them, each in its turn, which takes a few microseconds: what becomes of
        the directory shows at any of them. After a fault, at all of them until there is none.
        """
        for path, found in self._found if self._missed else (next(self._turns),):
            try:
                identity = _identity(path)
            except OSError as error:
                self._missed = True
                raise FileReplaced(
                    f"{path} was removed or moved while it was used: {error.strerror}"
                ) from None
            if identity != found:
                self._missed = True
                raise FileReplaced(
                    f"{path} was replaced while it was used: what is there now is another file"
                )
        self._missed = False


def _identity(file: str | int) -> tuple[int, int]:
    status = os.stat(file)  # noqa: PTH116 a path as text is what is at hand, for each commit
    return status.st_dev, status.st_ino
