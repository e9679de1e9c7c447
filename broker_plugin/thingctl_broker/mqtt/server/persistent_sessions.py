"""Which clients with a kept session are away, whose they are, and what they had subscribed to.

Pure. Bounded for each thing, so that one that comes under ever new client ids pushes out nobody
but itself, and for all together; the session offline the longest is discarded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from thingctl_broker.mqtt.server.subscriptions import CommandSubscriptions


class _PersistentSession(NamedTuple):
    thing: str | None
    subscriptions: CommandSubscriptions


class PersistentSessions:
    """Sessions by client id. ``most``: of all; ``of_thing``: of one thing."""

    def __init__(self, most: int, of_thing: int) -> None:
        self._most = most
        self._of_thing = of_thing
        self._kept: OrderedDict[str, _PersistentSession] = OrderedDict()
        self._things: dict[str, dict[str, None]] = {}  # client ids, in the order of leaving

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._kept

    def keep(self, client_id: str, thing: str | None, subscriptions: CommandSubscriptions) -> str | None:
        """Note that a client has gone; return the one whose session has to go for it, if any.

        ``thing``: None for a client that is no thing; only ``most`` bounds these.
        """
        self.take(client_id)
        self._kept[client_id] = _PersistentSession(thing, subscriptions)
        oldest = None
        if thing is not None:
            own = self._things.setdefault(thing, {})
            own[client_id] = None
            if len(own) > self._of_thing:
                oldest = next(iter(own))
        if oldest is None and len(self._kept) > self._most:
            oldest = next(iter(self._kept))
        if oldest is not None:
            self.take(oldest)
        return oldest

    def take(self, client_id: str) -> _PersistentSession | None:
        """The client is back, or is forgotten; return what was kept for it."""
        kept = self._kept.pop(client_id, None)
        if kept is not None and kept.thing is not None:
            own = self._things[kept.thing]
            del own[client_id]
            if not own:
                del self._things[kept.thing]
        return kept

    def forget(self, thing: str) -> None:
        """Forget all of a thing."""
        for client_id in tuple(self._things.get(thing, ())):
            self.take(client_id)
