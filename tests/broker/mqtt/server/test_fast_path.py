"""The shortcut and the way that every packet can take come to the same, whatever comes and however it is cut."""

from __future__ import annotations

import asyncio
from itertools import count

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from broker_support import HeldJournal
from support.pieces import KeptTransport, cut, damaged
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.mqtt.auth.authenticator import OpenAuthenticator
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Connect
from thingctl_broker.mqtt.server.connection import DeviceConnection
from thingctl_broker.mqtt.server.fast_path import ResponseFastPath
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.server import MqttServer
from thingctl_broker.testing import ManualClock
from thingctl_protocol.statuses import Status

THING, OTHER = "thermostat-001", "other"
COMMANDS = 4
"""Commands that wait for each of the two things' answers."""

PAYLOADS = (
    b'{"status":"SUCCEEDED"}',
    b'{"status":"SUCCEEDED","result":{"ok":true}}',
    b'{"status":"FAILED","statusReason":{"reasonCode":"X","reasonDescription":"y"}}',
    b'{"status":"IN_PROGRESS","progress":{"percent":50}}',
    b'{"status":"SENT"}',
    b"not json",
    b"",
    b'{"status":"SUCCEEDED","result":"%b"}' % (b"x" * 300),
    b'{"status":"SUCCEEDED","result":"%b"}' % (b"x" * 1500),
)
EXTREME_PAYLOAD = b'{"status":"SUCCEEDED","result":"%b"}' % (b"x" * 20_000)


class World:
    """A server with two things that have commands to answer; the same every time it is made."""

    def __init__(self, *, shortcut: bool, held: bool) -> None:
        self.journal = HeldJournal() if held else NullJournal()
        self.front = MqttServer(gatekeeper=OpenAuthenticator(), limits=MqttLimits(packet_bytes=1024))
        self.service = CommandService(clock=ManualClock(), link=self.front, journal=self.journal)
        entropy = count(1)
        self.service._entropy = lambda _: next(entropy)
        self.front.service, self.front.time = self.service, lambda: 0.0
        self.front.engine.totals.wake = lambda: None
        self.connection, self.transport = self._thing(THING)
        self._thing(OTHER)
        self.executions = [
            self.service.send(thing, "turnOn").execution_id
            for _ in range(COMMANDS)
            for thing in (THING, OTHER)
        ]
        self.commit()
        if not shortcut:
            self.connection._shortcut = None

    def _thing(self, name: str) -> tuple[DeviceConnection, KeptTransport]:
        connection, transport = DeviceConnection(self.front), KeptTransport()
        connection.connection_made(transport)
        connection.data_received(packets.encode_connect(Connect(name, True, 60, name, None, None)))
        wanted = [(self.front.topics.request_filter(name), 1), (self.front.topics.cancel_filter(name), 1)]
        connection.data_received(packets.encode_subscribe(1, wanted))
        return connection, transport

    def commit(self) -> None:
        if isinstance(self.journal, HeldJournal):
            self.journal.commit()

    def state(self) -> tuple[object, ...]:
        """All that could differ."""
        return (
            self.transport.written,
            self.transport.end,
            self.connection.is_closed(),
            dict(self.service.counters),
            [msgspec.structs.asdict(execution) for execution in self.service.table],
            self.connection._in_flight._ids,
            self.connection._scanner.buffered,
            self.front.engine.totals.received,
            getattr(self.journal, "recorded", None),
        )


async def play(
    pieces: list[bytes], *, shortcut: bool, held: bool, cancel: bool, commits: bool, slow: bool
) -> list[tuple[object, ...]]:
    """What is written after each piece that comes, and what the world is like at the end."""
    world = World(shortcut=shortcut, held=held)
    if cancel:
        world.service.cancel(world.executions[0])
        world.commit()
    if slow:  # whatever is written to it ends it
        world.connection.pause_writing()
        world.transport.waiting = 10**9
    seen = []
    for piece in pieces:
        world.connection.data_received(piece)
        world.front._flush()
        if commits:
            world.commit()
        seen.append((world.transport.written, world.transport.end))
    world.commit()
    seen.append(world.state())
    return seen


IDS = tuple(World(shortcut=True, held=False).executions)
"""The same in every world: the clock and the randomness are."""


def response(
    execution_id: str, payload: bytes, *, thing: str = THING, kind: str = "response", **fields
) -> bytes:
    topic = f"$emqx/commands/things/{thing}/executions/{execution_id}/{kind}".encode()
    return CODEC_3.encode_publish(topic, payload, **fields)


def lengthened(packet: bytes, *more: int) -> bytes:
    """The packet with a remaining length that takes more bytes than it must."""
    assert packet[1] < 0x80
    return bytes([packet[0], packet[1] | 0x80, *more]) + packet[2:]


