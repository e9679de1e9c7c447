"""The port by which a session has its deliveries kept. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.mqtt.engine.delivery import MessageDelivery


class Recorder(Protocol):
    """What a session tells of. ``session``: its number."""

    def queued(self, session: int, delivery: MessageDelivery) -> None:
        """A message waits for the session from now on."""
        ...

    def changed(self, delivery: MessageDelivery) -> None:
        """A delivery has got its packet identifier, or is released."""
        ...

    def delivered(self, delivery: MessageDelivery) -> None:
        """A delivery has ended, one way or another."""
        ...

    def released(self, session: int, packet_id: int) -> None:
        """A QoS 2 message from the client is complete."""
        ...

    def then(self, kept: Callable[[], None]) -> None:
        """Call ``kept`` when everything so far is on the disk."""
        ...
