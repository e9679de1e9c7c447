"""What the link leans on in gmqtt 0.8.0, public or not: an upgrade that changes it fails here, and loudly."""

from __future__ import annotations

import asyncio
import inspect
import socket
from importlib.metadata import version
from typing import ClassVar

import pytest
from gmqtt import Client
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.handler import MQTTConnectError, MqttPackageHandler
from gmqtt.mqtt.utils import IdGenerator

from support.cluster import CONNACK, PUBACK, SUBACK, hand_played, packet, publish
from support.waits import eventually


def test_the_version_is_the_one_that_was_read():
    assert version("gmqtt") == "0.8.0"


@pytest.fixture
async def cluster():
    async with hand_played() as cluster:
        yield cluster


def address(cluster):
    host, port = cluster.url.removeprefix("mqtt://").rsplit(":", 1)
    return host, int(port)


def quiet_client(**options):
    """A client that does not reconnect, by the attribute that the link sets, too."""
    client = Client("c", clean_session=False, **options)

    async def stay_away(*, delay=False):
        pass

    assert client._package_handler._reconnect_callback == client.reconnect
    client._package_handler._reconnect_callback = stay_away
    return client


async def connected(client, cluster, properties=b"", keepalive=60):
    connecting = asyncio.ensure_future(client.connect(*address(cluster), keepalive=keepalive))
    peer = await cluster.accept()
    await peer.welcome(properties=properties)
    await connecting
    return peer


async def test_handlers_are_looked_up_on_the_instance(cluster):
    client = quiet_client()
    seen = []
    client._package_handler._handle_publish_packet = lambda *args: seen.append(args)
    peer = await connected(client, cluster)
    peer.send(publish("a", b"x", 7))
    await eventually(lambda: seen)
    assert seen == [(0x32, b"\0\x01a\0\x07\0x")]
    await client.disconnect()


async def test_a_puback_frees_the_identifier_and_says_no_reason(cluster):
    client = quiet_client()
    peer = await connected(client, cluster)
    assert client._package_handler.id_generator.next_id() == 1
    assert client._package_handler.id_generator._used_ids == {1}
    handler = MqttPackageHandler._handle_puback_packet
    assert list(inspect.signature(handler).parameters) == ["self", "cmd", "packet"]
    peer.puback(1, 0x10)
    await eventually(lambda: not client._package_handler.id_generator._used_ids)
    await client.disconnect()


async def test_the_receive_maximum_is_taken_for_the_highest_identifier(cluster):
    client = quiet_client()
    peer = await connected(client, cluster, properties=b"\x21\0\x02")
    generator = client._package_handler.id_generator
    assert generator._max == 2
    generator.next_id()
    with pytest.raises(OverflowError):
        generator.next_id()
    generator._max = 0xFFFF  # as the link does
    assert generator.next_id() == 2
    assert client._connection._protocol.id_generator is generator
    await client.disconnect()
    peer.drop()


def test_identifiers_go_round_below_the_maximum():
    generator = IdGenerator(max=4)
    taken = [generator.next_id() for _ in range(3)]
    generator.free_id(2)
    assert (taken, generator.next_id()) == ([1, 2, 3], 2)


async def test_what_connack_says_is_in_an_attribute_and_the_callback_gets_ours_over_it(cluster):
    client = quiet_client(receive_maximum=5)
    told = []
    client.on_connect = lambda *args: told.append(args[1:])
    peer = await connected(client, cluster, properties=b"\x21\0\x14\x2a\x00")
    assert client._package_handler._connack_properties == {
        "receive_maximum": [20],
        "shared_subscription_available": [0],
    }
    (flags, code, properties) = told[0]
    assert (flags, code, properties["receive_maximum"]) == (0, 0, 5)
    await client.disconnect()
    peer.drop()


async def test_a_refusal_is_raised_with_its_code(cluster):
    client = quiet_client()
    connecting = asyncio.ensure_future(client.connect(*address(cluster)))
    peer = await cluster.accept()
    await peer.receive()
    peer.send(packet(CONNACK, b"\0\x87\0"))
    with pytest.raises(MQTTConnectError) as raised:
        await connecting
    assert raised.value._code == 0x87
    client._connection._transport.abort()
    client._connection._keep_connection_callback.cancel()


