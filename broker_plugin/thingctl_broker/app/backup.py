"""Writes all that a broker keeps into one tar file, while it runs.

The order makes the copy consistent: the databases first, each as of a moment, then tokens, secrets,
certificates and the audit log, and the roll-outs last. A roll-out's record is then never older than the
executions that it counts.
"""

from __future__ import annotations

import os
import sqlite3
import tarfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from thingctl_broker.storage.rollout_files import DIRECTORY as ROLLOUTS
from thingctl_broker.storage.sqlite.database import copy_database
from thingctl_broker.storage.sqlite.record_store import FILE as RECORDS_FILE
from thingctl_broker.storage.sqlite.registry import REGISTRY_FILE
from thingctl_broker.system.files import NewFile

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA: Final = "data"
SETTINGS: Final = "etc"
"""Folders in the tar file."""

_DATABASES: Final = ("executions.db", REGISTRY_FILE, RECORDS_FILE)
_LEFT_OUT: Final = ("-wal", "-shm", "-journal", "lock")


class BackupError(Exception):
    """There is no backup; the text says why."""


def back_up(data_dir: Path, settings_dir: Path | None, target: Path) -> int:
    """Write ``target`` (mode 0600, not there yet) and return its size in bytes.

    ``settings_dir``: a folder with settings that is to be in it, too. Raises :class:`BackupError`; then
    there is no such file.
    """
    if not (data_dir / REGISTRY_FILE).exists() and not (data_dir / "tokens.json").exists():
        raise BackupError(f"{data_dir} is no broker's data directory")
    try:
        file = NewFile(target)
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror}") from None
    try:
        with file:
            with file.stream() as stream, tarfile.open(fileobj=stream, mode="w") as archive:
                _add_all(archive, data_dir, settings_dir)
            file.keep()
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"the backup failed and was removed: {error}") from None
    return target.stat().st_size


def _add_all(archive: tarfile.TarFile, data_dir: Path, settings_dir: Path | None) -> None:
    with TemporaryDirectory(prefix="thingctl-backup-", dir=_room(data_dir)) as room:
        for name in _DATABASES:
            if (data_dir / name).exists():
                copy = Path(room) / name
                copy_database(data_dir / name, copy)
                _add(archive, copy, f"{DATA}/{name}")
    for path in _files(data_dir):
        _add(archive, path, f"{DATA}/{path.relative_to(data_dir)}")
    if settings_dir is not None:
        for path in _files(settings_dir):
            _add(archive, path, f"{SETTINGS}/{path.relative_to(settings_dir)}")


def _room(data_dir: Path) -> str | None:
    """Where a database's copy fits: beside the data, if that is writable."""
    return str(data_dir.parent) if os.access(data_dir.parent, os.W_OK) else None


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder but what SQLite and locks leave there; the roll-outs last."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in sorted(found, key=lambda path: (path.parent.name == ROLLOUTS, str(path))):
        if path.name not in _DATABASES and not path.name.endswith(_LEFT_OUT):
            yield path


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    with suppress(FileNotFoundError), path.open("rb") as file:  # a roll-out may end in between
        archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), file)
