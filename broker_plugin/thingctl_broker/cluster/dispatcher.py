"""Sees requests on their way: from the store, over the link, and what the cluster made of them.

A request is marked as published before it is, so that no crash lets one run that the store
says never left; the mark is taken back when the cluster says that nobody was there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.cluster.link_port import Handed, LinkDown
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.commands.broker_time import ToldTime
from thingctl_broker.commands.events import Change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from thingctl_broker.cluster.link_port import ThingLink
    from thingctl_broker.cluster.reachability import Reachability
    from thingctl_broker.cluster.store_port import ExecutionStore
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.ports import Clock

HANDED_LAG: Final = 1.0
"""Seconds before it is kept that the cluster has a request: most have ended by then, and need no note."""

TOLD_MAX: Final = 20_000
"""Things of which it is remembered when they were told the time."""

CLAIM_MAX: Final = 100
"""Requests of one thing that are claimed at once."""

_log = structlog.get_logger("thingctl.cluster")


class ClusterDispatcher:
    """The requests that this worker publishes."""

    def __init__(
        self,
        store: ExecutionStore,
        link: ThingLink,
        reach: Reachability,
        clock: Clock,
        changed: Callable[[Execution, Change], None],
    ) -> None:
        self._store = store
        self._link = link
        self._reach = reach
        self._clock = clock
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._handed: set[str] = set()
        self._told: dict[str, ToldTime] = {}
        """By thing, the one told longest ago first."""
        self._under_way: set[str] = set()
        self._offering: dict[str, bool] = {}
        """Things that are being offered what waits, and whether to begin again when that is done."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def publish(self, executions: Iterable[Execution]) -> None:
        """Publish requests that are marked as published, in this order for each thing.

        Not those that are under way here already, for which the cluster is slow.
        """
        for execution in executions:
            if execution.execution_id not in self._under_way:
                self._spawn(self._publish_alone, execution)

    def arrived(self, thing: str) -> None:
        """The thing is there: what waits for it goes out."""
        self._reach.arrived(thing)
        self.offer(thing)

    def offer(self, thing: str) -> None:
        """Publish what waits for the thing, one first: the others only if that finds somebody."""
        if thing in self._offering:
            self._offering[thing] = True  # what has just been found may be so no more
        else:
            self._offering[thing] = False
            self._spawn(self._offer, thing)

    def tell_time(self, thing: str, *, anew: bool = False) -> None:
        """Tell the thing the time, if it has not been told of late. ``anew``: in any case."""
        now, unix = self._clock.monotonic(), self._clock.unix()
        told = self._told.pop(thing, None) or ToldTime()
        if anew or told.is_due(now, unix):
            told.tell(now, unix)
            self._link.publish_time(thing, unix)
        self._told[thing] = told
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]

    def ended(self, execution_ids: Iterable[str]) -> None:
        """Executions have ended: it need not be kept any more that the cluster has their requests."""
        self._handed.difference_update(execution_ids)

    async def stop(self) -> None:
        """Wait for what is under way, a little, and keep what is known of it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=1.0)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keep_handed()

    async def _publish_alone(self, execution: Execution) -> None:
        if await self._publish(execution) and self._reach.taken(execution.thing):
            self.offer(execution.thing)

    async def _publish(self, execution: Execution) -> bool:
        """Publish one; return whether the cluster has it."""
        self._under_way.add(execution.execution_id)
        try:
            return await self._publish_now(execution)
        finally:
            self._under_way.discard(execution.execution_id)

    async def _publish_now(self, execution: Execution) -> bool:
        now = self._clock.monotonic()
        left = execution.deadline - now
        if left <= 0:
            return False  # about to be closed
        payload = execution.request(now, self._clock.unix())
        thing, execution_id = execution.thing, execution.execution_id
        self.tell_time(thing)
        try:
            handed = await self._link.publish_request(thing, execution_id, payload, left)
        except LinkDown:
            return False  # whether it has left nobody knows: it is published again by and by
        if handed is Handed.TAKEN:
            self._note_handed((execution_id,))
            return True
        self._reach.nobody(thing, self._clock.monotonic())
        age = max(0.0, execution.ttl - left)
        with contextlib.suppress(StoreDown):  # then it counts as published: that is the safe side
            waiting = await self._store.unclaimed(
                execution_id, self._reach.retry_in(thing, age), execution.published_at
            )
            if waiting is not None and waiting.is_terminal:
                self._changed(waiting, Change.ENDED)
            elif self._reach.may_be_there(thing, self._clock.monotonic()):
                self.offer(thing)  # it came before the request was among those that wait
        return False

    async def _offer(self, thing: str) -> None:
        try:
            again = True
            while again:
                self._offering[thing] = False
                await self._publish_waiting(thing)
                again = self._offering[thing]
        except StoreDown as error:
            _log.warning("what waits for a thing cannot be read", thing=thing, fault=error.text)
        finally:
            del self._offering[thing]

    async def _publish_waiting(self, thing: str) -> None:
        count = 1
        while self._link.connected and (claimed := await self._store.claim_waiting(thing, count)):
            for execution in claimed:
                self._changed(execution, Change.PUBLISHED)
            if not all(await asyncio.gather(*map(self._publish, claimed))):
                return
            self._reach.taken(thing)
            count = CLAIM_MAX

    def _spawn(self, work: Callable[..., Awaitable[object]], *args: object) -> None:
        task = asyncio.get_running_loop().create_task(_logged(work, *args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note_handed(self, execution_ids: Iterable[str]) -> None:
        self._handed.update(execution_ids)
        if self._timer is None and not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(HANDED_LAG, self._due)

    def _due(self) -> None:
        self._timer = None
        self._spawn(self._keep_handed)

    async def _keep_handed(self) -> None:
        handed, self._handed = self._handed, set()
        if handed:
            try:
                await self._store.handed(handed)
            except StoreDown:
                self._note_handed(handed)  # until it is kept they may be published twice


async def _logged(work: Callable[..., Awaitable[object]], *args: object) -> None:
    try:
        await work(*args)
    except Exception:  # one request must not take the others with it
        _log.exception("a request failed")
