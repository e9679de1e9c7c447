"""Progress on its way to the broker: at most one message per execution and interval. Pure.

Progress is not durable. The latest message of an execution is published again after a
lost connection until the broker has acknowledged it, and is dropped once the execution has ended.
"""

from __future__ import annotations

from typing import Final

import msgspec

from thingctl_protocol.limits import PROGRESS_MESSAGE_MAX
from thingctl_protocol.messages import Progress, encode_response
from thingctl_protocol.statuses import Status

INTERVAL: Final = 0.5
"""Seconds between two progress messages of one execution."""

_RECEIPT: Final = "progress/"
"""What a receipt of progress begins with. An execution id has no slash: it is one level of a topic."""

_AT_WORK: Final = encode_response(Status.IN_PROGRESS)


def receipt(execution_id: str) -> str:
    """The receipt of a progress message."""
    return _RECEIPT + execution_id


class _Said(msgspec.Struct):
    at: float
    unsaid: bytes | None = None
    latest: bytes = b""
    under_way: int = 0
    """Messages published and not acknowledged."""


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
        return self._say(
            execution_id, encode_response(Status.IN_PROGRESS, progress=Progress(percent, message)), now
        )

    def at_work(self, execution_id: str, now: float) -> list[tuple[str, bytes]]:
        """A handler is at work and has reported nothing; returns what is to be published now."""
        return self._say(execution_id, _AT_WORK, now)

    def due(self, now: float) -> list[tuple[str, bytes]]:
        """What is to be published now."""
        if not self._connected:
            return []
        out = []
        for execution_id, said in self._said.items():
            if said.unsaid is not None and now - said.at >= INTERVAL:
                out.append((execution_id, said.unsaid))
                said.at, said.latest, said.unsaid = now, said.unsaid, None
                said.under_way += 1
        return out

    def due_times(self) -> list[float]:
        """When :meth:`due` will have something."""
        if not self._connected:
            return []
        return [said.at + INTERVAL for said in self._said.values() if said.unsaid is not None]

    def acknowledged(self, of: str) -> bool:
        """The broker has acknowledged the publish with the receipt ``of``; True if it was progress."""
        if not of.startswith(_RECEIPT):
            return False
        said = self._said.get(of.removeprefix(_RECEIPT))
        if said is not None and said.under_way:
            said.under_way -= 1
        return True

    def connected(self, now: float) -> list[tuple[str, bytes]]:
        """There is a connection; returns what is to be published now."""
        self._connected = True
        return self.due(now)

    def disconnected(self) -> None:
        """The connection is gone: what was not acknowledged is to be published again."""
        self._connected = False
        for said in self._said.values():
            if said.under_way and said.unsaid is None:
                said.unsaid = said.latest
            said.under_way = 0

    def drop(self, execution_id: str) -> None:
        """The execution has ended."""
        self._said.pop(execution_id, None)

    def _say(self, execution_id: str, payload: bytes, now: float) -> list[tuple[str, bytes]]:
        said = self._said.get(execution_id)
        if said is None:
            said = self._said[execution_id] = _Said(now - INTERVAL)
        said.unsaid = payload
        return self.due(now)
