"""A pause of one connection while the rights of its client to a topic are looked up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine


class PausedConnection(Protocol):
    """What the lookup does to a connection."""

    def hold_reading(self, *, stop: bool) -> None:
        """Stop reading, or undo one earlier stop."""
        ...

    def resume(self) -> None:
        """Take the packets that had to wait, unless the rights to one more have to be looked up."""
        ...

    def end_input(self) -> None:
        """The client has closed its side."""
        ...


class RightsLookup:
    """What comes from the client meanwhile waits unread, in the connection and then in its socket."""

    __slots__ = ("_connection", "_task", "is_last_word")

    def __init__(self, connection: PausedConnection, lookup: Coroutine[None, None, None]) -> None:
        self._connection = connection
        self.is_last_word = False
        """Whether the client has closed its side since."""
        connection.hold_reading(stop=True)
        self._task = asyncio.get_running_loop().create_task(self._wait(lookup))

    def leaves_unread(self, count: int) -> bool:  # noqa: ARG002 as of a handshake
        """Whether to stop reading now: that has been done."""
        return False

    def cancel(self) -> None:
        """The client has gone."""
        self._task.cancel()

    async def _wait(self, lookup: Coroutine[None, None, None]) -> None:
        await lookup
        self._connection.hold_reading(stop=False)
        self._connection.resume()
        if self.is_last_word:
            self._connection.end_input()
