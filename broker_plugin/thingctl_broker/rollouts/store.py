"""What keeps roll-outs when the broker ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from thingctl_broker.rollouts.rollout import RolloutRecord


class RolloutStore(Protocol):
    """Keeps one record for each roll-out, by its command's id."""

    def load(self) -> list[RolloutRecord]:
        """Return every record, oldest first."""
        ...

    async def save(self, record: RolloutRecord) -> None:
        """Keep the record as it is now; raises OSError."""
        ...

    def remove(self, command_id: str) -> None:
        """Forget a record."""
        ...
