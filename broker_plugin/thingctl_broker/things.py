"""The things that the broker knows, and whether they are there.

Pure: the caller brings the time (Unix seconds, for display).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingctl_protocol.messages import Announcement


class Thing(msgspec.Struct):
    """A device as the broker knows it."""

    name: str
    first_seen: float
    last_seen: float
    online: bool = False
    client_id: str = ""
    """The MQTT client id it last connected with."""
    announcement: Announcement | None = None
    """What its agent can do, if it said so."""


class ThingRegistry:
    """Things by name. With open enrolment a thing is known once it has connected."""

    def __init__(self) -> None:
        self._things: dict[str, Thing] = {}

    def __len__(self) -> int:
        return len(self._things)

    def __iter__(self) -> Iterator[Thing]:
        return iter(self._things.values())

    def get(self, name: str) -> Thing | None:
        """The thing with that name, if it is known."""
        return self._things.get(name)

    def know(self, name: str, at: float) -> Thing:
        """The thing with that name, made known if it was not."""
        thing = self._things.get(name)
        if thing is None:
            thing = self._things[name] = Thing(name, first_seen=at, last_seen=at)
        return thing

    def connected(self, name: str, client_id: str, at: float) -> None:
        """Note that the thing has connected."""
        thing = self.know(name, at)
        thing.online = True
        thing.client_id = client_id
        thing.last_seen = at

    def disconnected(self, name: str, at: float) -> None:
        """Note that the thing's last connection is gone."""
        thing = self._things.get(name)
        if thing is not None:
            thing.online = False
            thing.last_seen = at

    def announced(self, name: str, announcement: Announcement | None, at: float) -> None:
        """Note what the thing says it can do; None: it withdrew that."""
        thing = self.know(name, at)
        thing.announcement = announcement
        thing.last_seen = at
