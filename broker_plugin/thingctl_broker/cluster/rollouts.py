"""Commands to many things, each driven by one worker at a time.

A rollout is a row of the store. Whichever worker has its lease sends the next few, counts by
the store how those before went, and keeps how far it has come; when it dies, another goes on,
and sees by the executions who has the command already.
"""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.cluster.operations import LIVE
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.commands.idempotency import check_same
from thingctl_broker.commands.status_table import FAILURES
from thingctl_broker.commands.table import Query
from thingctl_broker.errors import NotAccepting, ServiceError, WrongMove, unknown_command
from thingctl_broker.rollouts.rollout import Rollout, RolloutRecord, State
from thingctl_broker.security.caller import NOBODY, Caller, origin
from thingctl_protocol.statuses import TERMINAL

if TYPE_CHECKING:
    from thingctl_broker.cluster.operations import ClusterOperations
    from thingctl_broker.cluster.store_port import ExecutionStore, RolloutRows
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.rollouts.rollout import Listed, RolloutRules

CHUNK: Final = 100
"""Things that get the command in one turn."""

LEASE_SECONDS: Final = 15.0
"""How long a rollout stands still when its worker has died."""

TURN: Final = 0.25
"""Seconds between two turns of a rollout that waits for its executions."""

IDLE: Final = 5.0
"""Seconds between two looks for rollouts that nobody drives."""

LEASED_MAX: Final = 20
"""Rollouts that one worker drives at once, without those that are halted."""

STANDSTILL: Final = 1.0
"""Seconds until it is tried again when the store is away."""

HALTED: Final = frozenset({State.PAUSED, State.STOPPED, State.FINISHED})
"""In these nothing happens until an operator says so: to go on, or to cancel what has gone out."""

_log = structlog.get_logger("thingctl.rollouts")


