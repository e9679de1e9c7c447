"""Callers that wait: for an execution to end, and for the change that an answer reports to be durable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingctl_broker.commands.ports import Journal


class CompletionWaiters:
    """Wakes whoever waits for an execution, when it is told that the execution has ended."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self.released = False
        """Whether nobody waits any more: the broker is ending."""

    async def wait(self, execution_id: str, seconds: float) -> None:
        """Wait until the execution ends, at most ``seconds``; not at all when the broker is ending."""
        if self.released:
            return
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(execution_id, [])
        waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(execution_id, None)

    def ended(self, execution_id: str) -> None:
        """The execution has ended."""
        if self._waiters:
            _wake(self._waiters.get(execution_id, []))

    def wake_all(self) -> None:
        """Some may have ended unnoticed: everybody is to look again."""
        for waiters in self._waiters.values():
            _wake(waiters)

    def release(self) -> None:
        """Let everybody go who still waits, now and from now on: the broker is ending."""
        self.released = True
        self.wake_all()


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


async def until_kept(journal: Journal) -> bool:
    """Return True when everything recorded so far is kept. Costs a call when there is nothing to wait for.

    Returns False, and soon, when the journal cannot write: what was recorded is true of the
    broker that runs, but not kept; executions that were new have been withdrawn.
    """
    if not journal.accepting:
        return False
    kept = _Durable()
    journal.then(kept, kept.lost)
    if not kept.yes:
        kept.waiter = asyncio.get_running_loop().create_future()
        return await kept.waiter
    return True


class _Durable:
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
        """The write failed: waiters are released with an error."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(False)
