"""Responses on their way to the broker. Pure.

The MQTT client's own queue is in memory, unbounded and knows nothing of executions,
so it is given only what fits its window, and nothing while there is no connection.
"""

from __future__ import annotations


class ResponseOutbox:
    """Responses the broker has not acknowledged, oldest first."""

    def __init__(self, window: int = 16) -> None:
        """``window``: how many may be under way together."""
        self._window = window
        self._waiting: dict[str, bytes] = {}
        self._under_way: dict[str, bytes] = {}
        self._connected = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    def put(self, execution_id: str, payload: bytes) -> list[tuple[str, bytes]]:
        """Add a response; returns what is to be published now."""
        if execution_id not in self._under_way:
            self._waiting[execution_id] = payload
        return self._fill()

    def connected(self) -> list[tuple[str, bytes]]:
        """There is a connection; returns what is to be published now."""
        self._connected = True
        return self._fill()

    def disconnected(self) -> None:
        """The connection is gone: what was under way is to be published again."""
        self._connected = False
        self._waiting = self._under_way | self._waiting
        self._under_way = {}

    def acknowledged(self, execution_id: str) -> list[tuple[str, bytes]]:
        """The broker has the response; returns what is to be published now."""
        self._under_way.pop(execution_id, None)
        return self._fill()

    def _fill(self) -> list[tuple[str, bytes]]:
        if not self._connected:
            return []
        moved = []
        while self._waiting and len(self._under_way) < self._window:
            execution_id = next(iter(self._waiting))
            payload = self._under_way[execution_id] = self._waiting.pop(execution_id)
            moved.append((execution_id, payload))
        return moved
