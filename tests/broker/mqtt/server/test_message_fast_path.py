"""The shortcut of ordinary messages and the way that every packet can take come to the same."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

import mqtt_wire
from support.pieces import KeptTransport, cut, damaged
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.mqtt.auth.authenticator import OpenAuthenticator
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.message_fast_path import MessageFastPath, MessageFastPath5
from thingctl_broker.mqtt.server.server import MqttServer
from thingctl_broker.testing import ManualClock

KNOWN = b"site/1"
"""A topic that the client has published before."""


class Listener:
    """Stands where a host does: keeps what it hears of."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def client_connected(self, *about: object) -> None:
        self.heard.append(("connected", *about))

    def client_disconnected(self, *about: object) -> None:
        self.heard.append(("disconnected", *about))

    def subscribed(self, *about: object) -> None:
        self.heard.append(("subscribed", *about))

    def unsubscribed(self, *about: object) -> None:
        self.heard.append(("unsubscribed", *about))

    def message_received(self, client_id, message) -> None:
        self.heard.append((client_id, message.topic, message.payload, message.qos, message.retain))


class World:
    """A client that publishes and subscribes, and one for each QoS that subscribes."""

    def __init__(self, *, shortcut: bool, version: int = 4) -> None:
        self.version = version
        self.server = MqttServer(gatekeeper=OpenAuthenticator(), limits=MqttLimits(packet_bytes=1024))
        self.server.service = CommandService(clock=ManualClock(), link=self.server, journal=NullJournal())
        self.server.time = lambda: 0.0
        self.server.engine.totals.wake = lambda: None
        self.listener = Listener()
        self.server.events.append(self.listener)
        self.clients = [self._client(f"client-{qos}", qos) for qos in (0, 1, 2)]
        self.connection, self.transport = self.clients[1]
        self.connection.data_received(encode(version)(KNOWN, b"first"))
        if not shortcut:
            self.connection._messages = None

    def _client(self, name: str, qos: int) -> tuple[DeviceConnection, KeptTransport]:
        connection, transport = DeviceConnection(self.server), KeptTransport()
        connection.connection_made(transport)
        connection.data_received(mqtt_wire.connect(name, username=name, version=self.version))
        connection.data_received(mqtt_wire.subscribe(1, "site/#", qos, version=self.version))
        return connection, transport

    def state(self) -> tuple[object, ...]:
        """All that could differ."""
        totals = self.server.engine.totals
        session = self.server.engine.sessions.get("client-1")
        return (
            [(transport.written, transport.end) for _, transport in self.clients],
            self.listener.heard,
            dict(self.server.service.counters),
            (totals.received, totals.sent, totals.waiting_bytes, Counter(totals.counters)),
            [message.payload for message in self.server.retained("#")],
            self.connection._scanner.buffered,
            None if session is None else (list(session.in_flight), len(session.queue), session.queued_bytes),
        )


def encode(version: int):
    return CODEC_5.encode_publish if version == 5 else CODEC_3.encode_publish


def play(pieces: list[bytes], *, shortcut: bool, version: int) -> list[object]:
    world = World(shortcut=shortcut, version=version)
    seen: list[object] = []
    for piece in pieces:
        world.connection.data_received(piece)
        world.server._flush()
        seen.append([transport.written for _, transport in world.clients])
    seen.append(world.state())
    return seen


def lengthened(packet: bytes, *more: int) -> bytes:
    """The packet with a remaining length that takes more bytes than it must."""
    assert packet[1] < 0x80
    return bytes([packet[0], packet[1] | 0x80, *more]) + packet[2:]


LENGTHY = lengthened(CODEC_3.encode_publish(KNOWN, b"x"), 0)
WITH_PROPERTIES = (
    CODEC_5.encode_publish(KNOWN, b"x", properties=b"\x01\x01"),
    CODEC_5.encode_publish(KNOWN, b"x", topic_alias=1),
    CODEC_5.encode_publish(b"", b"x", topic_alias=1),
    CODEC_5.encode_publish(KNOWN, b"x", qos=1, packet_id=5, message_expiry=60),
    CODEC_5.encode_publish(KNOWN, b"x", qos=1, packet_id=5, properties=b"\x08\x00\x01a"),
    CODEC_5.encode_puback(1, 0x10),
    CODEC_5.encode_puback(1, 0x80, "full"),
)
LONG = CODEC_3.encode_publish(KNOWN, b"x" * 500, qos=1, packet_id=7)


@st.composite
def messages(draw: st.DrawFn, version: int) -> bytes:
    """What a client sends: mostly what is looked for, and its neighbours."""
    encode_publish = encode(version)
    if version == 5 and draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(WITH_PROPERTIES))
    qos = draw(st.sampled_from([0, 0, 1, 1, 2]))
    publish = st.builds(
        encode_publish,
        st.sampled_from([KNOWN, KNOWN, b"site/2", b"other", b"$SYS/x", b"site/+"]),
        st.sampled_from([b"", b"x", b"x" * 130, b"x" * 500, b"x" * 2000]),
        qos=st.just(qos),
        packet_id=st.integers(1, 0xFFFF) if qos else st.just(0),
        dup=st.just(False) if not qos else st.booleans(),
        retain=st.sampled_from([False, False, True]),
    )
    plain = st.builds(encode_publish, st.just(KNOWN), st.sampled_from([b"", b"y", b"y" * 200]))
    sure = st.builds(
        encode_publish, st.just(KNOWN), st.just(b"z"), qos=st.just(1), packet_id=st.integers(0, 300)
    )
    others = st.sampled_from(
        [b"\xc0\x00", b"\x30\x00", b"\x32\x02\x00\x00", b"\x32\x80\x80\x01", b"\x40\x03\x00\x01\x00", LENGTHY]
    )
    pubacks = st.builds(CODEC_3.encode_puback, st.integers(1, 8) | st.just(0x8000))
    return draw(st.one_of(plain, sure, pubacks, publish, others))


