"""Calls about single executions, many of them in one statement.

Each kind of call has a lane of its own, and each batch is one statement that commits by
itself: one round trip and one commit for as many calls as have gathered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import asyncpg
from msgspec.structs import replace

from thingctl_broker.cluster.store_port import CancelResult, Responded, StoreDown
from thingctl_broker.commands.execution import Cancel, Outcome
from thingctl_broker.errors import IdempotencyConflict, QueueFull
from thingctl_broker.storage.postgres import transition_sql
from thingctl_broker.storage.postgres.batching import BatchQueue
from thingctl_broker.storage.postgres.claim_sql import HANDED
from thingctl_broker.storage.postgres.execution_rows import (
    columns,
    json_or_none,
    reader,
    text_or_none,
    to_values,
)
from thingctl_broker.storage.postgres.partitions import make_partitions, month_of
from thingctl_protocol.errors import TransitionError
from thingctl_protocol.statuses import Status, advance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.storage.postgres.pool import Database
    from thingctl_protocol.messages import Response

BATCH_MAX: Final = 500
"""Calls of one statement."""

HANDED_WAIT: Final = 0.2
"""Seconds until it is written down that the cluster has taken a request. Most things answer
sooner, and then it need not be written at all."""

RETRY_AFTER: Final = 30
"""Seconds that a caller is told to wait when too many requests wait for a thing."""

BY_ID: Final = (
    f"SELECT thingctl.now(), {columns('e')} FROM thingctl.executions e WHERE e.execution_id = ANY($1::uuid[])"
)
_OF_KEYS: Final = (
    "SELECT k.requested_by, k.key, k.fingerprint, k.execution_id FROM thingctl.idempotency_keys k "
    "JOIN unnest($1::text[], $2::text[]) AS i (requested_by, key) "
    "ON k.requested_by = i.requested_by AND k.key = i.key"
)

_Asked = TypeVar("_Asked")
_Given = TypeVar("_Given")


class WriteResult(NamedTuple):
    """What a thing says of an execution."""

    thing: str
    execution_id: str
    response: Response


class Timed(NamedTuple):
    """An execution, and how long something about it may take."""

    execution_id: str
    seconds: float


class Unclaimed(NamedTuple):
    """A request that left for nobody, and when it is to be tried again (seconds from now)."""

    execution_id: str
    seconds: float
    published_at: float | None
    """Of the publishing that it is about."""


class New(NamedTuple):
    """A new execution, and how many may wait for its thing."""

    execution: Execution
    queue_max: int


class Batches:
    """The lanes: ``adding``, ``responding``, ``canceling``, ``unclaiming``, ``handing``, ``getting``.

    ``tell_all``: whether every end is to be told to a webhook.
    """

    def __init__(self, database: Database, *, tell_all: bool) -> None:
        self._database = database
        self._tell_all = tell_all
        self.adding = BatchQueue(self._add, _keys_of_new, batch_max=BATCH_MAX)
        self.responding = BatchQueue(self._respond, _key_of_answer, batch_max=BATCH_MAX)
        self.canceling = BatchQueue(self._cancel, _key_of_timed, batch_max=BATCH_MAX)
        self.unclaiming = BatchQueue(self._unclaim, _key_of_timed, batch_max=BATCH_MAX)
        # Many may wait for the end of the same execution: reading it is done once for all of them.
        self.getting = BatchQueue(self._get, _no_keys, batch_max=BATCH_MAX)
        self.handing = BatchQueue(self._hand, _no_keys, batch_max=BATCH_MAX, wait=HANDED_WAIT)

    async def drained(self) -> None:
        """Return when everything asked for so far is done."""
        for lane in (self.adding, self.responding, self.canceling, self.unclaiming, self.handing):
            await lane.drained()

    async def by_ids(self, ids: list[str]) -> dict[str, Execution]:
        """Those of the executions that are there."""

        async def work(connection: Any) -> dict[str, Execution]:
            return await _by_ids(connection, ids)

        return await self._database.run(work, repeatable=True) if ids else {}

    async def _add(self, asked: list[New]) -> Sequence[Execution | Exception]:
        arguments = _arguments_of_new(asked)

        async def work(connection: Any) -> list[Execution | Exception]:
            try:
                rows = await connection.fetch(transition_sql.ADD, *arguments)
            except asyncpg.CheckViolationError:  # there is no partition for one of them
                await make_partitions(connection, {month_of(new.execution.execution_id) for new in asked})
                rows = await connection.fetch(transition_sql.ADD, *arguments)
            now = time.monotonic()
            told = {str(execution_id): at for execution_id, at in rows}
            answers: list[Execution | Exception | None] = [None] * len(asked)
            earlier: list[int] = []
            for i, (execution, queue_max) in enumerate(asked):
                if execution.execution_id not in told:
                    earlier.append(i)
                elif (at := told[execution.execution_id]) is not None:
                    answers[i] = _added(execution, at, now)
                else:
                    text = f"{queue_max} requests wait for {execution.thing!r} already"
                    answers[i] = QueueFull(text, retry_after=RETRY_AFTER)
            if earlier:
                found = await _earlier(connection, [asked[i].execution for i in earlier])
                for i, answer in zip(earlier, found, strict=True):
                    answers[i] = answer
            return [StoreDown("an execution was not taken in") if one is None else one for one in answers]

        return await self._batch(asked, work, self._add)

    async def _respond(self, asked: list[WriteResult]) -> Sequence[Responded | Exception]:
        said = [one.response for one in asked]
        arguments = (
            [one.execution_id for one in asked],
            [one.thing for one in asked],
            [one.status.value for one in said],
            [text_or_none(bytes(one.result) or None) for one in said],
            [json_or_none(one.status_reason) for one in said],
            [json_or_none(one.progress) for one in said],
            self._tell_all,
        )

        tries = RetryState()

        async def work(connection: Any) -> list[Responded | Exception]:
            tries.another()
            answers: list[Responded | Exception] = [Responded(None, None)] * len(asked)
            read = reader()
            for row in await connection.fetch(transition_sql.RESPOND, *arguments):
                n, outcome = row[0], row[1]
                execution = read(row, 2)
                if outcome == transition_sql.WRONG_THING:
                    answers[n - 1] = Responded(None, None, wrong_thing=True)
                elif outcome is None:
                    answers[n - 1] = _impossible(execution.status, said[n - 1].status)
                elif outcome == Outcome.REPEATED.name and tries.may_have_ended(execution, row[2]):
                    answers[n - 1] = Responded(execution, Outcome.APPLIED)
                else:
                    answers[n - 1] = Responded(execution, Outcome[outcome])
            return answers

        return await self._batch(asked, work, self._respond)

    async def _cancel(self, asked: list[Timed]) -> Sequence[CancelResult | Exception | None]:
        ids, graces = [one.execution_id for one in asked], [one.seconds for one in asked]
        tries = RetryState()

        async def work(connection: Any) -> list[CancelResult | Exception | None]:
            tries.another()
            answers: list[CancelResult | Exception | None] = [None] * len(asked)
            read = reader()
            for row in await connection.fetch(transition_sql.CANCEL, ids, graces, self._tell_all):
                outcome = Cancel[row[1]]
                execution = read(row, 2)
                # Where it may have been this very call that asked before, the thing is asked (again).
                if outcome is Cancel.PENDING and tries.count > 1:
                    outcome = Cancel.REQUESTED
                elif outcome is Cancel.ENDED and execution.status is Status.CANCELED:
                    outcome = Cancel.DONE if tries.may_have_ended(execution, row[2]) else outcome
                answers[row[0] - 1] = CancelResult(execution, outcome)
            return answers

        return await self._batch(asked, work, self._cancel)

    async def _unclaim(self, asked: list[Unclaimed]) -> Sequence[Execution | Exception | None]:
        ids, waits = [one.execution_id for one in asked], [one.seconds for one in asked]
        publishings = [one.published_at for one in asked]

        async def work(connection: Any) -> list[Execution | Exception | None]:
            answers: list[Execution | Exception | None] = [None] * len(asked)
            read = reader()
            for row in await connection.fetch(
                transition_sql.UNCLAIMED, ids, waits, self._tell_all, publishings
            ):
                if row[1] != "OVERTAKEN":
                    answers[row[0] - 1] = read(row, 2)
            return answers

        return await self._batch(asked, work, self._unclaim)

    async def _hand(self, asked: list[tuple[str, ...]]) -> Sequence[Exception | None]:
        ids = list({one: None for many in asked for one in many})

        async def work(connection: Any) -> None:
            await connection.execute(HANDED, ids)

        if ids:
            await self._database.run(work, repeatable=True)
        return [None] * len(asked)

    async def _get(self, asked: list[str]) -> Sequence[Execution | Exception | None]:
        found = await self.by_ids(list(dict.fromkeys(asked)))
        return [found.get(one) for one in asked]

    async def _batch(
        self,
        asked: list[_Asked],
        work: Callable[[Any], Awaitable[list[_Given | Exception]]],
        again: Callable[[list[_Asked]], Awaitable[Sequence[_Given | Exception]]],
    ) -> Sequence[_Given | Exception]:
        """Do a batch; if the database refuses one of the calls, do each by itself."""
        try:
            return await self._database.run(work, repeatable=True)
        except (asyncpg.PostgresError, ValueError) as error:
            if len(asked) == 1:
                return [error]
        return [(await again([one]))[0] for one in asked]


def _keys_of_new(new: New) -> tuple[object, ...]:
    execution = new.execution
    if not execution.idempotency_key:
        return (execution.execution_id,)
    return execution.execution_id, (execution.requested_by, execution.idempotency_key)


def _key_of_answer(answer: WriteResult) -> tuple[str]:
    return (answer.execution_id,)


def _key_of_timed(timed: Timed | Unclaimed) -> tuple[str]:
    return (timed.execution_id,)


def _no_keys(_: object) -> tuple[()]:
    return ()


def _arguments_of_new(asked: list[New]) -> tuple[list[Any], ...]:
    given = [to_values(one.execution, transition_sql.GIVEN) for one in asked]
    return (
        [one.execution.execution_id for one in asked],
        *(list(column) for column in zip(*given, strict=True)),
        [one.execution.published_at is not None for one in asked],
        [one.queue_max for one in asked],
    )


def _added(execution: Execution, at: float, now: float) -> Execution:
    published = execution.published_at is not None
    return replace(
        execution,
        status=Status.SENT,
        created_at=at,
        deadline=now + execution.ttl,
        published_at=at if published else None,
        attempts=int(published),
        kept=True,
    )


async def _by_ids(connection: Any, ids: list[str]) -> dict[str, Execution]:
    rows = await connection.fetch(BY_ID, ids)
    read = reader()
    return {execution.execution_id: execution for execution in (read(row, 0) for row in rows)}


async def _earlier(connection: Any, new: list[Execution]) -> list[Execution | Exception | None]:
    """The executions that were there before: with the same id, else with the same key."""
    keyed = [one for one in new if one.idempotency_key]
    keys: dict[tuple[str, str], tuple[str, str]] = {}
    if keyed:
        rows = await connection.fetch(
            _OF_KEYS, [one.requested_by for one in keyed], [one.idempotency_key for one in keyed]
        )
        keys = {(row[0], row[1]): (row[2], str(row[3])) for row in rows}
    ids = {one.execution_id for one in new} | {execution_id for _, execution_id in keys.values()}
    found = await _by_ids(connection, list(ids))
    answers: list[Execution | Exception | None] = []
    for one in new:
        by_key = keys.get((one.requested_by, one.idempotency_key))
        if one.execution_id in found:
            answers.append(found[one.execution_id])
        elif by_key is not None and by_key[0] != one.fingerprint:
            answers.append(IdempotencyConflict("the idempotency key was used for another command"))
        else:
            answers.append(None if by_key is None else found.get(by_key[1]))
    return answers


def _impossible(current: Status, said: Status) -> Exception:
    try:
        advance(current, said)
    except TransitionError as error:
        return error
    return ValueError(f"{said} is not a device's to say")


class RetryState:
    """Attempt counter of a batch. A retry whose first attempt was committed returns the committed result."""

    def __init__(self) -> None:
        self.count = 0
        self._began = time.monotonic()

    def another(self) -> None:
        """It is asked, perhaps once more."""
        self.count += 1

    def may_have_ended(self, execution: Execution, now: float) -> bool:
        """Whether it was this batch that ended the execution. ``now``: the database's time.

        Somebody else may have, in the same moment; better an end told twice than never.
        """
        if self.count < 2 or execution.ended_at is None:
            return False
        return execution.ended_at >= now - (time.monotonic() - self._began)
