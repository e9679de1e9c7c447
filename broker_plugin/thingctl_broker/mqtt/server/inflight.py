"""Packet identifiers of what one client was sent at QoS 1 and has not acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

CANCEL: Final = ""
"""Stands for a cancel, whose acknowledgement tells nobody anything."""


class InFlight:
    """Counts down from 65535, as amqtt counts up from 1 on the same connection [MQTT-2.3.1-4]."""

    __slots__ = ("_ids", "_last")

    def __init__(self) -> None:
        self._ids: dict[int, str] = {}
        self._last = 0x10000

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, packet_id: object) -> bool:
        return packet_id in self._ids

    def add(self, execution_id: str, is_taken: Callable[[int], bool] | None) -> int:
        """Return the packet identifier for a request. ``is_taken``: whether amqtt has it in flight."""
        packet_id = self._last - 1 or 0xFFFF
        while packet_id in self._ids or (is_taken is not None and is_taken(packet_id)):
            packet_id = packet_id - 1 or 0xFFFF
        self._last = packet_id
        self._ids[packet_id] = execution_id
        return packet_id

    def acknowledged(self, packet_id: int) -> str | None:
        """The execution whose request has that identifier, which is free again; None: none has."""
        return self._ids.pop(packet_id, None)
