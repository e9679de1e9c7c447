"""Disks with faults: one that is small, which a test fills up and clears, and one that does not flush names."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from support.needs import missing
from support.preload import preloaded

CHUNK = bytes(64 * 1024)


class SmallDisk:
    """A mounted tmpfs; ``path`` is a directory on it."""

    def __init__(self, mount: Path) -> None:
        self.path = mount / "state"
        self._filler = mount / "filler"

    def fill(self, free: int = 0) -> None:
        """Leave ``free`` bytes, as whole pages: no file can grow by more."""
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(CHUNK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            filler.truncate(max(0, filler.tell() - free))

    def clear(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a tmpfs of that size (``12m``) below ``directory``, and unmount it in the end."""
    mount = directory / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        missing("a disk of a few megabytes needs the right to mount a tmpfs")
    try:
        yield SmallDisk(mount)
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


_FLUSH = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int fsync(int file) {
    const char *fault = getenv("FLUSH_FAULT");
    struct stat status;
    if (fault && !access(fault, F_OK) && !fstat(file, &status) && S_ISDIR(status.st_mode)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_fsync, file);
}
"""


class FailingFlush:
    """For processes that are started with ``environment``: directories that cannot be flushed for a while."""

    def __init__(self, folder: Path) -> None:
        self._fault = folder / "fault"
        library = preloaded(folder, "flush", _FLUSH)
        self.environment = {"LD_PRELOAD": str(library), "FLUSH_FAULT": str(self._fault)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        self._fault.touch()

    def end(self) -> None:
        self._fault.unlink(missing_ok=True)
