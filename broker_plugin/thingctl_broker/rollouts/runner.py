"""Drives rollouts: a few executions in each turn of the loop, each kept before the next few.

What a rollout is to do is kept in a file before anybody hears of it; what it has done is in
its executions. So after a restart it goes on where it was, and nobody gets a command twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog
from msgspec.structs import replace

from thingctl_broker.commands.events import Change
from thingctl_broker.commands.idempotency import check_same
from thingctl_broker.errors import (
    NotAccepting,
    ServiceError,
    TableFull,
    WrongMove,
    unknown_command,
)
from thingctl_broker.rollouts.rollout import (
    MOVES,
    Listed,
    Rollout,
    RolloutRecord,
    RolloutRules,
    State,
    newest,
)
from thingctl_broker.security.caller import NOBODY, Caller, origin

if TYPE_CHECKING:
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.rollouts.store import RolloutStore

CHUNK: Final = 100
"""Executions in one turn of the loop: a few milliseconds."""

ROLLOUTS_MAX: Final = 200
"""Rollouts that are remembered. The oldest that has nothing to do leaves for a new one."""

RETRY_SECONDS: Final = 1.0
"""When nothing can be accepted, or a file cannot be written."""

SAVE_SECONDS: Final = 5.0
"""Between two notes of how far a rollout has come. Between them its executions tell."""

_log = structlog.get_logger("thingctl.rollouts")


class RolloutRunner:
    """Every rollout of a service."""

    def __init__(self, service: CommandService, store: RolloutStore | None = None) -> None:
        """``store``: None keeps nothing beyond the process."""
        self._service = service
        self._store = store
        self._rollouts: dict[str, Rollout] = {}
        self._told: dict[str, State] = {}
        self._saved_at: dict[str, float] = {}
        self._woken = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._driver: asyncio.Task[None] | None = None
        service.events.subscribe(self._on_end, (Change.ENDED,))

    def __len__(self) -> int:
        return len(self._rollouts)

    def restore(self) -> int:
        """Take up what was under way, once the executions are restored; return how many that is."""
        records = [] if self._store is None else self._store.load()
        for record in records[-ROLLOUTS_MAX:]:
            self._rollouts[record.command_id] = Rollout(
                record, self._service.table.of_command(record.command_id)
            )
        if self._store is not None:
            for record in records[:-ROLLOUTS_MAX]:
                self._store.remove(record.command_id)
        return sum(rollout.record.state is State.RUNNING for rollout in self._rollouts.values())

    def start(self) -> None:
        """Go on with what was restored."""
        if self._rollouts:
            self._wake()

    async def stop(self) -> None:
        """Stop driving. What has been sent so far is kept already."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await driver

    async def begin(
        self,
        things: list[str],
        action: str,
        params: bytes,
        ttl: int | None,
        rules: RolloutRules,
        *,
        requested_by: str,
        post_back_uri: str = "",
        idempotency_key: str = "",
        fingerprint: str = "",
    ) -> Rollout:
        """Accept a command for many things; it is kept when this returns.

        Raises :class:`~thingctl_broker.errors.InvalidCommand`, :class:`NotAccepting`, :class:`TableFull`
        or :class:`~thingctl_broker.errors.IdempotencyConflict`.
        """
        async with self._beginning:  # two calls with one key would both find nothing
            found = self._with_key(requested_by, idempotency_key)
            if found is not None:
                check_same(found.record.fingerprint, fingerprint)
                return found
            return await self._begin(
                things,
                action,
                params,
                ttl,
                rules,
                requested_by=requested_by,
                post_back_uri=post_back_uri,
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
            )

    def _with_key(self, requested_by: str, key: str) -> Rollout | None:
        if not key:
            return None
        asked = (requested_by, key)
        rollouts = self._rollouts.values()
        return next(
            (one for one in rollouts if (one.record.requested_by, one.record.idempotency_key) == asked), None
        )

    async def _begin(
        self,
        things: list[str],
        action: str,
        params: bytes,
        ttl: int | None,
        rules: RolloutRules,
        *,
        requested_by: str,
        post_back_uri: str,
        idempotency_key: str,
        fingerprint: str,
    ) -> Rollout:
        self.check(action, params, ttl)
        if not self._service.journal.accepting:
            raise NotAccepting("commands cannot be kept at present, so none is accepted", retry_after=5)
        self._make_room()
        record = RolloutRecord(
            command_id=self._service.make_id(),
            action=action,
            params=params.decode(),
            ttl=ttl,
            created_at=self._service.unix(),
            requested_by=requested_by,
            things=things,
            targeted=len(things),
            rules=rules,
            post_back_uri=post_back_uri,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )
        rollout = Rollout(record)
        if self._store is not None:
            try:
                await self._store.save(record)
            except OSError as error:
                _log.error(
                    "a command to many things cannot be kept", commandId=record.command_id, fault=str(error)
                )
                raise NotAccepting("the command could not be kept", retry_after=5) from error
        self._rollouts[record.command_id] = rollout
        self._told[record.command_id] = record.state
        self._wake()
        return rollout

    def check(self, action: str, params: bytes, ttl: int | None) -> None:
        """Raise :class:`~thingctl_broker.errors.InvalidCommand` for what no thing could be sent."""
        self._service.check(action, params, ttl)

    async def get(self, command_id: str) -> Rollout | None:
        """The rollout of that command, if it had one."""
        return self._rollouts.get(command_id)

    async def newest(
        self, limit: int, cursor: str | None, states: frozenset[State] | None, requested_by: str | None
    ) -> list[Listed]:
        """At most ``limit`` rollouts, newest first, behind ``cursor``."""
        records = (rollout.record for rollout in self._rollouts.values())
        return newest(records, limit, cursor, states, requested_by)

    async def move(self, command_id: str, to: State) -> Rollout:
        """Pause, resume or cancel; it is kept when this returns.

        Raises :class:`UnknownCommand`; :class:`WrongMove` when that cannot be done now;
        :class:`NotAccepting` when it cannot be kept: then nothing has changed.
        """
        rollout = self._rollouts.get(command_id)
        if rollout is None:
            raise unknown_command()
        _check_move(rollout, to)
        if self._store is not None and rollout.record.state is not to:
            try:
                await self._store.save(replace(rollout.record, state=to))
            except OSError as error:
                _log.error(
                    "a move of a command to many things cannot be kept",
                    commandId=command_id,
                    fault=str(error),
                )
                raise NotAccepting(
                    "the change could not be kept, so it was not made", retry_after=5
                ) from error
        is_made = rollout.record.state is to or rollout.move(to)  # it may have finished in between
        with contextlib.suppress(OSError):  # the driver tries again
            await self._save(rollout)
        if not is_made:
            _check_move(rollout, to)
        self._wake()
        return rollout

    # How it is done.

    def _make_room(self) -> None:
        if len(self._rollouts) < ROLLOUTS_MAX:
            return
        for command_id, rollout in self._rollouts.items():
            if rollout.record.state in {State.FINISHED, State.CANCELED} and not rollout.live:
                del self._rollouts[command_id]
                self._told.pop(command_id, None)
                self._saved_at.pop(command_id, None)
                if self._store is not None:
                    self._store.remove(command_id)
                return
        raise TableFull(f"{ROLLOUTS_MAX} commands to many things are still under way")

    def _on_end(self, execution: Execution, _: Change) -> None:
        if self._rollouts and (rollout := self._rollouts.get(execution.command_id)) is not None:
            rollout.ended(execution.status)
            self._woken.set()

    def _wake(self) -> None:
        self._woken.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive(), name="rollouts")

    async def _drive(self) -> None:
        origin.set(NOBODY)  # not whoever's call has woken it
        while True:
            self._woken.clear()
            try:
                wait = await self._turn()
            except Exception:
                _log.exception("driving a rollout failed")  # the others must go on
                wait = RETRY_SECONDS
            if wait == 0.0:
                await asyncio.sleep(0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    async def _turn(self) -> float | None:
        """A chunk of each rollout that has something to do; return when to come again."""
        waits: list[float] = []
        for rollout in tuple(self._rollouts.values()):
            wait = await self._step(rollout)
            if wait is not None:
                waits.append(wait)
        return min(waits, default=None)

    async def _step(self, rollout: Rollout) -> float | None:
        record = rollout.record
        wait: float | None
        if record.state is State.CANCELED:
            wait = self._cancel(record.command_id) if rollout.live else None
        else:
            taken = rollout.pop_due(self._service.monotonic(), CHUNK)
            wait = await self._send(rollout, taken) if taken else rollout.wait(self._service.monotonic())
        told = self._told.get(record.command_id)
        since = self._service.monotonic() - self._saved_at.get(record.command_id, 0.0)
        if told is not record.state or (record.state is State.RUNNING and since >= SAVE_SECONDS):
            try:
                await self._save(rollout)
            except OSError as error:
                _log.error(
                    "how far a command has come cannot be kept", commandId=record.command_id, fault=str(error)
                )
                return RETRY_SECONDS if wait is None else wait
        return wait

    async def _send(self, rollout: Rollout, things: list[str]) -> float:
        record = rollout.record
        params = record.params.encode()
        origin.set(Caller(record.requested_by, ""))
        sent: list[Execution] = []
        wait = 0.0
        for i, thing in enumerate(things):
            try:
                sent.append(
                    self._service.send(
                        thing,
                        record.action,
                        params,
                        record.ttl,
                        requested_by=record.requested_by,
                        command_id=record.command_id,
                        post_back_uri=record.post_back_uri,
                    )
                )
            except (NotAccepting, TableFull):
                rollout.put_back(things[i:])
                wait = RETRY_SECONDS
                break
            except ServiceError as error:
                rollout.refuse(thing, error.text)
        if not await self._kept():
            table = self._service.table
            lost = [execution for execution in sent if table.get(execution.execution_id) is not execution]
            rollout.live += sum(execution.is_terminal for execution in lost)  # they have been counted
            rollout.put_back([execution.thing for execution in lost])
            wait = RETRY_SECONDS
        return wait

    async def _kept(self) -> bool:
        """Whether what was recorded so far is kept, or can be kept at all."""
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settle(verdict: bool) -> None:
            if not kept.done():
                kept.set_result(verdict)

        self._service.journal.then(lambda: settle(True), lambda: settle(False))
        return await kept

    def _cancel(self, command_id: str) -> float | None:
        """Cancel some of the executions that are live; return when to come again."""
        asked = 0
        for execution in self._service.table.of_command(command_id):
            if not execution.is_terminal and execution.cancel_requested_at is None:
                self._service.cancel(execution.execution_id)
                asked += 1
                if asked == CHUNK:
                    return 0.0
        return None

    async def _save(self, rollout: Rollout) -> None:
        record = rollout.record
        if record.state is State.FINISHED:
            record.things, record.sent = [], 0  # everybody has it: their names are in the executions
        state = record.state
        if self._store is not None:
            await self._store.save(record)
        self._told[record.command_id] = state
        self._saved_at[record.command_id] = self._service.monotonic()


def _check_move(rollout: Rollout, to: State) -> None:
    state = rollout.record.state
    if state is not to and to not in MOVES[state]:
        raise WrongMove(f"a command that is {state} cannot become {to}")
