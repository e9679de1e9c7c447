"""Whether files are still where their paths say.

A database whose directory was removed or moved under a running process can be written as
before: the files live on without a name until they are closed, and then they are gone, with
every commit that somebody was told of.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Misplaced(Exception):
    """A file is not there any more, or another one is; the text says which."""


class Placed:
    """Files that are open, as they were found at first. :meth:`check` takes a microsecond or two for each."""

    def __init__(self, *paths: Path) -> None:
        """Raises OSError when one of them is not there."""
        self._paths = [str(path) for path in paths]
        self._found = [_identity(path) for path in self._paths]

    def check(self) -> None:
        """Raise :class:`Misplaced` unless each path names the same file still."""
        for path, found in zip(self._paths, self._found, strict=True):
            try:
                identity = _identity(path)
            except OSError as error:
                raise Misplaced(f"{path} was removed or moved while it was used: {error.strerror}") from None
            if identity != found:
                raise Misplaced(f"{path} was replaced while it was used: what is there now is another file")


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 a path as text is what is at hand, for each commit
    return status.st_dev, status.st_ino
