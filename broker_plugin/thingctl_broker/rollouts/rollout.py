"""One command to many things: who gets it when, and when to stop.

Pure: the caller brings the time. ``now`` is monotonic (seconds), what rates are held
against. What is to outlive the process is the ``RolloutRecord``; the rest is worked out
anew from the executions that the record's command has.

``MOVES`` says which state may follow which.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec

from thingctl_broker.commands.status_table import FAILURES
from thingctl_broker.security.rate_limit import Rate, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from thingctl_broker.commands.execution import Execution
    from thingctl_protocol.statuses import Status

REFUSALS_MAX: Final = 100
"""Things that were refused, of which it is told why; the others are only counted."""


class State(StrEnum):
    """Where a rollout stands."""

    RUNNING = "RUNNING"
    """The command is going out."""

    PAUSED = "PAUSED"
    """An operator has halted it; it may be resumed."""

    STOPPED = "STOPPED"
    """Too many executions have failed; it may be resumed, and failures are then counted anew."""

    CANCELED = "CANCELED"
    """Nothing more goes out, and what has gone out is being canceled."""

    FINISHED = "FINISHED"
    """The command has gone out to every thing. Its executions may still run."""


MOVES: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.RUNNING: frozenset({State.PAUSED, State.STOPPED, State.CANCELED, State.FINISHED}),
        State.PAUSED: frozenset({State.RUNNING, State.STOPPED, State.CANCELED}),
        State.STOPPED: frozenset({State.RUNNING, State.CANCELED}),
        State.CANCELED: frozenset(),
        State.FINISHED: frozenset({State.CANCELED}),
    },
)
"""From each state, the ones it may become."""


class RolloutRules(
    msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """Limits of a rollout; null: no limit.

    ``rate``: things per second. ``batch``: executions that run at the same time. ``maxFailures``:
    the number of failures that stops the rollout.
    """

    rate: Annotated[float, msgspec.Meta(gt=0, le=100_000)] | None = None
    batch: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_failures: Annotated[int, msgspec.Meta(ge=1)] | None = None


class RolloutRecord(msgspec.Struct, omit_defaults=True):
    """What is kept of a rollout. ``params``: JSON text. ``created_at``: Unix seconds."""

    command_id: str
    action: str
    params: str
    ttl: int | None
    created_at: float
    requested_by: str
    things: list[str]
    """In the order in which they get the command; empty when it has gone out to all of them."""
    targeted: int
    rules: RolloutRules = RolloutRules()
    state: State = State.RUNNING
    sent: int = 0
    """How many of ``things`` have been dealt with."""
    refused: int = 0
    refusals: dict[str, str] = {}
    """Why, for the first of them."""
    post_back_uri: str = ""
    forgiven: int = 0
    """Failures before it was last resumed."""
    idempotency_key: str = ""
    fingerprint: str = ""
    """Of the call that the key was used for."""

    @property
    def pending(self) -> int:
        """How many things have yet to get the command."""
        return len(self.things) - self.sent


class Listed(NamedTuple):
    """A rollout in a list: its record, without its things."""

    record: RolloutRecord
    pending: int


def newest(
    records: Iterable[RolloutRecord],
    limit: int,
    cursor: str | None,
    states: frozenset[State] | None,
    requested_by: str | None,
) -> list[Listed]:
    """The first ``limit`` of those asked for, newest first, behind the one whose id is ``cursor``."""
    wanted = [
        record
        for record in records
        if (cursor is None or record.command_id < cursor)
        and (states is None or record.state in states)
        and (requested_by is None or record.requested_by == requested_by)
    ]
    wanted.sort(key=lambda record: record.command_id, reverse=True)  # ids ascend with time
    return [Listed(record, record.pending) for record in wanted[:limit]]


class Rollout:
    """A command on its way to many things."""

    __slots__ = ("_bucket", "failed", "live", "record")

    def __init__(self, record: RolloutRecord, executions: Iterable[Execution] = ()) -> None:
        """``executions``: those that the command has already, after a restart."""
        self.record = record
        self.live = 0
        """Executions that have not ended."""
        self.failed = 0
        """Executions that have failed, since the beginning."""
        self._bucket: TokenBucket | None = None
        there: set[str] = set()
        for execution in executions:
            there.add(execution.thing)
            if not execution.is_terminal:
                self.live += 1
            elif execution.status in FAILURES:
                self.failed += 1
        self.skip(there)

    def skip(self, there: Collection[str]) -> None:
        """These things have the command already, whatever is on record."""
        record = self.record
        if there:
            rest = [thing for thing in record.things[record.sent :] if thing not in there]
            done = len(record.things) - len(rest)
            record.things = record.things[:1] * done + rest  # who is done with needs no name
            record.sent = done
        self._check()

    @property
    def pending(self) -> int:
        """How many things have yet to get the command."""
        return self.record.pending

    def pop_due(self, now: float, limit: int) -> list[str]:
        """The things that get the command now, at most ``limit`` of them. They count as sent."""
        count = min(limit, self._room(now))
        if count <= 0:
            return []
        record = self.record
        taken = record.things[record.sent : record.sent + count]
        record.sent += count
        self.live += count
        if self._bucket is not None:
            self._bucket.add_tokens(-count)
        self._check()
        return taken

    def wait(self, now: float) -> float | None:
        """Seconds until ``pop_due`` may give something; None: not before something else happens."""
        if self.record.state is not State.RUNNING or self._free() <= 0:
            return None
        if self._room(now) > 0:
            return 0.0
        assert self._bucket is not None
        return self._bucket.seconds_until_token(now)

    def refuse(self, thing: str, why: str) -> None:
        """A thing that was taken cannot get the command."""
        self.live -= 1
        self.record.refused += 1
        if len(self.record.refusals) < REFUSALS_MAX:
            self.record.refusals[thing] = why

    def put_back(self, things: list[str]) -> None:
        """Things that were taken did not get the command after all, and are to get it later."""
        if not things:
            return
        self.live -= len(things)
        record = self.record
        record.things = record.things[: record.sent] + record.things[record.sent :] + things
        # Those that were dealt with are only counted: as many fewer of them, as many more to come.
        record.things = record.things[len(things) :]
        record.sent -= len(things)
        if record.state is State.FINISHED:
            record.state = State.RUNNING

    def ended(self, status: Status) -> None:
        """One of the command's executions has ended."""
        self.live -= 1
        if status in FAILURES:
            self.failed += 1
        self._check()

    def counted(self, *, live: int, failed: int) -> None:
        """The executions have been counted anew, where others than this process see them end."""
        self.live, self.failed = live, failed
        self._check()

    def move(self, to: State) -> bool:
        """Pause, resume or cancel; return whether that was a move that there is."""
        if to not in MOVES[self.record.state]:
            return False
        self.become(to)
        return True

    def become(self, to: State) -> None:
        """Somebody who may has moved it; resumed, its failures so far are forgiven."""
        if to is State.RUNNING:
            self.record.forgiven = self.failed
        self.record.state = to
        self._check()

    def _free(self) -> int:
        """How many may go out as far as the batch is concerned."""
        batch = self.record.rules.batch
        return self.pending if batch is None else min(self.pending, batch - self.live)

    def _room(self, now: float) -> int:
        if self.record.state is not State.RUNNING:
            return 0
        free = self._free()
        rate = self.record.rules.rate
        if rate is None:
            return free
        if self._bucket is None:
            # It holds a tenth of a second's worth: what a busy loop has missed does not come all at once.
            self._bucket = TokenBucket(Rate(rate, max(1.0, rate / 10)), now, left=1.0)
        # Treat a result within floating-point error of an integer as that integer.
        return min(free, int(self._bucket.refill(now) + 1e-9))

    def _check(self) -> None:
        """Stop or finish, if it is time to."""
        record = self.record
        limit = record.rules.max_failures
        if limit is not None and self.failed - record.forgiven >= limit and self.pending:
            if State.STOPPED in MOVES[record.state]:
                record.state = State.STOPPED
        elif record.state is State.RUNNING and not self.pending:
            record.state = State.FINISHED
