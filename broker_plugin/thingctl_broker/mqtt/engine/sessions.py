"""All sessions by client id, and in which order their clients went away. Pure.

Sessions of clients that are away are bounded: for each thing, and one that comes under ever new
client ids displaces only its own, and in all. The session that has been away for the longest ends.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingctl_broker.mqtt.engine.session import Session


class Sessions:
    """Sessions by client id. ``most``: of clients that are away; ``of_thing``: of one thing's."""

    def __init__(self, most: int, of_thing: int) -> None:
        self._most = most
        self._of_thing = of_thing
        self._all: dict[str, Session] = {}
        self._away: OrderedDict[str, Session] = OrderedDict()
        self._things: dict[str, dict[str, None]] = {}  # client ids that are away, in the order of leaving

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._all.values()))

    def get(self, client_id: str) -> Session | None:
        """The session of a client."""
        return self._all.get(client_id)

    @property
    def away(self) -> int:
        """How many clients are away."""
        return len(self._away)

    def add(self, session: Session) -> None:
        """A session has begun."""
        self._all[session.client_id] = session

    def leave(self, session: Session) -> Session | None:
        """A client with a session that stays has gone; return the session that must end for it, if any."""
        self.come_back(session)
        self._away[session.client_id] = session
        oldest = None
        if session.thing is not None:
            own = self._things.setdefault(session.thing, {})
            own[session.client_id] = None
            if len(own) > self._of_thing:
                oldest = self._all[next(iter(own))]
        if oldest is None and len(self._away) > self._most:
            oldest = next(iter(self._away.values()))
        return oldest

    def come_back(self, session: Session) -> None:
        """A client is connected again."""
        if self._away.pop(session.client_id, None) is None or session.thing is None:
            return
        own = self._things[session.thing]
        del own[session.client_id]
        if not own:
            del self._things[session.thing]

    def remove(self, session: Session) -> None:
        """A session has ended."""
        self.come_back(session)
        self._all.pop(session.client_id, None)
