"""What a worker does as time goes by.

It closes what is overdue, publishes again what nobody has taken, and looks after workers
that have died.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.cluster.link_port import LinkDown
from thingctl_broker.commands.events import Change
from thingctl_broker.errors import NotAccepting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from thingctl_broker.cluster.clock import StoreClock
    from thingctl_broker.cluster.dispatcher import ClusterDispatcher
    from thingctl_broker.cluster.link_port import ThingLink
    from thingctl_broker.cluster.operations import ClusterOperations
    from thingctl_broker.cluster.registry_replica import RegistryReplica
    from thingctl_broker.cluster.store_port import ExecutionStore, Workers

EXPIRE_MAX: Final = 1000
LONGEST_SLEEP: Final = 1.0
"""Seconds: what is sent during the sleep lives at least that long (``TTL_MIN``)."""

SHORTEST_SLEEP: Final = 0.02

RETRY_EVERY: Final = 1.0
RETRY_MAX: Final = 200
"""Things looked at for requests that wait, in one turn of one worker."""

CANCELS_MAX: Final = 10_000
"""Cancels that are told again when the link is back."""

UNHANDED_SECONDS: Final = 10.0
"""After which a request that nobody has taken is published again: its worker will not do it."""

ALIVE_EVERY: Final = 3.0
ALIVE_SECONDS: Final = 10.0
"""A worker that has not been heard of for so long has died: another adopts its session."""

WRITE_EVERY: Final = 2.0
TIDY_EVERY: Final = 3600.0

_log = structlog.get_logger("thingctl.cluster")


class Maintenance:
    """The turns of one worker. ``keep``: seconds that ended executions stay."""

    def __init__(
        self,
        *,
        operations: ClusterOperations,
        store: ExecutionStore,
        workers: Workers,
        mirror: RegistryReplica,
        link: ThingLink,
        requests: ClusterDispatcher,
        clock: StoreClock,
        client_id: str,
        keep: float,
    ) -> None:
        self._operations = operations
        self._store = store
        self._workers = workers
        self._mirror = mirror
        self._link = link
        self._requests = requests
        self._clock = clock
        self._client_id = client_id
        self._keep = keep
        self._cancels_due = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        turns: tuple[tuple[str, Callable[[], Awaitable[float]]], ...] = (
            ("expire", self.expire),
            ("retry", self.retry),
            ("live", self.live),
            ("write", self.write),
            ("adopt", self.adopt),
            ("tidy", self.tidy),
        )
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(_turns(name, turn), name=name) for name, turn in turns]

    async def stop(self) -> None:
        """End; this worker is no longer counted among those that live."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def linked(self) -> None:
        """The link is there, perhaps after a while without: cancels may not have been told meanwhile."""
        self._cancels_due = True

    async def expire(self) -> float:
        """Close what is overdue; return the seconds until the next turn."""
        closed = await self._store.expire(EXPIRE_MAX)
        for execution in closed:
            self._operations.changed_here(execution, Change.ENDED)
        if len(closed) == EXPIRE_MAX:
            return 0.0
        wait = await self._store.seconds_to_next_deadline()
        return LONGEST_SLEEP if wait is None else min(LONGEST_SLEEP, max(SHORTEST_SLEEP, wait))

    async def retry(self) -> float:
        """Publish what waits, and what was never taken; return the seconds until the next turn."""
        if self._link.connected:
            if self._cancels_due:
                await self._tell_cancels()
            for thing in await self._store.things_to_retry(RETRY_MAX):
                self._requests.offer(thing)
            self._requests.publish(await self._store.claim_unhanded(UNHANDED_SECONDS, RETRY_MAX))
        return RETRY_EVERY

    async def _tell_cancels(self) -> None:
        """Tell all that are pending, whoever took them: their worker may have been cut off, and died.

        A thing may hear of one twice, which means nothing more to it.
        """
        self._cancels_due = False
        try:
            grace = self._operations.settings.cancel_grace
            for thing, execution_id in await self._store.canceling(grace, CANCELS_MAX):
                self._link.publish_cancel(thing, execution_id)
        except BaseException:
            self._cancels_due = True
            raise

    async def live(self) -> float:
        """Say that this worker lives, and hear what time it is."""
        await self._clock.follow(self._workers.alive(self._client_id, ALIVE_SECONDS))
        return ALIVE_EVERY

    async def adopt(self) -> float:
        """Take over from a worker that has died.

        A turn of its own: it may take longer than this worker may be silent.
        """
        orphan = await self._workers.orphan(self._client_id)
        if orphan is None:
            return ALIVE_EVERY
        _log.warning("a worker has died: its session is taken over", clientId=orphan)
        await self._link.adopt(orphan)
        await self._workers.gone(orphan)
        _log.info("the session of a worker that died has been dealt with", clientId=orphan)
        return 0.0

    async def write(self) -> float:
        """Write down what need not be waited for: when things were last seen."""
        await self._mirror.kept()
        return WRITE_EVERY

    async def tidy(self) -> float:
        """Make and drop partitions."""
        await self._store.tidy(self._keep)
        return TIDY_EVERY


async def _turns(name: str, turn: Callable[[], Awaitable[float]]) -> None:
    failing = False
    while True:
        try:
            wait = await turn()
            failing = False
        except Exception as error:
            if not failing:
                known = isinstance(error, LinkDown | NotAccepting)
                _log.warning(
                    "a turn failed and is tried again", turn=name, fault=str(error), exc_info=not known
                )
            failing, wait = True, LONGEST_SLEEP
        await asyncio.sleep(wait)
