"""Operations over a store that several workers share."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from thingctl_broker.cluster.link_port import LinkDown
from thingctl_broker.commands.events import Change, Counters, Events
from thingctl_broker.commands.execution import Cancel, Execution
from thingctl_broker.commands.idempotency import fingerprint
from thingctl_broker.commands.outcomes import combine
from thingctl_broker.commands.table import Query
from thingctl_broker.commands.validation import ServiceSettings, ValidRequest
from thingctl_broker.commands.waiters import CompletionWaiters
from thingctl_broker.errors import (
    AlreadyEnded,
    InvalidCommand,
    NotAccepting,
    UnknownExecution,
    unknown_execution,
)
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import IdSource, check_thing_name
from thingctl_protocol.statuses import TERMINAL, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thingctl_broker.cluster.dispatcher import ClusterDispatcher
    from thingctl_broker.cluster.link_port import ThingLink
    from thingctl_broker.cluster.reachability import Reachability
    from thingctl_broker.cluster.registry_replica import RegistryReplica
    from thingctl_broker.cluster.store_port import ExecutionStore
    from thingctl_broker.commands.outcomes import OutcomeCount
    from thingctl_broker.commands.ports import Clock
    from thingctl_broker.commands.statistics import Minute
    from thingctl_broker.commands.table import PageOfExecutions
    from thingctl_broker.things.thing import Thing

T = TypeVar("T")

LOOK_SECONDS: Final = 5.0
"""How long a waiting caller trusts that it would have been told of an end."""

OWED_SECONDS: Final = 900.0
"""How long an execution whose end is to be told is left to the worker that has taken that on."""

OWED_MAX: Final = 1000
PAGE: Final = 500
"""Executions canceled in one turn, where all of a thing or a command are: between two of them it is
everybody else's, of the loop and of the store."""


LIVE: Final = frozenset(Status) - TERMINAL
_log = structlog.get_logger("thingctl.cluster")


