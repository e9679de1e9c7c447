"""What a worker needs of the database, as protocols.

A worker keeps nothing of its own: whatever it was told is in the store before anybody
outside hears of it. Times are Unix seconds by the store's clock, which is the one clock
that all workers share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from thingctl_broker.errors import NotAccepting

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Sequence

    from thingctl_broker.commands.execution import Cancel, Execution, Outcome
    from thingctl_broker.commands.outcomes import Tally
    from thingctl_broker.commands.statistics import Minute
    from thingctl_broker.commands.table import PageOfExecutions, Query
    from thingctl_broker.rollouts.rollout import Listed, RolloutRecord, State
    from thingctl_protocol.messages import Response
    from thingctl_protocol.statuses import Status


class StoreDown(NotAccepting):
    """The store cannot be reached, or refuses to write; nothing of what was asked was done.

    ``text`` is one sentence for people. ``uncertain``: the connection was lost during the
    commit and the store could not be asked about it, so it may have been done all the same.
    """

    def __init__(self, text: str, *, uncertain: bool = False) -> None:
        super().__init__(text, retry_after=5)
        self.uncertain = uncertain


class Responded(NamedTuple):
    """What a response did. ``execution``: as it stands now; None: no such execution of that thing."""

    execution: Execution | None
    outcome: Outcome | None
    """None together with ``execution``."""
    wrong_thing: bool = False
    """Whether the execution is there, but belongs to another thing."""


class CancelResult(NamedTuple):
    """What a wish to cancel did to the execution."""

    execution: Execution
    outcome: Cancel


class ExecutionStore(Protocol):
    """The table of executions. Every method may raise :class:`StoreDown`.

    A call returns when what it did is committed. Calls that run at the same time go into
    the database together: a few statements of many rows and one commit.
    """

    async def add(self, execution: Execution, *, queue_max: int) -> Execution:
        """Take in a new execution; ``published_at`` says whether it is on its way already.

        The store gives ``created_at`` its own time. With an ``idempotency_key`` that the same
        ``requested_by`` has used before, the earlier execution is returned instead (a different
        ``fingerprint`` raises :class:`~thingctl_broker.errors.IdempotencyConflict`). One that is not
        published raises :class:`~thingctl_broker.errors.QueueFull` when ``queue_max`` wait for
        its thing already (of several added at the same moment by different workers a few more may
        get in). It is among ``things_to_retry`` ten seconds later, should nothing else happen.
        The same ``execution_id`` again is the same execution. Raises ValueError for an id that is
        no UUIDv7.
        """
        ...

    async def get(self, execution_id: str) -> Execution | None:
        """The execution with that id (any text), if there is one."""
        ...

    async def many(self, execution_ids: Sequence[str]) -> list[Execution]:
        """Those of the executions that are there, in the order of the ids given."""
        ...

    async def select(self, query: Query, limit: int, cursor: str | None) -> PageOfExecutions:
        """List executions as :meth:`thingctl_broker.commands.table.ExecutionTable.select` does."""
        ...

    async def counts(self, command_id: str) -> Counter[Status]:
        """How many executions of a command stand where."""
        ...

    async def tallies(self, command_id: str) -> list[Tally]:
        """The executions of a command, those that are equal in all but their things together."""
        ...

    async def things_of(self, command_id: str) -> set[str]:
        """The things that have an execution of a command."""
        ...

    async def respond(self, thing: str, execution_id: str, response: Response) -> Responded:
        """Take in what a thing says (:meth:`thingctl_broker.commands.execution.Execution.respond`)."""
        ...

    async def cancel(self, execution_id: str, grace: float) -> CancelResult | None:
        """Withdraw an execution or note that its thing is to be asked to stop.

        By the rules of :meth:`~thingctl_broker.commands.execution.Execution.cancel`. None: there is none.
        """
        ...

    async def handed(self, execution_ids: Collection[str]) -> None:
        """The MQTT cluster has taken the requests: they need not be published again.

        In no hurry: what is answered meanwhile need not be written down. Not to be waited for
        by anything that a thing or an operator waits for.
        """
        ...

    async def unclaimed(
        self, execution_id: str, retry_in: float, published_at: float | None
    ) -> Execution | None:
        """The cluster had nobody to give the request to: it never left, and waits again.

        Try again in ``retry_in`` seconds. An execution that is to be canceled is CANCELED by
        this (:meth:`~thingctl_broker.commands.execution.Execution.stayed_here`). One that was published
        before this may have left then: it waits again, but stays on record as published, and
        when it is to be canceled the thing is to be asked. Returns it as it stands, None when
        that was no longer so (it has ended, or started, or the cluster has taken it).

        ``published_at``: as it was in the execution that was published. One that has waited
        and was published anew since has another: this is not about that publishing.
        """
        ...

    async def claim_waiting(self, thing: str, limit: int) -> list[Execution]:
        """Mark what waits for a thing as published, oldest first, and return it to be published.

        Two workers never get the same one. What has expired is for ``expire``.
        """
        ...

    async def things_to_retry(self, limit: int) -> list[str]:
        """Things with a request that waits and whose time to try again has come."""
        ...

    async def claim_unhanded(self, older_than: float, limit: int) -> list[Execution]:
        """Live executions published over ``older_than`` seconds ago, and never taken by the cluster.

        Their worker has died, or was cut off. They count as published once more now. Two
        workers never get the same one. An execution whose cancel is pending is not among them.
        """
        ...

    async def canceling(self, within: float, limit: int) -> list[tuple[str, str]]:
        """Live executions that their things have been, or are to be, asked to stop: thing and id of each.

        Of those whose deadline is within so many seconds, the nearest first. A pending cancel
        brings the deadline that near (:meth:`cancel`).
        """
        ...

    async def expire(self, limit: int) -> list[Execution]:
        """Close executions whose deadline has passed.

        See :meth:`thingctl_broker.commands.execution.Execution.expire`.

        Return them as they stand now. Two workers never get the same one.
        """
        ...

    async def seconds_to_next_deadline(self) -> float | None:
        """How long until ``expire`` may have something to do; None: nothing is live."""
        ...

    async def claim_untold(self, limit: int, lease: float) -> list[Execution]:
        """Executions whose end has yet to be told to a webhook, and that nobody has taken on.

        They are the caller's for ``lease`` seconds. The store itself marks an end, and what comes
        late, as yet to be told: where the command names a webhook, or all where the store was
        made to (``tell_all``).
        """
        ...

    async def told(self, execution_ids: Collection[str]) -> None:
        """The ends of these have been told, or given up: of those that this worker has claimed.

        One to which something came late after it was claimed stays to be told.
        """
        ...

    async def minutes(self) -> list[Minute]:
        """The last hour by minutes: :meth:`thingctl_broker.commands.statistics.HourlyStatistics.minutes`."""
        ...

    async def size(self) -> tuple[int, int]:
        """About how many executions there are, and how many of them are live."""
        ...

    async def tidy(self, keep: float) -> None:
        """Make the partitions that will be needed; drop those with nothing younger than ``keep`` seconds."""
        ...


class RolloutRows(Protocol):
    """Commands to many things. Every method may raise :class:`StoreDown`."""

    async def add(self, record: RolloutRecord) -> None:
        """Keep a new one, with its things; nothing is done when its caller has one with its key."""
        ...

    async def with_key(self, requested_by: str, key: str) -> RolloutRecord | None:
        """The one that this caller has begun with the key, whole."""
        ...

    async def newest(
        self, limit: int, cursor: str | None, states: frozenset[State] | None, requested_by: str | None
    ) -> list[Listed]:
        """At most ``limit``, newest first, behind the one whose id is ``cursor``."""
        ...

    async def get(self, command_id: str) -> RolloutRecord | None:
        """As it stands now, whole."""
        ...

    async def move(self, command_id: str, to: State) -> RolloutRecord | None:
        """Set the state if ``MOVES`` allows it; return the rollout as it stands now, None: there is none.

        Resumed, its failures so far are forgiven.
        """
        ...

    async def lease(self, worker: str, seconds: float, limit: int) -> list[RolloutRecord]:
        """Take on rollouts that have something to do and that no living worker has; whole records.

        Those that the worker holds already have their lease made longer and are not returned again,
        paused ones too: it holds a rollout until it is finished or canceled and its lease has run
        out, or until ``save`` returns None.
        """
        ...

    async def save(self, worker: str, record: RolloutRecord) -> State | None:
        """Keep how far it has come.

        That is ``sent``, ``refused``, ``refusals``, ``forgiven``, and its things if they changed.
        Of its state, by ``MOVES``, only that it has STOPPED or FINISHED: the rest is for ``move``.
        Return its state as it stands now (somebody may have paused it); None: the lease was lost.
        """
        ...


class Workers(Protocol):
    """Who is at work. Every method may raise :class:`StoreDown`."""

    async def alive(self, client_id: str, seconds: float) -> float:
        """This worker, with its MQTT client id, lives for another ``seconds``.

        Returns the store's time, Unix seconds.
        """
        ...

    async def orphan(self, adopter: str) -> str | None:
        """The client id of a worker that has died, if there is one; it is the adopter's for 30 seconds."""
        ...

    async def gone(self, client_id: str) -> None:
        """That worker has ended, and its session with it."""
        ...

    async def count(self) -> int:
        """How many live."""
        ...


