"""Callers that wait for an execution to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from thingctl_broker.events import Change

if TYPE_CHECKING:
    from thingctl_broker.events import Events
    from thingctl_broker.executions import Execution


class EndWaiters:
    """Wakes whoever waits for an execution, when it ends."""

    def __init__(self, events: Events) -> None:
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._released = False
        events.subscribe(self._on_end, (Change.ENDED,))

    async def wait(self, execution: Execution, seconds: float) -> bool:
        """Wait until the execution has ended, at most ``seconds``; return whether it has.

        Returns at once when the broker is ending.
        """
        if execution.is_terminal or self._released:
            return execution.is_terminal
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(execution.execution_id, [])
        waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(execution.execution_id, None)
        return execution.is_terminal

    def release(self) -> None:
        """Let everybody go who still waits, now and from now on: the broker is ending."""
        self._released = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _on_end(self, execution: Execution, _: Change) -> None:
        if self._waiters:
            for waiter in self._waiters.get(execution.execution_id, ()):
                if not waiter.done():
                    waiter.set_result(None)
