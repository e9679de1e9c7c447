"""What is kept of rollouts: one small file for each, replaced whole."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from thingctl_broker.rollouts.rollout import RolloutRecord
from thingctl_broker.system.files import make_private_directory, remove_leftovers, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY: Final = "rollouts"
"""In the data directory."""

_records: Final = msgspec.json.Decoder(RolloutRecord)


class RolloutFiles:
    """Keeps records in ``directory/rollouts``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / DIRECTORY
        self._log = structlog.get_logger("thingctl.rollouts")
        self._one_at_a_time = asyncio.Lock()

    def load(self) -> list[RolloutRecord]:
        """Every record, oldest first. A damaged file is left as it is, and told of."""
        remove_leftovers(self._directory)
        records: list[RolloutRecord] = []
        for path in sorted(self._directory.glob("*.json")):  # ids ascend with time
            try:
                records.append(_records.decode(path.read_bytes()))
            except (msgspec.DecodeError, OSError, UnicodeDecodeError) as error:
                self._log.error(
                    "a rollout cannot be read and does not go on", path=str(path), fault=str(error)
                )
        return records

    async def save(self, record: RolloutRecord) -> None:
        """Keep the record as it stands now; raises OSError."""
        encoded = msgspec.json.encode(record)
        async with self._one_at_a_time:  # else an older state might replace a newer one
            await asyncio.to_thread(self._write, f"{record.command_id}.json", encoded)

    def remove(self, command_id: str) -> None:
        """Let a record go."""
        with contextlib.suppress(OSError):
            (self._directory / f"{command_id}.json").unlink()

    def _write(self, name: str, encoded: bytes) -> None:
        make_private_directory(self._directory)
        write_atomic(self._directory / name, encoded)
