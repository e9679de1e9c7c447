"""Files of a service: all written, or all left as they are; each readable by its readers alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Placement(NamedTuple):
    """A file to write. ``path``: below the root. ``group``: root's when not given.

    ``shown``: whether a dry run prints the content.
    """

    path: str
    content: bytes
    mode: int
    group: str = ""
    shown: bool = True


def under(root: Path, path: str) -> Path:
    """Return where the path of a device is below a root."""
    return root / path.lstrip("/")


def difference(root: Path, placement: Placement) -> str:
    """Return what writing a file would do: ``write``, ``replace``, or nothing when it is there."""
    target = under(root, placement.path)
    try:
        same = target.read_bytes() == placement.content
        same = same and stat.S_IMODE(target.stat().st_mode) == placement.mode
        same = same and (not placement.group or target.group() == placement.group)
    except FileNotFoundError:
        return "write"
    except KeyError:  # a group without a name
        return "replace"
    return "" if same else "replace"


def put_all(root: Path, placements: Sequence[Placement]) -> None:
    """Write the files; raises OSError before any of them is replaced when the disk does not take them."""
    staged: list[tuple[Path, Path]] = []
    try:
        staged.extend((_staged(root, placement), under(root, placement.path)) for placement in placements)
        for new, target in staged:
            new.replace(target)
        for folder in {target.parent for _, target in staged}:
            _flush(folder)
    finally:
        for new, _ in staged:
            new.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Flush the names in a folder. Without it the files are there, too; only a power cut could lose them."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _staged(root: Path, placement: Placement) -> Path:
    """Write a file beside its target. It has its mode and group before its name is the target's."""
    target = under(root, placement.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(placement.content)
            file.flush()
            os.fsync(file.fileno())
            if placement.group:
                shutil.chown(new, group=placement.group)
            os.fchmod(file.fileno(), placement.mode)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return new