async def test_a_broker_of_mqtt_3_makes_it_step_down_and_wait_for_ever(cluster):
    client = quiet_client()
    connecting = asyncio.ensure_future(client.connect(*address(cluster)))
    peer = await cluster.accept()
    await peer.receive()
    assert client._connection_state.protocol_version == MQTTv50
    peer.send(packet(CONNACK, b"\0\x01"))
    await eventually(lambda: client._connection_state.protocol_version == MQTTv311)
    assert not connecting.done()
    connecting.cancel()
    client._connection._transport.abort()
    client._connection._keep_connection_callback.cancel()


async def test_the_end_of_a_connection_is_told_with_what_the_cluster_said(cluster):
    client = quiet_client()
    told = []
    client.on_disconnect = lambda _, packet: told.append(packet)
    peer = await connected(client, cluster)
    peer.send(packet(14, b"\x8e\0"))
    await eventually(lambda: told)
    peer.drop()
    await eventually(lambda: len(told) == 2)
    assert told == [b"\x8e\0", b""]
    client._connection._keep_connection_callback.cancel()


async def test_a_store_of_the_callers_own_gets_what_is_published(cluster):
    class Store:
        is_empty = True
        pushed: ClassVar[list[int]] = []

        def push_message(self, mid, raw):
            self.pushed.append(mid)

        def remove_message_by_mid(self, mid):
            self.pushed.remove(mid)

        async def wait_empty(self):
            pass

        def clear(self):
            pass

        def get_all(self):
            return []

    client = quiet_client(persistent_storage=Store())
    peer = await connected(client, cluster)
    client.publish("a", b"x", qos=1)
    assert Store.pushed == [1]
    peer.puback(1)
    await eventually(lambda: not Store.pushed)
    await client.disconnect()
    peer.drop()


async def test_subscriptions_are_answered_by_packet_identifier(cluster):
    client = quiet_client()
    answers = []
    client.on_subscribe = lambda _, mid, codes, properties: answers.append((mid, codes))
    client.on_unsubscribe = lambda _, mid, codes: answers.append((mid, codes))
    peer = await connected(client, cluster)
    first = client.subscribe([_subscription("a"), _subscription("b")])
    asked = await peer.receive()
    assert asked.packet_id == first
    assert asked.body[2:] == b"\0\0\x01a\x01\0\x01b\x01"  # QoS 1, retain as published 0, retain handling 0
    peer.send(packet(SUBACK, first.to_bytes(2) + b"\0\x01\x87"))
    await eventually(lambda: answers)
    second = client.unsubscribe(["größe".encode()])
    assert (await peer.receive()).body[3:] == b"\0\x07" + "größe".encode()
    peer.send(packet(11, second.to_bytes(2) + b"\0\0"))
    await eventually(lambda: len(answers) == 2)
    assert answers == [(first, (1, 0x87)), (second, (0,))]
    await client.disconnect()
    peer.drop()


def _subscription(topic_filter):
    from gmqtt import Subscription

    return Subscription(topic_filter, qos=1)


async def test_a_clients_goodbye_can_end_its_session(cluster):
    client = quiet_client(session_expiry_interval=60)
    peer = await connected(client, cluster)
    await client.disconnect(session_expiry_interval=0)
    assert (await peer.receive()).body == b"\0\x05\x11\0\0\0\0"


async def test_nagle_is_off_and_the_last_byte_has_its_time(cluster):
    client = quiet_client()
    peer = await connected(client, cluster)
    transport = client._connection._transport
    assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    before = client._connection._last_data_in
    peer.puback(9)
    await eventually(lambda: client._connection._last_data_in > before)
    assert client._connection._keep_connection_callback is not None
    client._connection.send_package(b"\x40\x02\0\x09")
    assert (await peer.expect(PUBACK)).packet_id == 9
    await client.disconnect()


async def test_it_pings_when_the_keep_alive_has_passed_in_silence(cluster):
    client = quiet_client()
    peer = await connected(client, cluster, keepalive=1)
    assert (await peer.receive()).first == 0xC0
    await client.disconnect()
