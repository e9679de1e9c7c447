"""Operations over the table of this process: what the service decides, told when the journal has it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from thingctl_broker.commands.events import Change
from thingctl_broker.commands.outcomes import combine, tally
from thingctl_broker.commands.statistics import HourlyStatistics
from thingctl_broker.commands.table import Query
from thingctl_broker.commands.waiters import CompletionWaiters, until_kept
from thingctl_broker.errors import AlreadyEnded, NotAccepting, UnknownExecution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.outcomes import OutcomeCount
    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.commands.statistics import Minute
    from thingctl_broker.commands.table import PageOfExecutions
    from thingctl_broker.things.thing import Thing

T = TypeVar("T")

WITHDRAW_TURN: Final = 200
"""Executions of a thing looked at in one turn when all are canceled: the loop has other work too."""


class EmbeddedOperations:
    """The use cases of operators, over one service. Make it when the executions are restored."""

    def __init__(self, service: CommandService) -> None:
        self._service = service
        self._journal = service.journal
        self._table = service.table
        self._overview = HourlyStatistics()
        self._overview.seed(service.table, service.unix())
        self._waiters = CompletionWaiters()
        self._owed: Sequence[Execution] = [execution for execution in self._table if execution.untold]
        self.things = service.things
        self.events = service.events
        self.counters = service.counters
        self.settings = service.settings
        self.unix = service.unix
        self.monotonic = service.monotonic
        self.make_id = service.make_id
        self.check = service.check
        self.is_reachable = service.is_reachable
        service.events.subscribe(self._on_change, (Change.CREATED, Change.ENDED))

    @property
    def accepting(self) -> bool:
        """Whether new commands can be kept at present."""
        return self._journal.accepting

    def stop(self) -> None:
        """Let everybody go who waits: the broker is ending."""
        self._waiters.release()

    async def thing(self, name: str) -> Thing | None:
        """The thing with that name, if it is known."""
        return self.things.get(name)

    async def validate(self, thing: str, action: str, params: bytes, ttl: int | None) -> tuple[str, ...]:
        """Check a command as ``send`` would, and send nothing; return what its params were checked by."""
        return self._service.validate(thing, action, params, ttl)

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
        """Accept a command for one thing: :meth:`~thingctl_broker.commands.service.CommandService.send`."""
        execution = self._service.send(
            thing,
            action,
            params,
            ttl,
            requested_by=requested_by,
            idempotency_key=idempotency_key,
            command_id=command_id,
            post_back_uri=post_back_uri,
        )
        told = tell(execution)
        if not await until_kept(self._journal) and not self._is_known(execution):
            raise _not_kept()
        return told

    def send_then(
        self,
        thing: str,
        action: str,
        params: bytes,
        ttl: int | None,
        tell: Callable[[Execution], T],
        *,
        told: Callable[[T], None],
        lost: Callable[[NotAccepting], None],
        requested_by: str = "",
    ) -> None:
        """The same without waiting: :meth:`~thingctl_broker.commands.operations.SendsAtOnce.send_then`."""
        execution = self._service.send(thing, action, params, ttl, requested_by=requested_by)
        self._journal.then(partial(told, tell(execution)), lambda: lost(_not_kept()))

    async def read(self, execution_id: str, tell: Callable[[Execution], T]) -> T:
        """Tell of an execution; raises :class:`~thingctl_broker.errors.UnknownExecution`."""
        execution = self._service.get(execution_id)
        return await self._told(execution, tell)

    async def read_many(self, ids: Sequence[str], tell: Callable[[Mapping[str, Execution]], T]) -> T:
        """Tell of those of the executions that are there, by id."""
        get = self._table.get
        told = tell({id_: found for id_ in ids if (found := get(id_)) is not None})
        await until_kept(self._journal)
        return told

    async def list(
        self, query: Query, limit: int, cursor: str | None, tell: Callable[[PageOfExecutions], T]
    ) -> T:
        """Tell of a page of executions."""
        told = tell(self._service.list(query, limit, cursor))
        if await until_kept(self._journal):
            return told
        return tell(self._service.list(query, limit, cursor))  # without what could not be kept

    async def cancel(
        self, execution_id: str, admit: Callable[[Execution], None], tell: Callable[[Execution], T]
    ) -> T:
        """Withdraw an execution or ask its thing to stop, unless ``admit`` raises.

        Raises :class:`NotAccepting` when that cannot be kept: then nothing is canceled.
        """
        execution = self._service.get(execution_id)
        admit(execution)
        await self._keep_wish(execution)
        try:
            self._service.cancel(execution_id)
        except AlreadyEnded:
            await until_kept(self._journal)  # the refusal tells how it ended
            raise
        return await self._told(execution, tell)

    async def withdraw(self, thing: str) -> None:
        """Cancel everything that is live of a thing. Raises :class:`NotAccepting` if that is not kept."""
        cursor = None
        while True:
            page = self._service.list(Query(thing=thing), WITHDRAW_TURN, cursor)
            for execution in page.executions:
                if not execution.is_terminal:
                    self._service.cancel(execution.execution_id)
            cursor = page.cursor
            if cursor is None:
                break
            await asyncio.sleep(0)
        if not await until_kept(self._journal):
            raise NotAccepting("the commands are canceled, but that cannot be kept at present", retry_after=5)

    async def wait(self, execution_id: str, seconds: float) -> None:
        """Return when the execution has ended, after ``seconds``, or when the broker is ending."""
        execution = self._table.get(execution_id)
        if execution is not None and not execution.is_terminal:
            await self._waiters.wait(execution_id, seconds)

    async def outcomes(self, command_id: str) -> Sequence[OutcomeCount]:
        """The executions of a command, put together by status, reason and result."""
        return combine(map(tally, self._table.of_command(command_id)))

    def watch(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with the id of every execution that changes; return what ends that."""
        return self.events.subscribe(lambda execution, _: listener(execution.execution_id))

    async def minutes(self) -> Sequence[Minute]:
        """The last hour, minute by minute, up to and with this one."""
        return self._overview.minutes(self.unix())

    async def size(self) -> tuple[int, int]:
        """How many executions there are, and how many of them are live."""
        return len(self._table), self._table.live

    def owe(self, execution: Execution) -> bool:
        """Note that the execution's end has to be told."""
        if not execution.untold:
            execution.untold = True
            self._journal.record(execution)
        return True

    async def owed(self) -> Sequence[Execution]:
        """Executions whose end was to be told before a restart: once, nobody else can owe anything."""
        owed, self._owed = self._owed, ()
        return owed

    async def settled(self, execution_id: str) -> None:
        """The execution's end has been told, or never will be."""
        execution = self._table.get(execution_id)
        if execution is not None and execution.untold:
            execution.untold = False
            self._journal.record(execution)

    # How it is done.

    async def _keep_wish(self, execution: Execution) -> None:
        """Keep that it is to be canceled, before that is done: a restart in between does it then."""
        if execution.is_terminal or execution.cancel_requested_at is not None:
            return
        self._service.wants_cancel(execution)
        if not await until_kept(self._journal):
            execution.cancel_wanted_at = None
            if not self._is_known(execution):
                raise UnknownExecution("the execution could not be kept, so it never was")
            raise NotAccepting("the cancel could not be kept, so it was not made", retry_after=5)

    async def _told(self, execution: Execution, tell: Callable[[Execution], T]) -> T:
        told = tell(execution)
        if not await until_kept(self._journal) and not self._is_known(execution):
            raise UnknownExecution("the execution could not be kept, so it never was")
        return told

    def _is_known(self, execution: Execution) -> bool:
        """Whether it has not been withdrawn because it could not be kept."""
        return self._table.get(execution.execution_id) is execution

    def _on_change(self, execution: Execution, change: Change) -> None:
        if change is Change.CREATED:
            self._overview.created(execution.created_at)
        else:
            self._waiters.ended(execution.execution_id)
            if execution.ended_at is not None:
                seconds = execution.ended_at - execution.created_at
                self._overview.ended(execution.status, execution.ended_at, seconds)


def _not_kept() -> NotAccepting:
    return NotAccepting("the command could not be kept, so it was not accepted", retry_after=5)
