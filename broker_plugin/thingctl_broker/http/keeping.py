"""Answers that wait: until what they tell is kept, and until an execution has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.types import Receive

    from thingctl_broker.executions import Execution
    from thingctl_broker.ports import Journal
    from thingctl_broker.waiting import EndWaiters


async def until_kept(journal: Journal) -> bool:
    """Return True when everything recorded so far is kept.

    Nothing that an answer says may be lost to a crash a moment later, so every answer
    about an execution comes behind this. Costs a call when there is nothing to wait for.

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


async def until_ended(waiters: EndWaiters, execution: Execution, seconds: float, receive: Receive) -> None:
    """Return when the execution has ended, ``seconds`` are over, or the broker is ending.

    Raises ClientDisconnect when the client goes away meanwhile. ``receive`` has given the
    whole body already.
    """
    if execution.is_terminal:
        return
    ended = asyncio.ensure_future(waiters.wait(execution, seconds))
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise ClientDisconnect
    finally:
        for task in (ended, gone):
            task.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
