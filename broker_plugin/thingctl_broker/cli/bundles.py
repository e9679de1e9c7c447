"""The file of a bundle. The CLI makes it before it asks the broker: a file that fails changes nothing."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.system.files import NewFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingctl_broker.cli.client import Json

STDOUT: Final = Path("-")


class BundleFile:
    """A file that is there, empty, and takes one bundle."""

    def __init__(self, path: Path, file: NewFile) -> None:
        self._path = path
        self._file = file

    def write_bundle(self, thing: Json) -> None:
        """Write the bundle of a thing as the broker answered it. Raises :class:`Failure`."""
        try:
            self._file.write(bundle_text(thing).encode())
            self._file.keep()
        except OSError as error:
            raise Failure(
                Exit.USAGE,
                f"{self._path} cannot be written: {error.strerror}; the broker has made the password: "
                f"thingctl things password {thing.get('name')} --bundle FILE makes another one",
            ) from None


@contextmanager
def bundle_file(path: Path | None, *, force: bool) -> Iterator[BundleFile | None]:
    """Make the file before anything else is done; it goes again when that fails.

    ``path``: None or ``-`` for none. ``force``: what is there is replaced, when the bundle is
    written. The mode is 0600. Raises :class:`Failure` for a file that cannot be written.
    """
    if path is None or path == STDOUT:
        yield None
        return
    try:
        file = _make(path, force=force)
    except FileExistsError:
        raise Failure(
            Exit.USAGE,
            f"{path} exists already: give another file, or --force to replace it; nothing was changed",
        ) from None
    except OSError as error:
        raise Failure(
            Exit.USAGE, f"{path} cannot be written: {error.strerror}; nothing was changed"
        ) from None
    with file:
        yield BundleFile(path, file)


def bundle_text(thing: Json) -> str:
    """The text of the bundle file of a thing as the broker answered it."""
    return json.dumps(thing["bundle"], indent=2, ensure_ascii=False) + "\n"


def print_bundle(thing: Json) -> None:
    """Print the bundle for another program."""
    sys.stdout.write(bundle_text(thing))


def _make(path: Path, *, force: bool) -> NewFile:
    from thingctl_protocol.bundle import BUNDLE_MAX  # noqa: PLC0415 the other commands must start fast

    if force and path.is_dir():
        raise IsADirectoryError(0, "it is a directory")
    file = NewFile(path, replaces=force)
    try:
        file.reserve(BUNDLE_MAX)  # a full disk is found out now
    except OSError:
        with file:
            raise
    return file
