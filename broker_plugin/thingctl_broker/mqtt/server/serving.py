"""Which of a thing's connections gets its requests. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingctl_broker.mqtt.server.client import ServerConnection


class ServingConnections:
    """The latest connection of each thing that has subscribed to its requests; the others stand by."""

    def __init__(self) -> None:
        self._serving: dict[str, ServerConnection] = {}
        self._standing_by: dict[str, dict[ServerConnection, None]] = {}  # in the order of serving

    def get(self, thing: str) -> ServerConnection | None:
        """The connection that gets the thing's requests."""
        return self._serving.get(thing)

    def add(self, thing: str, connection: ServerConnection) -> bool:
        """A connection has subscribed; return whether it gets the requests from now on and did not before."""
        serving = self._serving.get(thing)
        if serving is connection:
            return False
        others = self._standing_by.get(thing)
        if others is not None and connection in others:
            return False
        if serving is not None:
            self._standing_by.setdefault(thing, {})[serving] = None
        self._serving[thing] = connection
        return True

    def remove(self, thing: str, connection: ServerConnection) -> bool:
        """A connection takes no requests any more, but the latest of the others; return whether it did."""
        others = self._standing_by.get(thing)
        did = self._serving.get(thing) is connection
        if others is not None and connection in others:
            del others[connection]
        elif did:
            del self._serving[thing]
            if others:
                self._serving[thing] = others.popitem()[0]
        if not others:
            self._standing_by.pop(thing, None)
        return did
