"""What amqtt holds for a client with a kept session while it is away; amqtt itself has no bound for it.

When there is no room, the oldest message goes: who comes back wants to know how things stand
now, and has what is left without a gap. It is that client's loss alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class OfflineQueue(asyncio.Queue[Any]):
    """Amqtt's queue of kept messages, with at most so many messages and bytes in it."""

    def __init__(self, messages: int, octets: int, lost: Callable[[str], None]) -> None:
        """``octets``: of topics and payloads. ``lost`` is called with the topic of each message that goes."""
        self._messages = messages
        self._octets = octets
        self._lost = lost
        self._held = 0
        super().__init__()

    # What asyncio.Queue leaves to those who derive from it.

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 asyncio's signature
        self._queue: deque[Any] = deque()

    def _put(self, item: Any) -> None:
        self._queue.append(item)
        self._held += _size(item)
        while len(self._queue) > self._messages or self._held > self._octets:
            self._lost(self._get().topic)

    def _get(self) -> Any:
        item = self._queue.popleft()
        self._held -= _size(item)
        return item


def bound(session: Any, messages: int, octets: int, lost: Callable[[str], None]) -> None:
    """Bound what amqtt keeps for a session, with all that it has kept so far."""
    kept = session.retained_messages
    if not isinstance(kept, OfflineQueue):
        session.retained_messages = OfflineQueue(messages, octets, lost)
        while not kept.empty():
            session.retained_messages.put_nowait(kept.get_nowait())


def _size(message: Any) -> int:
    return len(message.topic) + len(message.data)
