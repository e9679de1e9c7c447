"""What the load of ordinary messages is made of: a publisher's flow of messages, and a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import mqtt_wire

if TYPE_CHECKING:
    import socket

PAYLOAD: Final = b"x" * 100

PUBACK: Final = b"\x40\x02"

IDS: Final = 65535
"""How many packet ids there are; the tables hold them twice, and no window reaches beyond."""

HIGH: Final = bytes([number >> 8 for number in range(1, IDS + 1)]) * 2
LOW: Final = bytes([number & 255 for number in range(1, IDS + 1)]) * 2


class Flow:
    """One publisher, its topic, and how far its messages have come."""

    def __init__(self, topic: str, qos: int, copies: int) -> None:
        self.topic = topic
        self.qos = qos
        self.copies = copies
        self.window = self.most = self.sent = self.delivered = self.acknowledged = 0
        self.publisher: Client | None = None
        self.packet = mqtt_wire.publish(topic, PAYLOAD, 1 if qos else None)
        self.size = len(self.packet)
        self.at = self.size - len(PAYLOAD) - (2 if qos else 0)
        """Where the packet id stands, if there is one."""
        self.head = self.packet[: self.at]

    @property
    def ended(self) -> int:
        """How many messages are no longer in flight."""
        if not self.copies:
            return self.acknowledged
        arrived = self.delivered // self.copies
        return min(arrived, self.acknowledged) if self.qos else arrived

    def due(self) -> bytes | bytearray:
        """The messages that fill the window again."""
        count = min(self.window - self.sent + self.ended, self.most - self.sent)
        if count <= 0:
            return b""
        first = self.sent % IDS
        self.sent += count
        out = bytearray(self.packet * count)
        if self.qos:
            out[self.at :: self.size] = HIGH[first : first + count]
            out[self.at + 1 :: self.size] = LOW[first : first + count]
        return out

    def take(self, data: bytes) -> bytes | bytearray | None:
        """Count messages like ours, or PUBACKs; return what acknowledges them.

        None: there are others among them, and nothing was counted. What a broker hands on differs from
        what it took in the packet id alone.
        """
        if data[:2] == PUBACK:
            return self.take_acknowledgements(data)
        count, behind = divmod(len(data), self.size)
        if behind or data.count(self.head) != count:
            return None
        self.delivered += count
        if not self.qos:
            return b""
        out = bytearray(b"\x40\x02\x00\x00" * count)
        out[2::4], out[3::4] = data[self.at :: self.size], data[self.at + 1 :: self.size]
        return out

    def take_acknowledgements(self, data: bytes) -> bytes | None:
        """Count PUBACKs."""
        count, behind = divmod(len(data), 4)
        if behind or data[0::4].count(PUBACK[0]) != count or data[1::4].count(PUBACK[1]) != count:
            return None
        self.acknowledged += count
        return b""


class Client:
    """One connection."""

    __slots__ = ("filters", "flow", "granted", "name", "qos", "rest", "sock")

    def __init__(self, name: str, filters: list[str], qos: int, flow: Flow | None = None) -> None:
        self.name = name
        self.filters = filters
        self.qos = qos
        self.flow = flow
        self.granted = 0
        self.rest = b""
        self.sock: socket.socket | None = None