LENGTHY = lengthened(response(IDS[2], PAYLOADS[0], qos=1, packet_id=9), 0)
LENGTHIER = lengthened(response(IDS[2], PAYLOADS[0], qos=1, packet_id=9), 0x80, 0)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """What a thing sends: mostly what is looked for, and its neighbours."""
    ids = st.sampled_from([*IDS, "0193", "é", "\ufffd"]) if draw(st.booleans()) else st.sampled_from(IDS[::2])
    qos = draw(st.sampled_from([1, 1, 1, 0, 2]))
    packet_id = draw(st.integers(1, 0xFFFF)) if qos else 0
    return draw(
        st.one_of(
            st.builds(CODEC_3.encode_puback, st.integers(0x7FFE, 0x8002 + COMMANDS) | st.integers(0, 3)),
            st.builds(
                response, ids, st.sampled_from(PAYLOADS), qos=st.just(qos), packet_id=st.just(packet_id)
            ),
            st.builds(response, ids, st.sampled_from(PAYLOADS), qos=st.just(1), packet_id=st.just(packet_id)),
            st.builds(
                response,
                ids,
                st.sampled_from(PAYLOADS),
                qos=st.just(1),
                packet_id=st.just(7),
                dup=st.booleans(),
                retain=st.booleans(),
                thing=st.sampled_from([THING, OTHER]),
                kind=st.sampled_from(["response", "responsf", "request", "response/"]),
            ),
            st.sampled_from(
                [
                    b"\xc0\x00",
                    b"\x40\x03\xff\xff\x00",
                    b"\x32\x00",
                    b"\x32\x02\x00\x00",
                    b"\x32\x80\x80\x01",
                    CODEC_3.encode_publish(b"news", b"x"),
                    response(IDS[0], EXTREME_PAYLOAD, qos=1, packet_id=9),
                    LENGTHY,
                    LENGTHIER,
                ]
            ),
        )
    )


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Messages behind each other; now and then a byte of them is another one, is missing, or is too many."""
    data = b"".join(draw(st.lists(messages(), min_size=1, max_size=6)))
    return damaged(draw, data, [0, 0, 1, 2])


fates = st.fixed_dictionaries(
    {"held": st.booleans(), "cancel": st.booleans(), "commits": st.booleans(), "slow": st.booleans()}
)
"""Of the journal, of the first command, whether each piece is committed, and of the client."""


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(streams(), st.none() | st.lists(st.integers(0, 5000), max_size=5), fates)
def test_both_ways_come_to_the_same(data, places, fate):
    pieces = list(cut(data, list(range(400)) if places is None else places))
    with capture_logs():
        through = asyncio.run(play(pieces, shortcut=True, **fate))
        around = asyncio.run(play(pieces, shortcut=False, **fate))
    for one, other in zip(through, around, strict=True):
        assert one == other
    event(f"the connection: {through[-1][1] or 'open'}")


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (CODEC_3.encode_puback(0x8000), True),
        (CODEC_3.encode_puback(1), False),
        (response(IDS[0], PAYLOADS[0], qos=1, packet_id=7), True),
        (response(IDS[0], PAYLOADS[7], qos=1, packet_id=7), True),
        (response(IDS[0], PAYLOADS[0], qos=1, packet_id=7)[:-1], False),
        (response(IDS[0], PAYLOADS[0], qos=1, packet_id=0), False),
        (response(IDS[0], PAYLOADS[0], qos=0), False),
        (response(IDS[0], PAYLOADS[0], qos=1, packet_id=7, dup=True), False),
        (response(IDS[0], PAYLOADS[0], qos=1, packet_id=7, thing=OTHER), False),
        (response(IDS[0], PAYLOADS[0], qos=1, packet_id=7, kind="responsf"), False),
        (response("0193", PAYLOADS[0], qos=1, packet_id=7), False),
        (response(IDS[0], PAYLOADS[8], qos=1, packet_id=7), False),
        (LENGTHY, True),
        (LENGTHIER, False),
        (b"\x40\x03\xff\xff\x00", False),
        (response(IDS[0], EXTREME_PAYLOAD, qos=1, packet_id=7), False),
    ],
)
def test_it_takes_what_comes_most_and_leaves_the_rest(data, taken):
    """Or else the property above would hold for a shortcut that takes nothing."""
    world = World(shortcut=True, held=False)
    shortcut = world.connection._shortcut
    assert isinstance(shortcut, ResponseFastPath)
    with capture_logs():
        assert shortcut.take(data) == (len(data) if taken else 0)


def test_it_stops_when_the_connection_ends_on_the_way():
    world = World(shortcut=True, held=False)
    world.connection.pause_writing()
    world.transport.waiting = 10**9
    with capture_logs():
        world.connection.data_received(
            b"".join(response(execution_id, PAYLOADS[0], qos=1, packet_id=7) for execution_id in IDS[::2])
        )
    assert world.transport.end == "aborted "
    assert [execution.status for execution in world.service.table][::2] == [
        Status.SUCCEEDED,
        *[Status.SENT] * 3,
    ]


def test_what_follows_it_is_taken_up_where_it_has_stopped():
    world = World(shortcut=True, held=False)
    answer = response(IDS[0], PAYLOADS[1], qos=1, packet_id=7)
    world.connection.data_received(CODEC_3.encode_puback(0x8000) + answer + b"\xc0\x00" + answer[:20])
    world.front._flush()
    assert world.transport.written.endswith(b"\x40\x02\x00\x07\xd0\x00")
    assert world.service.get(IDS[0]).status is Status.SUCCEEDED
    assert world.connection._scanner.buffered == 20
