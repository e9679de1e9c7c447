"""What the service needs of the world, as protocols. Adapters and fakes fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thingctl_broker.commands.execution import Execution


class Clock(Protocol):
    """The two times: one for deadlines, one for display."""

    def monotonic(self) -> float:
        """Seconds that never jump."""
        ...

    def unix(self) -> float:
        """Seconds since 1970, as the machine believes."""
        ...


class Link(Protocol):
    """How the broker side reaches things."""

    def publish_request(self, thing: str, execution_id: str, payload: bytes, *, again: bool) -> bool:
        """Write a request to the thing's connection; return whether a PUBACK will follow.

        ``again``: set DUP. Does nothing, and returns True, when the connection has just gone:
        the thing's becoming unreachable is told to the service on its own.
        """
        ...

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Ask the thing to stop, if it listens."""
        ...


class Journal(Protocol):
    """What keeps executions beyond the process."""

    @property
    def accepting(self) -> bool:
        """Whether new executions can be kept at present."""
        ...

    def recover(self, now: float, at: float) -> Iterable[Execution]:
        """Give every execution that it has, oldest first; only before :meth:`start`.

        ``now``: monotonic time, ``at``: Unix seconds, both of this moment.
        """
        ...

    async def start(self) -> None:
        """Begin to write."""
        ...

    async def stop(self) -> None:
        """Write what is left, and close."""
        ...

    def release(self) -> None:
        """Close without writing: another process may have the files."""
        ...

    def record(self, execution: Execution) -> None:
        """Keep the execution as it stands now."""
        ...

    def forget(self, execution_id: str) -> None:
        """The execution has left the table."""
        ...

    def then(self, kept: Callable[[], None], lost: Callable[[], None] | None = None) -> None:
        """Call ``kept``, in the loop, when everything recorded so far is kept; at once if it is.

        ``lost`` is called instead when it could not be kept; without one, ``kept`` waits on.
        """
        ...
