"""Whether files are still where their paths say.

A database whose directory was removed or moved under a running process can be written as
before: the files live on without a name until they are closed, and then they are gone, with
every commit that somebody was told of.
"""

from __future__ import annotations

import os
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class FileReplaced(Exception):
    """A file is not there any more, or another one is; the text says which."""


class FileIdentity:
    """Files of one directory that are open, as they were found at first."""

    def __init__(self, *paths: Path) -> None:
        """Raises OSError when one of them is not there."""
        self._found = [(str(path), _identity(str(path))) for path in paths]
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


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 a path as text is what is at hand, for each commit
    return status.st_dev, status.st_ino
