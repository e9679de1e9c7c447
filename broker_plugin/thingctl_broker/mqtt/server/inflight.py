"""Packet identifiers of what one client was sent at QoS 1 and has not acknowledged."""

from __future__ import annotations

from typing import Final

from thingctl_broker.mqtt.engine.outbox import LAST_PACKET_ID

CANCEL: Final = ""
"""Stands for a cancel, whose acknowledgement tells nothing."""

_FIRST: Final = LAST_PACKET_ID + 1

_LAST: Final = 0xFFFF

IDENTIFIERS: Final = _LAST - LAST_PACKET_ID
"""How many there are for requests and cancels."""


class InFlight:
    """The command path's half of the identifiers; the other half is the engine's [MQTT-2.3.1-4]."""

    __slots__ = ("_ids", "_last")

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._last = _LAST

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, packet_id: object) -> bool:
        return packet_id in self._ids

    def add(self, execution_id: str) -> int:
        """Return the packet identifier for a request."""
        packet_id = self._last + 1 if self._last < _LAST else _FIRST
        while packet_id in self._ids:
            packet_id = packet_id + 1 if packet_id < _LAST else _FIRST
        self._last = packet_id
        self._ids[packet_id] = execution_id
        return packet_id

    def get(self, packet_id: int) -> str | None:
        """The execution whose request has that identifier; None: none has."""
        return self._ids.get(packet_id)

    def acknowledged(self, packet_id: int) -> str | None:
        """The execution whose request has that identifier, which is free again; None: none has."""
        return self._ids.pop(packet_id, None)
