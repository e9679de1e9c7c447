"""Publishers that are not read from while those that get their messages read too slowly.

Only with ``limits.slow_readers = "stop"``; otherwise messages for a slow reader are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from thingctl_broker.mqtt.engine.totals import WaitingSession
    from thingctl_broker.mqtt.server.client import ServerConnection


class SlowReaders:
    """Who holds up whom."""

    def __init__(self, clients: Mapping[str, ServerConnection], *, stops: bool) -> None:
        """``clients``: the connections by client id. ``stops``: whether publishers are held at all."""
        self._clients = clients
        self._stops = stops

    def hold(self, publisher: ServerConnection, slow: Iterable[WaitingSession]) -> None:
        """Read nothing more from a publisher until the ``slow`` have caught up."""
        if not self._stops:
            return
        for session in slow:
            reader = self._clients.get(session.client_id)
            if reader is not None and reader is not publisher:
                reader.stopped_publishers[publisher] = None
                publisher.hold_publisher(stop=True)

    def catch_up(self, reader: ServerConnection) -> None:
        """A reader has caught up, or has gone: those that it held up are read from again."""
        publishers, reader.stopped_publishers = reader.stopped_publishers, {}
        for publisher in publishers:
            if not any(publisher in other.stopped_publishers for other in self._clients.values()):
                publisher.hold_publisher(stop=False)

    def let_publish(self, publisher: ServerConnection) -> None:
        """A publisher has been held for long enough."""
        for reader in self._clients.values():
            reader.stopped_publishers.pop(publisher, None)
        publisher.hold_publisher(stop=False)