class ClusterOperations:
    """The use cases of operators. ``queue_max``: requests that may wait for one thing."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: ExecutionStore,
        link: ThingLink,
        mirror: RegistryReplica,
        reach: Reachability,
        settings: ServiceSettings | None = None,
        queue_max: int = 1000,
    ) -> None:
        self._clock = clock
        self._store = store
        self._link = link
        self._mirror = mirror
        self._reach = reach
        self._queue_max = queue_max
        self._ids = IdSource()
        self._random = random.SystemRandom()
        self._waiters = CompletionWaiters()
        self._watchers: list[Callable[[str], None]] = []
        self.things = mirror.things
        self.events = Events()
        self.counters = Counters()
        self.settings = ServiceSettings() if settings is None else settings
        self.unix = clock.unix
        self.monotonic = clock.monotonic
        self._admission = ValidRequest(self.settings, self.things)
        self.check = self._admission.form
        self.requests: ClusterDispatcher
        """To be set before anything is sent."""

    @property
    def accepting(self) -> bool:
        """Whether the store and the link are there."""
        return self._mirror.current and self._link.connected

    def stop(self) -> None:
        """Let everybody go who waits."""
        self._waiters.release()

    def make_id(self) -> str:
        """The id of a command to many things."""
        return self._ids.make(int(self._clock.unix() * 1000), self._random.getrandbits(62))

    async def thing(self, name: str) -> Thing | None:
        """The thing with that name: another worker may have added it a moment ago."""
        return self.things.get(name) or await self._mirror.find_thing(name)

    async def validate(self, thing: str, action: str, params: bytes, ttl: int | None) -> tuple[str, ...]:
        """Check a command as ``send`` would, and send nothing; return what its params were checked by."""
        _check_name(thing)
        await self._meet(thing)
        return tuple(check.source for check in self._admission.whole(thing, action, params, ttl))

    async def send(
        self,
        thing: str,
        action: str,
        params: bytes,
        ttl: int | None,
        tell: Callable[[Execution], T],
        *,
        requested_by: str = "",
        idempotency_key: str = "",
        command_id: str = "",
        post_back_uri: str = "",
    ) -> T:
        """Accept a command for one thing. Raises what the service of one process does."""
        print_ = ""
        if idempotency_key:
            print_ = fingerprint(thing, action, params + post_back_uri.encode(), ttl)
        _check_name(thing)
        self._admission.form(action, params, ttl)
        await self._meet(thing)
        self._admission.target(thing, action, params)
        if not self._mirror.current:
            raise NotAccepting("the database is away, so no command is accepted", retry_after=5)
        ttl = self._admission.ttl(ttl)
        at, now = self._clock.unix(), self._clock.monotonic()
        goes_now = self._link.connected and self._reach.may_be_there(thing, now)
        execution_id = self.make_id()
        execution = await self._store.add(
            Execution(
                execution_id=execution_id,
                command_id=command_id or self.make_id(),
                thing=thing,
                action=action,
                params=params,
                ttl=ttl,
                created_at=at,
                deadline=now + ttl,
                requested_by=requested_by,
                idempotency_key=idempotency_key,
                fingerprint=print_,
                post_back_uri=post_back_uri,
                attempts=1 if goes_now else 0,
                published_at=at if goes_now else None,
            ),
            queue_max=self._queue_max,
        )
        told = tell(execution)
        if execution.execution_id != execution_id:
            return told  # the key stands for that one
        self.counters["executions.created"] += 1
        self.changed_here(execution, Change.CREATED)
        if goes_now:
            self.changed_here(execution, Change.PUBLISHED)
            self.requests.publish((execution,))
        return told

    async def read(self, execution_id: str, tell: Callable[[Execution], T]) -> T:
        """Tell of an execution; raises :class:`~thingctl_broker.errors.UnknownExecution`."""
        return tell(await self._get(execution_id))

    async def read_many(self, ids: Sequence[str], tell: Callable[[Mapping[str, Execution]], T]) -> T:
        """Tell of those of the executions that are there, by id."""
        found = await self._store.many(ids)
        return tell({execution.execution_id: execution for execution in found})

    async def list(
        self, query: Query, limit: int, cursor: str | None, tell: Callable[[PageOfExecutions], T]
    ) -> T:
        """Tell of a page of executions."""
        return tell(await self._store.select(query, limit, cursor))

    async def cancel(
        self, execution_id: str, admit: Callable[[Execution], None], tell: Callable[[Execution], T]
    ) -> T:
        """Withdraw an execution or ask its thing to stop, unless ``admit`` raises."""
        admit(await self._get(execution_id))
        return tell(await self._cancel(execution_id))

    async def withdraw(self, thing: str) -> None:
        """Cancel everything that is live of a thing."""
        await self.cancel_all(Query(thing=thing, statuses=LIVE))

    async def cancel_all(self, query: Query) -> int:
        """Cancel all that is asked for and has not ended or been canceled; return how many that were."""
        count, cursor = 0, None
        while True:
            page = await self._store.select(query, PAGE, cursor)
            # At once: the store takes them together.
            count += sum(await asyncio.gather(*map(self._cancel_live, page.executions)))
            cursor = page.cursor
            if cursor is None:
                return count

    async def wait(self, execution_id: str, seconds: float) -> None:
        """Return when the execution has ended, after ``seconds``, or when this worker is ending."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while (left := until - now()) > 0 and not self._waiters.released:
            # First wait, then look: an end in between is heard of.
            waiting = asyncio.ensure_future(self._waiters.wait(execution_id, min(left, LOOK_SECONDS)))
            try:
                await asyncio.sleep(0)
                execution = await self._store.get(execution_id)
                if execution is None or execution.is_terminal:
                    return
                await waiting
            finally:
                waiting.cancel()

    async def outcomes(self, command_id: str) -> Sequence[OutcomeCount]:
        """The executions of a command, put together by status, reason and result."""
        return combine(await self._store.tallies(command_id))

    def is_reachable(self, thing: str) -> bool:
        """Whether the thing is there to be sent something, as far as is known."""
        return self._link.connected and self._reach.may_be_there(thing, self._clock.monotonic())

    def watch(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with the id of every execution that changes, at any worker."""
        self._watchers.append(listener)
        return partial(self._watchers.remove, listener)

    async def minutes(self) -> Sequence[Minute]:
        """The last hour, minute by minute, of all workers."""
        return await self._store.minutes()

    async def size(self) -> tuple[int, int]:
        """About how many executions there are, and how many of them are live."""
        return await self._store.size()

    def owe(self, execution: Execution) -> bool:  # noqa: ARG002 whichever it is
        """No-op: the store records the notification in the same transaction; any worker may deliver it."""
        return False

    async def owed(self) -> Sequence[Execution]:
        """Executions whose end is to be told, and that no worker has taken on or not for a long time."""
        return await self._store.claim_untold(OWED_MAX, OWED_SECONDS)

    async def settled(self, execution_id: str) -> None:
        """The execution's end has been told, or never will be."""
        await self._store.told((execution_id,))

    # What happens.

    def changed_here(self, execution: Execution, change: Change) -> None:
        """This worker has changed an execution, and that is kept."""
        if change is Change.ENDED:
            self.counters[f"executions.{execution.status}"] += 1
        self.events.emit(execution, change)

    def changed(self, execution_ids: Sequence[str], ended: Sequence[str]) -> None:
        """Executions have changed, here or at another worker."""
        for execution_id in ended:
            self._waiters.ended(execution_id)
        self.requests.ended(ended)
        if self._watchers:
            for listener in tuple(self._watchers):
                for execution_id in execution_ids:
                    listener(execution_id)

    def missed(self) -> None:
        """Changes have gone unheard for a while."""
        self._waiters.wake_all()

    async def _meet(self, thing: str) -> None:
        """Know the thing if another worker does; with open enrolment, from now on."""
        if await self.thing(thing) is None and self.things.enrols:
            self.things.know(thing, self._clock.unix())
            await self._mirror.kept()

    async def _cancel(self, execution_id: str) -> Execution:
        canceled = await self._store.cancel(execution_id, self.settings.cancel_grace)
        if canceled is None:
            raise unknown_execution(execution_id)
        execution, outcome = canceled
        match outcome:
            case Cancel.ENDED:
                raise AlreadyEnded(f"the execution has ended: {execution.status}")
            case Cancel.DONE:
                self.changed_here(execution, Change.ENDED)
            case Cancel.REQUESTED:
                self.changed_here(execution, Change.CANCEL_REQUESTED)
                try:
                    self._link.publish_cancel(execution.thing, execution_id)
                except LinkDown:
                    # The sweeper tells it when the link is back.
                    _log.warning("a cancel cannot be told to its thing yet", executionId=execution_id)
            case Cancel.PENDING:
                pass
        return execution

    async def _cancel_live(self, execution: Execution) -> bool:
        if execution.is_terminal or execution.cancel_requested_at is not None:
            return False
        try:
            await self._cancel(execution.execution_id)
        except (AlreadyEnded, UnknownExecution):
            return False  # it was faster
        return True

    async def _get(self, execution_id: str) -> Execution:
        execution = await self._store.get(execution_id)
        if execution is None:
            raise unknown_execution(execution_id)
        return execution


def _check_name(thing: str) -> None:
    try:
        check_thing_name(thing, "/thingId")
    except ProtocolError as error:
        raise InvalidCommand(error.text, error.pointer) from None
