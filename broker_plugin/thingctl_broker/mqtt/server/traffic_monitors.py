"""Who watches the command traffic: requests, responses, cancels and announcements, as they go by.

It costs a truth test while no client watches. An observer gets messages at QoS 0, once for each
message however many of its filters match, and in one write for each turn of the loop. One that
does not keep up with reading misses messages, and no command waits for it; ``Wire`` drops one
that does not read at all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from thingctl_broker.mqtt.engine.message import Message
from thingctl_protocol.topics import matches

if TYPE_CHECKING:
    from collections.abc import Callable


class Monitor(Protocol):
    """A connection that watches."""

    @property
    def is_behind(self) -> bool:
        """Whether its client reads more slowly than it is written to."""
        ...

    def is_closed(self) -> bool:
        """Whether it has ended."""
        ...

    def show(self, message: Message) -> bytes:
        """A message as a packet of its client's MQTT."""
        ...

    def write(self, data: bytes, packets: int) -> None:
        """Write so many packets."""
        ...

    def offended(self, limit: str, text: str, **details: object) -> None:
        """Its client has reached a limit: count it, and log it now and then."""
        ...


class _Observer:
    __slots__ = ("filters", "unwritten")

    def __init__(self) -> None:
        self.filters: list[list[str]] = []
        """Topic filters, as levels."""
        self.unwritten: list[bytes] = []


class TrafficMonitors:
    """The connections that watch, at most ``most``."""

    def __init__(self, most: int, missed: Callable[[Monitor, str], None]) -> None:
        """``missed`` is called with an observer and the topic of a message that it does not get."""
        self._most = most
        self._missed = missed
        self._is_due = False
        self.watching: dict[Monitor, _Observer] = {}
        """Empty while no client watches: look here before anything is done for them."""

    def has_room(self, connection: Monitor) -> bool:
        """Whether the connection may watch."""
        return connection in self.watching or len(self.watching) < self._most

    def watch(self, connection: Monitor, filters: list[str]) -> None:
        """Tell the connection what these filters match from now on, and nothing else."""
        if filters and not connection.is_closed():
            observer = self.watching.setdefault(connection, _Observer())
            observer.filters = [topic_filter.split("/") for topic_filter in filters]
        else:
            self.leave(connection)

    def leave(self, connection: Monitor) -> None:
        """Tell the connection nothing any more."""
        self.watching.pop(connection, None)

    def tell(self, topic: str, payload: bytes) -> None:
        """A message of the command traffic goes by."""
        levels = topic.split("/")
        message: Message | None = None
        for connection, observer in self.watching.items():
            if not any(matches(topic_filter, levels) for topic_filter in observer.filters):
                continue
            if connection.is_behind:
                self._missed(connection, topic)
                continue
            message = message or Message(topic, payload)
            observer.unwritten.append(connection.show(message))
            if not self._is_due:
                self._is_due = True
                asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_due = False
        for connection, observer in tuple(self.watching.items()):
            if observer.unwritten:
                unwritten, observer.unwritten = observer.unwritten, []
                connection.write(b"".join(unwritten), len(unwritten))
