"""Callers that wait for an execution to end."""

from __future__ import annotations

import asyncio


class EndWaiters:
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
