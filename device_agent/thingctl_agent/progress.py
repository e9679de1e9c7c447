"""Progress on its way to the broker: at most one message per execution and interval. Pure.

Progress is not durable. What cannot be said now is said later if it is still the
latest, and is dropped once the execution has ended.
"""

from __future__ import annotations

from typing import Final

import msgspec

from thingctl_protocol.limits import PROGRESS_MESSAGE_MAX
from thingctl_protocol.messages import Progress, encode_response
from thingctl_protocol.statuses import Status

INTERVAL: Final = 0.5
"""Seconds between two progress messages of one execution."""


class _Said(msgspec.Struct):
    at: float
    unsaid: bytes | None = None


class Reporter:
    """The progress of all running executions."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}
        self._connected = False

    def say(
        self, execution_id: str, percent: float | None, message: str | None, now: float
    ) -> list[tuple[str, bytes]]:
        """A handler has come this far; returns what is to be published now."""
        if message is not None:
            message = message.encode("utf-8", "replace").decode()[:PROGRESS_MESSAGE_MAX]
        payload = encode_response(Status.IN_PROGRESS, progress=Progress(percent, message))
        said = self._said.get(execution_id)
        if said is None:
            said = self._said[execution_id] = _Said(now - INTERVAL)
        said.unsaid = payload
        return self.due(now)

    def due(self, now: float) -> list[tuple[str, bytes]]:
        """What is to be published now."""
        if not self._connected:
            return []
        out = []
        for execution_id, said in self._said.items():
            if said.unsaid is not None and now - said.at >= INTERVAL:
                out.append((execution_id, said.unsaid))
                said.at, said.unsaid = now, None
        return out

    def due_times(self) -> list[float]:
        """When :meth:`due` will have something."""
        if not self._connected:
            return []
        return [said.at + INTERVAL for said in self._said.values() if said.unsaid is not None]

    def connected(self, now: float) -> list[tuple[str, bytes]]:
        """There is a connection; returns what is to be published now."""
        self._connected = True
        return self.due(now)

    def disconnected(self) -> None:
        """The connection is gone."""
        self._connected = False

    def drop(self, execution_id: str) -> None:
        """The execution has ended."""
        self._said.pop(execution_id, None)
