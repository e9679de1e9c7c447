"""Callers that wait until what they are told is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingctl_broker.ports import Journal


async def until_kept(journal: Journal) -> bool:
    """Return True when everything recorded so far is kept. Costs a call when there is nothing to wait for.

    Returns False, and soon, when the journal cannot write: what was recorded is true of the
    broker that runs, but not kept; executions that were new have been withdrawn.
    """
    if not journal.accepting:
        return False
    kept = _Kept()
    journal.then(kept, kept.lost)
    if not kept.yes:
        kept.waiter = asyncio.get_running_loop().create_future()
        return await kept.waiter
    return True


class _Kept:
    """Called back at once, or later; makes a future only in the second case."""

    __slots__ = ("waiter", "yes")

    def __init__(self) -> None:
        self.yes = False
        self.waiter: asyncio.Future[bool] | None = None

    def __call__(self) -> None:
        self.yes = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(True)

    def lost(self) -> None:
        """Nothing will come of it for now."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(False)
