"""Calls that run at once go into the database together.

While one batch is under way, what comes meanwhile gathers and is the next one. There is no
fixed window: a lone call goes at once, a thousand go together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class BatchQueue(Generic[_Asked, _Answer]):
    """Calls of one kind.

    ``run`` does a batch and returns the answer to each call, or the exception to raise there.
    ``keys``: what a call is about. Of the calls about the same thing only one is in a batch or
    under way; the others follow in their order. ``parallel``: batches under way at once.
    ``wait``: seconds to let calls gather, for what is in no hurry.
    """

    def __init__(
        self,
        run: Callable[[list[_Asked]], Awaitable[Sequence[_Answer | Exception]]],
        keys: Callable[[_Asked], tuple[Hashable, ...]],
        *,
        batch_max: int = 500,
        parallel: int = 1,
        wait: float = 0.0,
    ) -> None:
        self._run = run
        self._keys = keys
        self._batch_max = batch_max
        self.parallel = parallel
        self._wait = wait
        self._waiting: deque[tuple[_Asked, asyncio.Future[_Answer]]] = deque()
        self._under_way: set[Hashable] = set()
        self._driving = 0  # counted apart: a task is done a little before its callbacks are called
        self._drivers: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()
        self.batches = 0
        """Batches since the start."""

    async def __call__(self, asked: _Asked) -> _Answer:
        """Ask, and wait for the answer. A caller that goes away does not undo what it asked for."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()
        self._waiting.append((asked, answer))
        if self._driving < self.parallel:
            self._driving += 1
            driver = loop.create_task(self._drive(), name="store")
            self._drivers.add(driver)
            driver.add_done_callback(self._drivers.discard)
        return await answer

    async def drained(self) -> None:
        """Return when nothing waits any more and nothing is under way."""
        self._hurry.set()
        while self._drivers:
            await asyncio.wait(tuple(self._drivers))
        self._hurry.clear()

    async def _drive(self) -> None:
        try:
            await self._work()
        finally:
            self._driving -= 1

    async def _work(self) -> None:
        if self._wait:
            try:
                async with asyncio.timeout(self._wait):
                    await self._hurry.wait()
            except TimeoutError:
                pass
        while batch := self._take():
            asked = [entry[0] for entry in batch]
            keys = {key for one in asked for key in self._keys(one)}
            self._under_way |= keys
            try:
                answers = await self._run(asked)
            except Exception as error:
                answers = [error] * len(batch)
            finally:
                self._under_way -= keys
            self.batches += 1
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue  # its caller has gone
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _take(self) -> list[tuple[_Asked, asyncio.Future[_Answer]]]:
        """What goes now: of each key the first call, and none whose key is under way."""
        batch: list[tuple[_Asked, asyncio.Future[_Answer]]] = []
        held: deque[tuple[_Asked, asyncio.Future[_Answer]]] = deque()
        taken = set(self._under_way)
        while self._waiting and len(batch) < self._batch_max:
            entry = self._waiting.popleft()
            if entry[1].cancelled():
                continue  # nothing has been done for it yet, and nothing is
            keys = self._keys(entry[0])
            if taken.isdisjoint(keys):
                batch.append(entry)
            else:
                held.append(entry)
            taken.update(keys)  # also of those held back: what follows them stays behind them
        self._waiting.extendleft(reversed(held))
        return batch
