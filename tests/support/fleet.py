"""Workers of a cluster over one store in memory, each on a link of its own; things are functions."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from thingctl_broker.cluster.clock import StoreClock
from thingctl_broker.cluster.dispatcher import ClusterDispatcher
from thingctl_broker.cluster.inbound import InboundMessages
from thingctl_broker.cluster.maintenance import Maintenance
from thingctl_broker.cluster.operations import ClusterOperations
from thingctl_broker.cluster.reachability import Reachability
from thingctl_broker.cluster.registry_replica import RegistryReplica
from thingctl_broker.cluster.rollouts import ClusterRollouts
from thingctl_broker.cluster.token_replica import KIND as TOKEN_KIND
from thingctl_broker.cluster.token_replica import SharedTokens
from thingctl_broker.commands.execution import Execution
from thingctl_broker.commands.ports import Clock
from thingctl_broker.commands.validation import ServiceSettings
from thingctl_broker.testing import FakeClusterLink, ManualClock
from thingctl_broker.testing.cluster_records import (
    InMemoryDocuments,
    InMemoryRollouts,
    InMemoryStore,
    InMemoryWorkers,
)
from thingctl_broker.things.thing import Definition

TURNS = 60
"""Of the loop: more than any chain of calls takes that nobody holds up."""


async def settled() -> None:
    """Let the loop run until whoever could go on has."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Slow:
    """The same object, at whose every call others get their turn, before it is done and after."""

    def __init__(self, of: object) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        @functools.wraps(found)
        async def call(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            try:
                return await found(*args, **kwargs)
            finally:
                await asyncio.sleep(0)

        return call


class Member:
    """One worker, put together as the real one is."""

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        *,
        enrols: bool = False,
        queue_max: int = 1000,
        slow: bool = True,
        machine: Clock | None = None,
    ) -> None:
        self.fleet, self.name = fleet, name
        self.clock = clock = StoreClock(machine or fleet.clock)
        through: Callable[[object], Any] = Slow if slow else lambda same: same
        self.store = store = through(fleet.store)
        documents = through(fleet.documents)
        self.is_heard = True
        self.link = FakeClusterLink()
        self.link.things = fleet.things
        self.mirror = RegistryReplica(documents, is_heard=lambda: self.is_heard, enrols=enrols)
        self.tokens = SharedTokens(documents)
        self.reach = reach = Reachability(self.mirror.things)
        self.operations = ClusterOperations(
            clock=clock,
            store=store,
            link=self.link,
            mirror=self.mirror,
            reach=reach,
            settings=ServiceSettings(),
            queue_max=queue_max,
        )
        self.requests = ClusterDispatcher(store, self.link, reach, clock, self.operations.changed_here)
        self.operations.requests = self.requests
        self.incoming = InboundMessages(
            operations=self.operations,
            store=store,
            mirror=self.mirror,
            link=self.link,
            reach=reach,
            requests=self.requests,
        )
        self.rollouts = ClusterRollouts(self.operations, store, through(fleet.rollouts), name)
        self.sweeper = Maintenance(
            operations=self.operations,
            store=store,
            workers=fleet.workers,
            mirror=self.mirror,
            link=self.link,
            requests=self.requests,
            clock=clock,
            client_id=name,
            keep=3600.0,
        )
        self.told: list[tuple[str, str]] = []
        self.operations.events.subscribe(
            lambda execution, change: self.told.append((execution.execution_id, change.value))
        )
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        for shared in self.fleet.shared:
            shared.listening.append(self)
        await self.mirror.load()
        await self.link.start(self.incoming, self._link_changed)

    def _link_changed(self, connected: bool) -> None:
        if connected:
            self.sweeper.linked()

    async def stop(self) -> None:
        """End; what is left to do others will."""
        self.operations.stop()
        await self.rollouts.stop()
        await self.requests.stop()
        await self.link.stop()
        await self.die()

    async def die(self) -> None:
        """Be gone in the middle of it: nothing is kept, nobody hears of it."""
        for shared in self.fleet.shared:
            if self in shared.listening:
                shared.listening.remove(self)
        doomed = [*self.requests._tasks, *self.link._tasks, *self._tasks]
        if self.rollouts._driver is not None:
            doomed.append(self.rollouts._driver)
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
        if self.requests._timer is not None:
            self.requests._timer.cancel()
        self.link.lose()
        await self.mirror.stop()
        if self in self.fleet.members:
            self.fleet.members.remove(self)

    async def retry(self) -> None:
        """A turn of the sweeper, and what it has set going."""
        await self.sweeper.retry()
        await settled()

    async def send(self, thing: str = "lamp", action: str = "turnOn", **fields: Any) -> Execution:
        ttl = fields.pop("ttl", 30)
        params = fields.pop("params", b"{}")
        return await self.operations.send(thing, action, params, ttl, lambda one: one, **fields)

    async def read(self, execution_id: str) -> Execution:
        return await self.operations.read(execution_id, lambda one: one)

    @property
    def requested(self) -> list[str]:
        """The ids of the requests that this worker published, whether anybody was there or not."""
        return [request.execution_id for request in self.link.requested]

    # Heard.

    def changed(self, execution_ids: Sequence[str], ended: Sequence[str]) -> None:
        self.operations.changed(execution_ids, ended)

    def document_changed(self, kind: str, name: str) -> None:
        if kind == TOKEN_KIND:
            task = asyncio.get_running_loop().create_task(self.tokens.look_again(at_once=True))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.mirror.document_changed(kind, name)

    def rollout_changed(self, command_id: str) -> None:
        self.rollouts.rollout_changed(command_id)

    def missed(self) -> None:
        self.operations.missed()
        self.mirror.outdated()


class Fleet:
    """What the workers share: the store, the clock, the things that listen at present."""

    def __init__(self, *, tell_all: bool = False) -> None:
        self.clock = ManualClock()
        self.store = InMemoryStore(self.clock, tell_all=tell_all)
        self.documents = InMemoryDocuments()
        self.rollouts = InMemoryRollouts(self.clock, self.store)
        self.workers = InMemoryWorkers(self.clock)
        self.shared = (self.store, self.documents, self.rollouts, self.workers)
        self.things: dict[str, Callable[[str, bytes], Iterable[bytes]]] = {}
        self.got: list[tuple[str, str]] = []
        """What things were given: thing, execution id."""
        self.members: list[Member] = []

    async def member(self, name: str = "", **options: Any) -> Member:
        """A worker that has started."""
        member = Member(self, name or f"w{len(self.members) + 1}", **options)
        self.members.append(member)
        await member.start()
        return member

    async def add_things(self, *names: str) -> None:
        """Make things known to every worker."""
        first = self.members[0]
        for name in names:
            first.mirror.things.define(name, Definition(), self.clock.unix())
        await first.mirror.kept()
        await settled()

    def come(self, thing: str, *answers: bytes) -> None:
        """The thing subscribes from now on; it gives these answers to each request."""

        def takes(execution_id: str, _request: bytes) -> Iterable[bytes]:
            self.got.append((thing, execution_id))
            return answers

        self.things[thing] = takes

    def go(self, thing: str) -> None:
        self.things.pop(thing, None)

    def down(self, *, down: bool = True) -> None:
        """Whether the database can be reached; back again, everybody has missed something."""
        for shared in self.shared:
            shared.down = down
        if not down:
            for member in self.members:
                member.missed()

    async def stop(self) -> None:
        self.down(down=False)
        for member in list(self.members):
            await member.stop()