class ClusterRollouts:
    """The rollouts of all workers, and this worker's part in driving them."""

    def __init__(
        self, operations: ClusterOperations, store: ExecutionStore, rows: RolloutRows, worker: str
    ) -> None:
        """``worker``: a name that no other worker has."""
        self._operations = operations
        self._store = store
        self._rows = rows
        self._worker = worker
        self._losses = 0
        self._opening: dict[str, RolloutRecord] = {}
        """Leased, but which things have the command already has yet to be read."""
        self._mine: dict[str, Rollout] = {}
        self._halted: dict[str, float] = {}
        """Those of ``_mine`` that are kept as halted, and until when they are ours; monotonic."""
        self._moved: set[str] = set()
        self._look_at = 0.0
        self._woken = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many this worker drives."""
        finished = sum(until != inf for until in self._halted.values())
        return len(self._mine) + len(self._opening) - finished

    def start(self) -> None:
        """Begin to drive."""
        self._driver = asyncio.get_running_loop().create_task(self._drive(), name="rollouts")

    async def stop(self) -> None:
        """Stop driving; others go on when the leases have run out."""
        if self._driver is not None:
            self._driver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._driver

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
        """Accept a command for many things; it is kept when this returns."""
        self._operations.check(action, params, ttl)
        record = RolloutRecord(
            command_id=self._operations.make_id(),
            action=action,
            params=params.decode(),
            ttl=ttl,
            created_at=self._operations.unix(),
            requested_by=requested_by,
            things=things,
            targeted=len(things),
            rules=rules,
            post_back_uri=post_back_uri,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )
        await self._rows.add(record)
        self._woken.set()
        if idempotency_key:
            kept = await self._rows.with_key(requested_by, idempotency_key)
            if kept is not None:
                check_same(kept.fingerprint, fingerprint)
                return Rollout(kept)
        return Rollout(record)

    async def get(self, command_id: str) -> Rollout | None:
        """The rollout of that command, if it had one."""
        record = await self._rows.get(command_id)
        return None if record is None else Rollout(record)

    async def newest(
        self, limit: int, cursor: str | None, states: frozenset[State] | None, requested_by: str | None
    ) -> list[Listed]:
        """At most ``limit`` rollouts, newest first, behind ``cursor``."""
        return await self._rows.newest(limit, cursor, states, requested_by)

    async def move(self, command_id: str, to: State) -> Rollout:
        """Pause, resume or cancel; it is kept when this returns."""
        record = await self._rows.move(command_id, to)
        if record is None:
            raise unknown_command()
        if record.state is not to:
            raise WrongMove(f"a command that is {record.state} cannot become {to}")
        self._woken.set()
        return Rollout(record)

    def rollout_changed(self, command_id: str) -> None:
        """A rollout was added or moved, here or elsewhere."""
        if command_id in self._mine:
            self._moved.add(command_id)
        self._woken.set()

    # How it is done.

    async def _drive(self) -> None:
        origin.set(NOBODY)
        while True:
            self._woken.clear()
            wait = IDLE
            try:
                await self._lease()
                for command_id in tuple(self._opening):
                    await self._open(command_id)
            except NotAccepting as error:
                _log.warning("rollouts stand still", fault=error.text)
                wait = STANDSTILL
            except Exception:
                _log.exception("taking on rollouts failed")
                wait = STANDSTILL
            if self._operations.monotonic() >= self._look_at:
                self._look_at = self._operations.monotonic() + IDLE
                self._moved.update(self._mine)  # it may not have been heard of
            for command_id in tuple(self._mine):
                wait = min(wait, await self._driven(command_id))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    async def _lease(self) -> None:
        """Take on what nobody drives, and keep what is driven here."""
        room = LEASED_MAX - (len(self._mine) - len(self._halted)) - len(self._opening)
        try:
            leased = await self._rows.lease(self._name, LEASE_SECONDS, max(0, room))
        except BaseException as error:
            if not isinstance(error, StoreDown) or error.uncertain:
                # If the claim's result was lost, rows may hold a lease under the old worker name.
                # Take a new name: those leases expire, and the rows are claimed again.
                self._losses += 1
                self._opening.clear()
                self._mine.clear()
                self._halted.clear()
            raise
        for record in leased:
            self._opening[record.command_id] = record

    @property
    def _name(self) -> str:
        return f"{self._worker}/{self._losses}" if self._losses else self._worker

    async def _open(self, command_id: str) -> None:
        rollout = Rollout(self._opening[command_id])
        rollout.skip(await self._store.things_of(command_id))
        del self._opening[command_id]
        self._mine[command_id] = rollout

    async def _driven(self, command_id: str) -> float:
        """A turn of one rollout, whose faults the others do not suffer from; return when to come again."""
        rollout = self._mine[command_id]
        try:
            if command_id in self._halted:
                return await self._look(rollout)
            return await self._step(rollout)
        except NotAccepting as error:
            _log.warning("a rollout stands still", commandId=command_id, fault=error.text)
        except Exception:
            _log.exception("driving a rollout failed", commandId=command_id)
        return STANDSTILL

    async def _look(self, rollout: Rollout) -> float:
        """See whether one that is halted has been moved; return when to come again."""
        command_id = rollout.record.command_id
        if self._operations.monotonic() >= self._halted[command_id]:
            self._leave(command_id)
            return IDLE
        if command_id not in self._moved:
            return IDLE
        self._moved.discard(command_id)
        record = await self._rows.get(command_id)
        if record is None or record.state is not rollout.record.state:
            self._leave(command_id)
            if record is not None:
                self._opening[command_id] = record
                return 0.0
        return IDLE

    def _leave(self, command_id: str) -> None:
        del self._mine[command_id]
        self._halted.pop(command_id, None)

    async def _step(self, rollout: Rollout) -> float:
        """A chunk of a rollout; return when to come again."""
        record = rollout.record
        self._moved.discard(record.command_id)
        counts = await self._store.counts(record.command_id)
        rollout.counted(
            live=sum(number for status, number in counts.items() if status not in TERMINAL),
            failed=sum(number for status, number in counts.items() if status in FAILURES),
        )
        wait = TURN
        if record.state is State.CANCELED:
            await self._operations.cancel_all(Query(command_id=record.command_id, statuses=LIVE))
        else:
            now = self._operations.monotonic()
            taken = rollout.pop_due(now, CHUNK)
            if taken:
                wait = await self._send(rollout, taken)
            elif (due := rollout.wait(now)) is not None:
                wait = min(due, TURN)
        state = await self._rows.save(self._name, record)
        if state is None:
            self._mine.pop(record.command_id, None)  # another worker has it
            return TURN
        if state is not record.state:
            rollout.become(state)  # an operator's word, from wherever it came
            return 0.0
        if state is State.CANCELED:
            self._leave(record.command_id)
        elif state is State.FINISHED:
            # As long as the lease lasts nobody else would cancel it.
            self._halted[record.command_id] = self._operations.monotonic() + LEASE_SECONDS
        elif state in HALTED:
            self._halted[record.command_id] = inf
        return wait

    async def _send(self, rollout: Rollout, things: list[str]) -> float:
        record = rollout.record
        params = record.params.encode()
        origin.set(Caller(record.requested_by, ""))
        outcomes = await asyncio.gather(
            *(
                self._operations.send(
                    thing,
                    record.action,
                    params,
                    record.ttl,
                    _nothing,
                    requested_by=record.requested_by,
                    # Whoever drove it before and whatever got lost: a thing gets the command once.
                    # No key of an operator has a space.
                    idempotency_key=f"{record.command_id} {thing}",
                    command_id=record.command_id,
                    post_back_uri=record.post_back_uri,
                )
                for thing in things
            ),
            return_exceptions=True,
        )
        again: list[str] = []
        for thing, outcome in zip(things, outcomes, strict=True):
            if isinstance(outcome, NotAccepting):
                again.append(thing)
            elif isinstance(outcome, ServiceError):
                rollout.refuse(thing, outcome.text)
            elif isinstance(outcome, BaseException):
                _log.error("a command of a rollout failed", thing=thing, exc_info=outcome)
                rollout.refuse(thing, "the command could not be sent: see the worker's log")
        rollout.put_back(again)
        return STANDSTILL if again else 0.0


def _nothing(_: Execution) -> None:
    """Tell nothing of it."""
