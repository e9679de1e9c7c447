"""What operators can do with commands, whoever keeps the executions.

The HTTP API, webhooks and rollouts are written against this. One implementation is over
the table of this process (:class:`~thingctl_broker.commands.embedded.EmbeddedOperations`), another
over a database that several workers share (:mod:`thingctl_broker.cluster`).

Most methods take a ``tell``: it makes, of the execution as it stands at that moment, what the
caller is to be told. Its result is returned when all that it tells is kept: nothing that an
answer says may be lost to a crash a moment later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thingctl_broker.commands.events import Counters, Events
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.outcomes import OutcomeCount
    from thingctl_broker.commands.statistics import Minute
    from thingctl_broker.commands.table import PageOfExecutions, Query
    from thingctl_broker.commands.validation import ServiceSettings
    from thingctl_broker.errors import NotAccepting
    from thingctl_broker.things.registry import ThingRegistry
    from thingctl_broker.things.thing import Thing

T = TypeVar("T")


class Operations(Protocol):
    """The use cases of operators."""

    @property
    def things(self) -> ThingRegistry:
        """The things and thing types."""
        ...

    @property
    def events(self) -> Events:
        """What this process does to executions, as it does it."""
        ...

    @property
    def counters(self) -> Counters:
        """How often each thing has happened in this process."""
        ...

    @property
    def settings(self) -> ServiceSettings:
        """What commands may be."""
        ...

    @property
    def accepting(self) -> bool:
        """Whether new commands can be kept, and things reached, at present."""
        ...

    def unix(self) -> float:
        """Wall time, Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Monotonic time, seconds."""
        ...

    def make_id(self) -> str:
        """The id of a command to many things."""
        ...

    def check(self, action: str, params: bytes, ttl: int | None) -> None:
        """Raise :class:`~thingctl_broker.errors.InvalidCommand` for what no thing could be sent."""
        ...

    async def thing(self, name: str) -> Thing | None:
        """The thing with that name, if it is known."""
        ...

    async def validate(self, thing: str, action: str, params: bytes, ttl: int | None) -> tuple[str, ...]:
        """Check a command as ``send`` would, and send nothing; return what its params were checked by."""
        ...

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
        """Accept a command for one thing: :meth:`thingctl_broker.commands.service.CommandService.send`."""
        ...

    async def read(self, execution_id: str, tell: Callable[[Execution], T]) -> T:
        """Tell of an execution; raises :class:`~thingctl_broker.errors.UnknownExecution`."""
        ...

    async def read_many(self, ids: Sequence[str], tell: Callable[[Mapping[str, Execution]], T]) -> T:
        """Tell of those of the executions that are there, by id."""
        ...

    async def list(
        self, query: Query, limit: int, cursor: str | None, tell: Callable[[PageOfExecutions], T]
    ) -> T:
        """Tell of a page of executions."""
        ...

    async def cancel(
        self, execution_id: str, admit: Callable[[Execution], None], tell: Callable[[Execution], T]
    ) -> T:
        """Withdraw an execution or ask its thing to stop, unless ``admit`` raises.

        Raises :class:`~thingctl_broker.errors.UnknownExecution`, and
        :class:`~thingctl_broker.errors.AlreadyEnded` for a terminal one.
        """
        ...

    async def withdraw(self, thing: str) -> None:
        """Cancel everything that is live of a thing."""
        ...

    async def wait(self, execution_id: str, seconds: float) -> None:
        """Return when the execution has ended, after ``seconds``, or when this process is ending."""
        ...

    async def outcomes(self, command_id: str) -> Sequence[OutcomeCount]:
        """The executions of a command, put together by status, reason and result."""
        ...

    def is_reachable(self, thing: str) -> bool:
        """Whether the thing is there to be sent something, as far as is known."""
        ...

    def watch(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with the id of every execution that changes, wherever; return what ends that."""
        ...

    async def minutes(self) -> Sequence[Minute]:
        """The last hour, minute by minute, up to and with this one."""
        ...

    async def size(self) -> tuple[int, int]:
        """How many executions there are, and how many of them are live."""
        ...

    def stop(self) -> None:
        """Let everybody go who waits: the process is ending."""
        ...

    # What has yet to be told to somebody outside.

    def owe(self, execution: Execution) -> bool:
        """Note that the execution's end has to be told; kept with the very record of its end.

        Return whether it is the caller's to tell; else it is among those that are ``owed``.
        """
        ...

    async def owed(self) -> Sequence[Execution]:
        """Executions whose end is to be told, and that are the caller's now.

        Those of a process before this one, say, or of a worker that has died.
        """
        ...

    async def settled(self, execution_id: str) -> None:
        """The execution's end has been told, or never will be."""
        ...


@runtime_checkable
class SendsAtOnce(Protocol):
    """What operations may offer besides, whose table is at hand: a ``send`` that nobody has to await."""

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
        """Accept a command for one thing, or raise, as :meth:`Operations.send` does.

        ``told`` is called with what ``tell`` made of it when that is kept, which may be at once;
        ``lost`` with what is to be said instead when it could not be.
        """
        ...
