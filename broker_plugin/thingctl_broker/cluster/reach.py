"""Which things are there, as far as a worker knows, and when it is worth asking again.

Pure: the caller brings the monotonic time. A cluster that nobody tells of presence says only
whether anybody subscribes to a request when it is published; what it said last is believed
for a while, so that commands to a thing that is away wait in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from thingctl_broker.things import ThingRegistry

BELIEVED_SECONDS: Final = 5.0
"""How long a thing that nobody could be found for is taken to be away."""

RETRY_FIRST: Final = 1.0
RETRY_MAX: Final = 30.0
"""Seconds between two tries of a request; a quarter of its age between these."""

RETRY_KNOWN_AWAY: Final = 60.0
"""The same for a thing of which the cluster has said that it went: its return will be told."""

KEYS_MAX: Final = 100_000


class Reach:
    """What one worker knows of who is there."""

    def __init__(self, things: ThingRegistry) -> None:
        self._things = things
        self._away: dict[str, float] = {}

    def may_be_there(self, thing: str, now: float) -> bool:
        """Whether a request to the thing is worth publishing at once."""
        until = self._away.get(thing)
        if until is not None:
            if now < until:
                return False
            del self._away[thing]
        return not self.is_known_away(thing)

    def is_known_away(self, thing: str) -> bool:
        """Whether the cluster, or the thing's will, has told that it went."""
        known = self._things.get(thing)
        return known is not None and known.since is not None and not known.online

    def nobody(self, thing: str, now: float) -> None:
        """A request found nobody who subscribes to it."""
        if len(self._away) >= KEYS_MAX:
            self._away.clear()  # a request too many to each, rather than a scan each time
        self._away[thing] = now + BELIEVED_SECONDS

    def arrived(self, thing: str) -> bool:
        """The thing has given a sign of life; return whether it was taken to be away."""
        return self._away.pop(thing, None) is not None

    def retry_in(self, thing: str, age: float) -> float:
        """Seconds until a request that is ``age`` seconds old is worth another try."""
        if self.is_known_away(thing):
            return RETRY_KNOWN_AWAY
        return min(RETRY_MAX, max(RETRY_FIRST, age / 4))
