"""A pause of one connection while the rights of its client to a topic are looked up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from thingctl_broker.mqtt.server.limits import MqttLimits


class PausedConnection(Protocol):
    """What the lookup does to a connection."""

    limits: MqttLimits

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
    """What comes from the client until then waits in the connection, and when it is much, in its socket."""

    __slots__ = ("_connection", "_is_held", "_task", "_unread_bytes", "is_last_word")

    def __init__(self, connection: PausedConnection, lookup: Coroutine[None, None, None]) -> None:
        self._connection = connection
        self.is_last_word = False
        """Whether the client has closed its side since."""
        self._unread_bytes = 0
        self._is_held = False
        self._task = asyncio.get_running_loop().create_task(self._wait(lookup))

    def leaves_unread(self, count: int) -> bool:
        """Note that ``count`` bytes more must wait; return whether to stop reading now.

        Not with the first of them: a client that is not read from is not seen to go.
        """
        self._unread_bytes += count
        if self._is_held or self._unread_bytes <= self._connection.limits.connect_bytes:
            return False
        self._is_held = True
        return True

    def cancel(self) -> None:
        """The client has gone."""
        self._task.cancel()

    async def _wait(self, lookup: Coroutine[None, None, None]) -> None:
        await lookup
        if self._is_held:
            self._connection.hold_reading(stop=False)
        self._connection.resume()
        if self.is_last_word:
            self._connection.end_input()
