"""A client of MQTT 3.1.1 on a blocking socket, for tests of brokers that are processes."""

from __future__ import annotations

import socket
import struct

from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.frames import Frame, FrameScanner
from thingctl_broker.mqtt.protocol.packets import (
    Connect,
    PacketType,
    Publish,
    Will,
    encode_connect,
    encode_subscribe,
)

DEADLINE = 10
_opened: list[socket.socket] = []


class Peer:
    """Sends and receives packet by packet."""

    def __init__(
        self, address: tuple[str, int], client_id: str, *, clean: bool = True, will: Will | None = None
    ) -> None:
        self.socket = socket.create_connection(address, timeout=DEADLINE)
        _opened.append(self.socket)
        self.scanner = FrameScanner(1 << 24)
        self.frames: list[Frame] = []
        self.send(encode_connect(Connect(client_id, clean, 60, None, None, will)))
        self.present = bool(self.next(PacketType.CONNACK).packet[2])

    def send(self, *packets: bytes) -> None:
        self.socket.sendall(b"".join(packets))

    def receive(self) -> Frame:
        while not self.frames:
            data = self.socket.recv(65536)
            assert data, "the broker has closed the connection"
            self.frames += self.scanner.feed(data)
        return self.frames.pop(0)

    def next(self, kind: PacketType) -> Frame:
        """The next packet, which is of that kind."""
        frame = self.receive()
        assert frame.first >> 4 == kind, f"{PacketType(frame.first >> 4).name} instead of {kind.name}"
        return frame

    def messages(self, count: int) -> list[Publish]:
        return [self.parse(self.next(PacketType.PUBLISH)) for _ in range(count)]

    @staticmethod
    def parse(frame: Frame) -> Publish:
        """A PUBLISH in parts."""
        return CODEC_3.parse_publish(frame)

    def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        """Subscribe; return what is granted."""
        self.send(encode_subscribe(1, [(topic_filter, qos) for topic_filter in filters]))
        frame = self.next(PacketType.SUBACK)
        return list(frame.packet[frame.start + 2 :])

    def publish(self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False) -> None:
        self.send(CODEC_3.encode_publish(topic.encode(), payload, qos=qos, packet_id=9, retain=retain))
        if qos == 2:
            self.next(PacketType.PUBREC)
            self.send(CODEC_3.encode_pubrel(9))
        if qos:
            self.next(PacketType.PUBACK if qos == 1 else PacketType.PUBCOMP)

    def ping(self) -> None:
        """Prove that everything sent before has been taken in, and that nothing comes before the answer."""
        self.send(b"\xc0\x00")
        self.next(PacketType.PINGRESP)

    def acknowledge(self, message: Publish) -> None:
        """Send the PUBACK of a message."""
        self.send(CODEC_3.encode_puback(message.packet_id))

    def complete(self, message: Publish) -> None:
        """Receive a message of QoS 2: PUBREC, PUBREL, PUBCOMP."""
        self.send(CODEC_3.encode_pubrec(message.packet_id))
        self.next(PacketType.PUBREL)
        self.send(CODEC_3.encode_pubcomp(message.packet_id))

    def leave(self) -> None:
        self.send(b"\xe0\x00")
        self.socket.close()

    def reset(self) -> None:
        """Lose the link: RST, no FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    @staticmethod
    def close_all() -> None:
        """Close what the test has left open."""
        while _opened:
            _opened.pop().close()