class Documents(Protocol):
    """Small records that every worker mirrors: things, thing types, tokens.

    A record is (kind, name, value). Every method may raise :class:`StoreDown`.
    """

    async def load(self, kinds: Collection[str]) -> list[tuple[str, str, bytes]]:
        """Every record of these kinds, ordered by the kinds as given, then by name."""
        ...

    async def find(self, kind: str, name: str) -> bytes | None:
        """One record."""
        ...

    async def put(
        self,
        records: Sequence[tuple[str, str, bytes | None]],
        *,
        new: bool = False,
        instead_of: Sequence[bytes | None] | None = None,
    ) -> bool:
        """Write records (None: remove) in one transaction, and tell every worker.

        ``new``: only if none of them is there yet. ``instead_of``: only if each is at present what
        stands at its place there (None: not there), so that of two workers that change the same
        record neither undoes what the other did. False: it was otherwise, and nothing was written.
        """
        ...


class Heard(Protocol):
    """Whom a store tells of what has been committed, by this worker or another."""

    def changed(self, execution_ids: Sequence[str], ended: Sequence[str]) -> None:
        """Executions have changed; ``ended``: those of them that have just ended."""
        ...

    def document_changed(self, kind: str, name: str) -> None:
        """A record is another one now, or gone."""
        ...

    def rollout_changed(self, command_id: str) -> None:
        """A rollout was added or moved."""
        ...

    def missed(self) -> None:
        """The connection was away: anything may have changed meanwhile."""
        ...
