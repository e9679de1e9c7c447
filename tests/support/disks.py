"""A disk that is small: a tmpfs of its own, which a test fills up and clears."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.needs import missing

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
