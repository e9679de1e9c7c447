"""A shortcut for the two packets that every execution brings: its PUBACK and its response.

They are most of what comes, and each has its bytes in the same places every time. So they
are recognised there, and go to the service without a frame, a topic and a publish being
made of them, which would be half of what they cost. Nothing is decided here: whatever is
not wholly there, or not exactly what is looked for, is left where it is, for the way that
every packet can take (``connection``). A property test holds that both come to the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.packets import PacketType

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.mqtt.server.client import ServerConnection
    from thingctl_broker.mqtt.server.inflight import InFlight
    from thingctl_protocol.topics import ThingTopics

_PUBACK: Final = PacketType.PUBACK << 4
_PUBLISH_QOS_1: Final = PacketType.PUBLISH << 4 | 1 << 1
_ACKNOWLEDGED: Final = b"\x40\x02"
_LEAST: Final = 4
"""Bytes of a PUBACK, the shorter of the two."""


class ResponseFastPath:
    """The shortcut of one thing's connection."""

    __slots__ = ("_in_flight", "_limit", "_response_end", "_response_start", "_service", "_thing", "_wire")

    def __init__(
        self,
        wire: ServerConnection,
        thing: str,
        topics: ThingTopics,
        in_flight: InFlight,
        service: CommandService,
    ) -> None:
        self._wire = wire
        self._thing = thing
        self._response_start, self._response_end = topics.response_start, topics.response_end
        self._in_flight = in_flight
        self._service = service
        self._limit = wire.limits.packet_bytes

    def take(self, data: bytes) -> int:
        """Handle the packets that ``data`` begins with, as long as they are such; return their bytes.

        ``data`` begins with a packet. The connection may have ended when this returns.
        """
        at, end, is_closed = 0, len(data), self._wire.is_closed
        packets = 0
        while end - at >= _LEAST and not is_closed():
            first = data[at]
            if first == _PUBLISH_QOS_1:
                stop = self._respond(data, at, end)
                if not stop:
                    break
                at = stop
            elif first == _PUBACK and data[at + 1] == 2:
                execution_id = self._in_flight.acknowledged(data[at + 2] << 8 | data[at + 3])
                if execution_id is None:
                    break
                if execution_id:  # else it is that of a cancel
                    self._service.acknowledged(self._thing, execution_id)
                at += 4
            else:
                break
            packets += 1
        self._wire.server.packets_received += packets
        return at

    def _respond(self, data: bytes, at: int, end: int) -> int:
        """Take in the response at ``at``; return where it ends. 0: it is none, and nothing has happened."""
        length, topic = data[at + 1], at + 4
        if length >= 0x80:
            more = data[at + 2]
            if more >= 0x80:
                return 0
            length, topic = length & 0x7F | more << 7, at + 5
        stop = topic + length - 2
        if stop > end or stop - at > self._limit or length < 4:
            return 0
        behind = topic + (data[topic - 2] << 8 | data[topic - 1])
        id_start, id_stop = topic + len(self._response_start), behind - len(self._response_end)
        if (
            behind + 2 > stop
            or id_stop <= id_start
            or not data.startswith(self._response_start, topic)
            or not data.startswith(self._response_end, id_stop)
        ):
            return 0
        packet_id = data[behind : behind + 2]
        # No execution has an id that is not ASCII, so it does not matter how such bytes are read.
        execution_id = data[id_start:id_stop].decode("latin-1")
        if packet_id == b"\0\0" or self._service.table.get(execution_id) is None:
            return 0
        kept: Callable[[], None] = partial(self._wire.answer, _ACKNOWLEDGED + packet_id)
        self._service.respond(self._thing, execution_id, data[behind + 2 : stop], kept)
        return stop
