"""The journal of a broker that keeps nothing beyond its own life (``--in-memory``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.commands.execution import Execution


class NullJournal:
    """Keeps nothing; everything counts as kept at once."""

    accepting = True

    def recover(self, now: float, at: float) -> Iterable[Execution]:  # noqa: ARG002 nothing was kept
        """Nothing."""
        return ()

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def record(self, execution: Execution) -> None:
        """Do nothing."""

    def forget(self, execution_id: str) -> None:
        """Do nothing."""

    def then(self, kept: Callable[[], None], lost: Callable[[], None] | None = None) -> None:  # noqa: ARG002
        """Call back at once."""
        kept()
