"""Packet identifiers of what amqtt has in flight to a client that the front sends to as well.

The front counts down from 65535, amqtt up from 1. Should they meet, amqtt's is exchanged
for a free one on the way out and back again on the way in [MQTT-2.3.1-4].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container

IDENTIFIERS_HALF: Final = 0x7FFF
"""The front and amqtt share the packet identifiers of a connection: each may take as many."""


class PacketIdMap:
    """amqtt's identifiers, and those on the wire in their place."""

    __slots__ = ("_exchanged", "_taken", "_wire_ids")

    def __init__(self, taken: Container[int]) -> None:
        """``taken``: those that the front has in flight to the client."""
        self._taken = taken
        self._wire_ids: dict[int, int] = {}  # on the wire -> amqtt's
        self._exchanged: dict[int, int] = {}  # amqtt's -> on the wire, where they differ

    def __contains__(self, wire_id: object) -> bool:
        """Whether amqtt has that one on the wire."""
        return wire_id in self._wire_ids

    def sent(self, packet_id: int) -> int | None:
        """Return the identifier for what amqtt sends by ``packet_id``; None: too many are in flight."""
        if self._wire_ids.get(packet_id) == packet_id:
            return packet_id  # amqtt has given it up, and sends something else by it
        if len(self._wire_ids) >= IDENTIFIERS_HALF:
            return None
        if packet_id not in self._taken and packet_id not in self._wire_ids:
            self._wire_ids[packet_id] = packet_id
            return packet_id
        free = next(
            candidate
            for candidate in range(0xFFFF, 0, -1)
            if candidate not in self._taken and candidate not in self._wire_ids
        )
        self._wire_ids[free] = packet_id
        self._exchanged[packet_id] = free
        return free

    def released(self, packet_id: int) -> int:
        """Return the identifier for amqtt's PUBREL of what it sent by ``packet_id``."""
        return self._exchanged.get(packet_id, packet_id)

    def answered(self, wire_id: int, *, ends: bool) -> int | None:
        """Return amqtt's identifier of what the client answers; None: amqtt has sent nothing by that.

        ``ends``: nothing more follows, and the identifier is free.
        """
        packet_id = self._wire_ids.get(wire_id)
        if packet_id is not None and ends:
            del self._wire_ids[wire_id]
            self._exchanged.pop(packet_id, None)
        return packet_id
