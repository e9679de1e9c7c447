"""Which things are there, as far as a worker knows, and when it is worth asking again.

Pure: the caller brings the monotonic time. A cluster that nobody tells of presence says only
whether anybody subscribes to a request when it is published; what it said last is believed
for a while, so that commands to a thing that is away wait in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from thingctl_broker.things.registry import ThingRegistry

BELIEVED_SECONDS: Final = 5.0
"""How long a thing that nobody could be found for is taken to be away."""

RETRY_FIRST: Final = 1.0
RETRY_MAX: Final = 30.0
"""Seconds between two tries of a request; a quarter of its age between these."""

RETRY_KNOWN_AWAY: Final = 60.0
"""The same for a thing of which the cluster has said that it went: its return will be told."""

KEYS_MAX: Final = 100_000


class _Away(NamedTuple):
    until: float
    since: float | None
    """Since when the thing was online or offline, as told when nobody was found."""


class Reachability:
    """This worker's view of which devices are online."""

    def __init__(self, things: ThingRegistry) -> None:
        self._things = things
        self._away: dict[str, _Away] = {}
        """By thing; a mark stays when its time is over, until there is a sign of life."""
        self._there_since: dict[str, float | None] = {}
        """Things that have given one after they were said to have gone, and when that was."""

    def may_be_there(self, thing: str, now: float) -> bool:
        """Whether a request to the thing is worth publishing at once."""
        away = self._away.get(thing)
        if away is not None and now < away.until and not self._has_come(thing, away):
            return False
        return not self.is_known_away(thing)

    def is_known_away(self, thing: str) -> bool:
        """Whether the cluster, or the thing's will, has told that it went."""
        known = self._things.get(thing)
        return (
            known is not None
            and known.since is not None
            and not known.online
            and self._there_since.get(thing) != known.since
        )

    def nobody(self, thing: str, now: float) -> None:
        """A request found nobody who subscribes to it."""
        if len(self._away) >= KEYS_MAX:
            self._away.clear()  # a request too many to each, rather than a scan each time
        known = self._things.get(thing)
        self._there_since.pop(thing, None)
        self._away[thing] = _Away(now + BELIEVED_SECONDS, None if known is None else known.since)

    def arrived(self, thing: str) -> bool:
        """The thing has given a sign of life; return whether it was taken to be away."""
        known_away = self.is_known_away(thing)
        if known_away:
            # What was told of it is wrong by now, or came late; another word of it is believed again.
            if len(self._there_since) >= KEYS_MAX:
                self._there_since.clear()
            known = self._things.get(thing)
            self._there_since[thing] = None if known is None else known.since
        return self.taken(thing) or known_away

    def taken(self, thing: str) -> bool:
        """Somebody subscribes to the thing's requests; return whether nobody did before.

        Not quite a sign of life: the cluster takes a request for a session that it keeps, too.
        """
        return self._away.pop(thing, None) is not None

    def retry_in(self, thing: str, age: float) -> float:
        """Seconds until a request that is ``age`` seconds old is worth another try."""
        if self.is_known_away(thing):
            return RETRY_KNOWN_AWAY
        return min(RETRY_MAX, max(RETRY_FIRST, age / 4))

    def _has_come(self, thing: str, away: _Away) -> bool:
        """Whether it was told meanwhile, at whichever worker, that the thing has come."""
        known = self._things.get(thing)
        return known is not None and known.online and known.since != away.since
