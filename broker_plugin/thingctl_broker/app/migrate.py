"""Moves what an embedded broker has kept into the store of a cluster.

The data directory is only read, under its locks, so that no broker runs on it meanwhile; all
there is in it stays as it is. What the store has already stays as it is too: moving again adds
what is missing and changes nothing else.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import ExitStack, closing
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from thingctl_broker.app.config import CommandSettings
from thingctl_broker.cluster.token_replica import KIND as TOKEN_KIND
from thingctl_broker.rollouts.rollout import RolloutRecord
from thingctl_broker.security.token_file import encode_token, read_tokens
from thingctl_broker.security.tokens import CredentialsError
from thingctl_broker.storage.postgres.importing import import_documents, import_executions, import_rollout
from thingctl_broker.storage.postgres.pool import Database
from thingctl_broker.storage.postgres.settings import check_url
from thingctl_broker.storage.postgres.store import prepare
from thingctl_broker.storage.rollout_files import DIRECTORY as ROLLOUTS_DIRECTORY
from thingctl_broker.storage.sqlite.database import (
    DatabaseFileError,
    check_current,
    check_whole,
    lock,
    open_to_read,
)
from thingctl_broker.storage.sqlite.execution_rows import SCHEMA, SELECT, RowReader
from thingctl_broker.storage.sqlite.journal import FILE as EXECUTIONS_FILE
from thingctl_broker.storage.sqlite.registry import read_records
from thingctl_broker.system.paths import TOKENS_FILE
from thingctl_broker.webhooks import secret as webhook_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.storage.postgres.settings import StoreSettings

BATCH: Final = 1000
"""Executions, and records, of one statement."""


class SourceError(Exception):
    """The data directory cannot be moved from. ``text`` is one sentence for people."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Moved(NamedTuple):
    """How many of a kind were found in the data directory, and how many the store did not have."""

    kind: str
    found: int
    added: int


async def move(
    data_dir: Path, settings: StoreSettings, progress: Callable[[str, int], None] = lambda *_: None
) -> list[Moved]:
    """Bring everything into the store. ``progress`` hears how many of a kind have been dealt with.

    Everything is looked at before anything is written, but for the executions, of which there
    may be many: those are checked one by one.

    Raises ValueError when the settings name no PostgreSQL, :class:`SourceError`,
    :class:`~thingctl_broker.cluster.store_port.StoreDown` and
    :class:`~thingctl_broker.storage.postgres.schema.SchemaError`.
    """
    check_url(settings.url)
    with ExitStack() as stack:
        source = _Source(data_dir, stack)
        await prepare(settings)
        database = Database(settings)
        await database.start()
        try:
            return [
                await _move_records(database, "things", source.registry, progress),
                await _move_records(database, "tokens", source.tokens, progress),
                await _move_records(database, "secrets", source.secrets, progress),
                # First the rollouts: an execution that ends must find the one that it belongs to.
                await _move_rollouts(database, source.rollouts, progress),
                await _move_executions(database, source.executions(), progress),
            ]
        finally:
            await database.stop()


class _Source:
    """A data directory, held and looked through."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        if not directory.is_dir():
            raise SourceError(f"there is no data directory {directory}")
        self._executions = directory / EXECUTIONS_FILE
        tokens = directory / TOKENS_FILE
        rollouts = directory / ROLLOUTS_DIRECTORY
        if not any(path.exists() for path in (self._executions, tokens, rollouts)):
            raise SourceError(f"{directory} is no data directory of thingctl: there is nothing in it to move")
        try:
            stack.callback(os.close, lock(directory))
            self._has_executions = self._executions.exists()
            if self._has_executions:
                check_current(self._executions, SCHEMA)
                check_whole(self._executions)
            self.registry = [(str(kind), name, value) for kind, name, value in read_records(directory)]
            found = read_tokens(tokens) or {}
            secret = webhook_secret.read(directory)
        except (DatabaseFileError, CredentialsError, OSError) as error:
            raise SourceError(str(error)) from None
        self.tokens = [
            (TOKEN_KIND, token.name, encode_token(digest, token)) for digest, token in found.items()
        ]
        self.secrets = [] if secret is None else [(*webhook_secret.RECORD, secret)]
        self.rollouts = [_read_rollout(path) for path in sorted(rollouts.glob("*.json"))]

    def executions(self) -> Iterator[Execution]:
        """Every execution, oldest first. Raises :class:`SourceError` when one is damaged."""
        if not self._has_executions:
            return
        now, unix = time.monotonic(), time.time()
        reader = RowReader(now, unix)
        try:
            with closing(open_to_read(self._executions)) as connection:
                for row in connection.execute(SELECT):
                    execution = reader.read(row)
                    if execution.cancel_wanted_at is not None:
                        # A crash came between the record of the wish and the cancel itself.
                        execution.cancel_wanted_at = None
                        execution.cancel(now, unix, CommandSettings().cancel_grace)
                    yield execution
        except (sqlite3.Error, msgspec.MsgspecError, ValueError) as error:
            raise SourceError(f"{self._executions} is damaged: {error}. It was left as it is.") from None


def _read_rollout(path: Path) -> RolloutRecord:
    try:
        return msgspec.json.decode(path.read_bytes(), type=RolloutRecord)
    except (msgspec.DecodeError, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read ({error}); it was left as it is") from None


async def _move_records(
    database: Database, kind: str, records: list[tuple[str, str, bytes]], progress: Callable[[str, int], None]
) -> Moved:
    added = 0
    for at in range(0, len(records), BATCH):
        added += await import_documents(database, records[at : at + BATCH])
        progress(kind, min(at + BATCH, len(records)))
    return Moved(kind, len(records), added)


async def _move_rollouts(
    database: Database, records: list[RolloutRecord], progress: Callable[[str, int], None]
) -> Moved:
    added = 0
    for done, record in enumerate(records, 1):
        added += await import_rollout(database, record)
        progress("rollouts", done)
    return Moved("rollouts", len(records), added)


async def _move_executions(
    database: Database, executions: Iterator[Execution], progress: Callable[[str, int], None]
) -> Moved:
    found = added = 0
    while batch := list(islice(executions, BATCH)):
        try:
            added += await import_executions(database, batch)
        except ValueError as error:
            raise SourceError(f"an execution cannot be moved: {error}") from None
        found += len(batch)
        progress("executions", found)
    return Moved("executions", found, added)
