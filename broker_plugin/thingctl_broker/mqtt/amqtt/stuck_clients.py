"""Ends connections of amqtt's own clients that do not read.

amqtt waits for such a client without a limit, and while it does, what our clients publish has to wait for
all of amqtt's.
"""

from __future__ import annotations

from typing import Any, Final

TIMEOUT: Final = 30.0
"""Seconds that a client may let amqtt wait; it is the default of ``limits.write_timeout``, too."""

_INTERVAL: Final = 1.0


class StuckClients:
    """Looks at amqtt's clients now and then, as long as amqtt is behind."""

    def __init__(self, broker: Any) -> None:
        """``broker``: amqtt's."""
        self._broker = broker
        self._since: dict[Any, float] = {}  # by handler
        self._looked = float("-inf")

    def forget(self) -> None:
        """Amqtt has caught up."""
        self._since.clear()

    def abort(self, now: float) -> list[str]:
        """End the connections that have let amqtt wait at every look for too long; return their client ids.

        ``now``: monotonic seconds.
        """
        if now - self._looked < _INTERVAL:
            return []
        self._looked = now
        waiting = {
            handler: client_id
            for client_id, (_, handler) in self._broker.sessions.items()
            if handler._write_lock.locked()  # noqa: SLF001 a contract test holds the name
        }
        self._since = {handler: self._since.get(handler, now) for handler in waiting}
        stuck = [handler for handler, since in self._since.items() if now - since >= TIMEOUT]
        return [waiting[handler] for handler in stuck if _abort(handler)]


def _abort(handler: Any) -> bool:
    """Cut the connection: amqtt's own close waits for the client to read first."""
    stream = getattr(handler.writer, "_writer", None)
    if stream is None:  # it has gone, or came over WebSocket
        return False
    stream.transport.abort()
    return True