@st.composite
def streams(draw: st.DrawFn, version: int) -> bytes:
    """Messages behind each other; now and then a byte of them is another one, is missing, or is too many."""
    data = b"".join(draw(st.lists(messages(version), min_size=1, max_size=8)))
    return damaged(draw, data, [0, 0, 0, 1, 2])


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("version", [4, 5])
@given(st.data(), st.none() | st.lists(st.integers(0, 5000), max_size=5))
def test_both_ways_come_to_the_same(version, draws, places):
    data = draws.draw(streams(version))
    pieces = list(cut(data, list(range(400)) if places is None else places))
    with capture_logs():
        through, around = (play(pieces, shortcut=shortcut, version=version) for shortcut in (True, False))
    for one, other in zip(through, around, strict=True):
        assert one == other
    event("ended" if through[-1][0][1][1] else "open")


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (CODEC_3.encode_publish(KNOWN, b"x"), True),
        (CODEC_3.encode_publish(KNOWN, b""), True),
        (CODEC_3.encode_publish(KNOWN, b"x" * 500), True),
        (CODEC_3.encode_publish(KNOWN, b"x", qos=1, packet_id=7), True),
        (LONG, True),
        (CODEC_3.encode_puback(1), True),  # of the client's own first message
        (CODEC_3.encode_puback(2), False),
        (CODEC_3.encode_puback(0x8001), False),
        (LONG[:-1], False),
        (LENGTHY, False),
        (CODEC_3.encode_publish(KNOWN, b"x", qos=1, packet_id=0), False),
        (CODEC_3.encode_publish(KNOWN, b"x", qos=1, packet_id=7, dup=True), False),
        (CODEC_3.encode_publish(KNOWN, b"x", retain=True), False),
        (CODEC_3.encode_publish(KNOWN, b"x", qos=2, packet_id=7), False),
        (CODEC_3.encode_publish(b"site/2", b"x"), False),
        (CODEC_3.encode_publish(KNOWN, b"x" * 2000), False),
        (b"\x30\x04\x00\x06si", False),
        (b"\x30\x04\x00\x06site/1", False),
        (b"\xc0\x00\xc0\x00", False),
    ],
)
def test_it_takes_what_comes_most_and_leaves_the_rest(data, taken):
    """Or else the property above would hold for a shortcut that takes nothing."""
    world = World(shortcut=True)
    world.connection.data_received(CODEC_3.encode_publish(KNOWN, b"first", qos=1, packet_id=9))
    shortcut = world.connection._messages
    assert isinstance(shortcut, MessageFastPath)
    assert shortcut.take(b"\0\0" + data, 2) == (2 + len(data) if taken else 2)


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (CODEC_5.encode_publish(KNOWN, b"x"), True),
        (CODEC_5.encode_publish(KNOWN, b""), True),
        (CODEC_5.encode_publish(KNOWN, b"x" * 500, qos=1, packet_id=7), True),
        (CODEC_5.encode_publish(KNOWN, b"x", qos=1, packet_id=0), False),
        *((packet, False) for packet in WITH_PROPERTIES),
        (CODEC_3.encode_publish(KNOWN, b""), False),
        (CODEC_3.encode_publish(KNOWN, b"", qos=1, packet_id=7), False),
    ],
)
def test_it_takes_what_has_no_properties(data, taken):
    world = World(shortcut=True, version=5)
    shortcut = world.connection._messages
    assert isinstance(shortcut, MessageFastPath5)
    assert shortcut.take(data, 0) == (len(data) if taken else 0)


@pytest.mark.conforms("MQTT5-3.3.4-7")
def test_a_client_of_mqtt_5_is_held_to_its_receive_maximum():
    """What is not acknowledged yet counts, whichever way it came."""
    world = World(shortcut=True, version=5)
    most = world.server.limits.qos2_held
    receiver = world.connection._receiver
    receiver._unanswered = dict.fromkeys(range(1, most))
    message = CODEC_5.encode_publish(KNOWN, b"x", qos=1, packet_id=most)
    assert world.connection._messages.take(message, 0) == len(message)
    receiver._unanswered[most] = None
    message = CODEC_5.encode_publish(KNOWN, b"x", qos=1, packet_id=most + 1)
    assert world.connection._messages.take(message, 0) == 0
    with capture_logs():
        world.connection.data_received(message)
    assert world.connection.is_closed()


def test_a_message_that_ends_in_the_next_piece_is_taken_with_those_behind_it(monkeypatch):
    world = World(shortcut=True)
    data = CODEC_3.encode_publish(KNOWN, b"x") * 3
    world.connection.data_received(data[:5])
    monkeypatch.setattr(DeviceConnection, "_take", pytest.fail)  # the other way
    world.connection.data_received(data[5:])
    assert [heard[2] for heard in world.listener.heard[-3:]] == [b"x", b"x", b"x"]
