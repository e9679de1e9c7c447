"""The front, over real sockets, with a real amqtt behind it."""

from __future__ import annotations

import asyncio
import gc

import pytest

from support.brokers import Running, front_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt import packets
from thingctl_broker.mqtt.connection import Connection
from thingctl_broker.mqtt.limits import FrontLimits
from thingctl_broker.mqtt.packets import PacketType, Will
from thingctl_protocol.statuses import Delivery, Status

REQUESTS = "$emqx/commands/things/{}/executions/+/request"


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


async def thing(running: Running, name: str = "lamp", **options) -> RawClient:
    client = await RawClient.connected(running.address, name, **options)
    assert await client.subscribe(REQUESTS.format(name)) == [1]
    return client


def answer(
    running: Running,
    execution,
    *,
    qos: int = 1,
    packet_id: int = 7,
    payload: bytes = b'{"status":"SUCCEEDED"}',
):
    topic = running.front.topics.response(execution.thing, execution.execution_id).encode()
    return packets.encode_publish(topic, payload, qos=qos, packet_id=packet_id)


async def test_a_request_reaches_the_thing_and_its_answer_ends_the_execution(running):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn", b'{"level":3}', 30)
    request = await client.expect_publish()
    assert request.topic == f"$emqx/commands/things/lamp/executions/{execution.execution_id}/request"
    assert (request.qos, request.dup, request.retain) == (1, False, False)
    assert execution.delivery is Delivery.PUBLISHED
    client.send(packets.encode_puback(request.packet_id))
    await client.ping()
    assert execution.delivery is Delivery.DELIVERED
    client.send(answer(running, execution, payload=b'{"status":"SUCCEEDED","result":{"level":3}}'))
    puback = await client.expect(PacketType.PUBACK)
    assert packets.parse_packet_id(puback) == 7
    assert (execution.status, execution.result) == (Status.SUCCEEDED, b'{"level":3}')


async def test_a_device_that_only_takes_commands_never_troubles_amqtt(running):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(answer(running, execution))
    await client.expect(PacketType.PUBACK)
    assert running.broker.sessions == {}


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_response_may_come_at_any_qos(running, qos):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(answer(running, execution, qos=qos))
    if qos == 1:
        await client.expect(PacketType.PUBACK)
    if qos == 2:
        await client.expect(PacketType.PUBREC)
        client.send(answer(running, execution, qos=qos))  # the same again, before the release
        await client.expect(PacketType.PUBREC)
        client.send(b"\x62\x02\x00\x07")
        await client.expect(PacketType.PUBCOMP)
        assert running.service.counters["responses.repeated"] == 0
    await client.ping()
    assert execution.status is Status.SUCCEEDED


async def test_what_waits_goes_out_in_order_when_the_thing_subscribes(running):
    running.service.things.know("lamp", 0.0)
    sent = [running.service.send("lamp", f"action{i}") for i in range(10)]
    client = await thing(running)
    for execution in sent:
        assert execution.execution_id in (await client.expect_publish()).topic


async def test_an_unacknowledged_request_comes_again_with_dup_on_reconnect(running):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn")
    assert not (await client.expect_publish()).dup
    client.reset()
    client = await thing(running)
    again = await client.expect_publish()
    assert again.dup
    assert execution.execution_id in again.topic
    assert execution.attempts == 2


async def test_a_thing_may_answer_only_its_own_executions(running):
    lamp, door = await thing(running), await thing(running, "door")
    execution = running.service.send("lamp", "turnOn")
    await lamp.expect_publish()
    door.send(answer(running, execution))  # on the lamp's topic
    await door.expect(PacketType.PUBACK)
    own_topic = running.front.topics.response("door", execution.execution_id).encode()
    door.send(packets.encode_publish(own_topic, b'{"status":"SUCCEEDED"}', qos=1, packet_id=8))
    await door.expect(PacketType.PUBACK)
    assert execution.status is Status.SENT
    assert running.service.counters["dropped.forbiddenTopic"] == 1
    assert running.service.counters["dropped.wrongThing"] == 1
    await door.ping()


@pytest.mark.parametrize(
    "topic",
    [
        "$emqx/commands/things/lamp/executions/x/request",
        "$emqx/commands/things/lamp/executions/x/cancel",
        "$emqx/commands/things/lamp/time",
        "$emqx/commands",
        "$emqx/commands/other",
        "$SYS/broker/uptime",
        "$anything",
    ],
)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_no_client_publishes_what_is_not_its_own_under_a_dollar(running, topic, qos):
    client = await thing(running)
    client.send(packets.encode_publish(topic.encode(), b"{}", qos=qos, packet_id=9, retain=True))
    if qos:
        await client.expect(PacketType.PUBACK if qos == 1 else PacketType.PUBREC)
    await client.ping()
    assert running.service.counters["dropped.forbiddenTopic"] == 1
    assert running.broker.retained_messages == {}


@pytest.mark.parametrize(
    "topic_filter",
    [
        "$emqx/commands/#",
        "$emqx/commands/things/+/executions/+/request",
        "$emqx/commands/things/door/executions/+/request",
        "$emqx/commands/things/lamp/executions/0193/request",
        "$emqx/commands/things/lamp/executions/+/response",
        "$share/g/$emqx/commands/things/lamp/executions/+/request",
        "$emqx/#",
        "$emqx/+/things/lamp/executions/+/request",
        "bad/#/filter",
        "",
    ],
)
async def test_a_filter_that_is_not_the_things_own_is_refused(running, topic_filter):
    client = await RawClient.connected(running.address, "lamp")
    assert await client.subscribe(topic_filter) == [0x80]


async def test_a_wider_filter_of_its_own_serves_as_well(running):
    client = await RawClient.connected(running.address, "lamp")
    assert await client.subscribe("$emqx/commands/things/lamp/#") == [1]
    time = await client.expect_publish()
    assert (time.topic, time.qos) == ("$emqx/commands/things/lamp/time", 0)
    running.service.send("lamp", "turnOn")
    assert (await client.expect_publish()).topic.endswith("/request")


async def test_requests_follow_a_qos_0_subscription_at_qos_0(running):
    client = await RawClient.connected(running.address, "lamp")
    assert await client.subscribe(REQUESTS.format("lamp"), qos=0) == [0]
    executions = [running.service.send("lamp", "turnOn") for _ in range(200)]  # more than the window
    for _ in executions:
        assert (await client.expect_publish()).qos == 0
    assert {execution.delivery for execution in executions} == {Delivery.PUBLISHED}


async def test_a_subscribe_with_filters_of_both_kinds_is_answered_once(running):
    client = await RawClient.connected(running.address, "lamp")
    codes = await client.subscribe("a/b", REQUESTS.format("lamp"), "c/#", "$emqx/commands/#", qos=2)
    assert codes == [2, 1, 2, 0x80]
    running.service.send("lamp", "turnOn")
    assert (await client.expect_publish()).topic.endswith("/request")
    client.send(packets.encode_unsubscribe(3, ["a/b", REQUESTS.format("lamp")]))
    await client.expect(PacketType.UNSUBACK)
    assert running.service.send("lamp", "turnOn").delivery is Delivery.QUEUED


async def test_telemetry_goes_through_amqtt_beside_commands(running):
    listener = await RawClient.connected(running.address, "listener")
    assert await listener.subscribe("telemetry/#") == [1]
    client = await thing(running)
    client.send(packets.encode_publish(b"telemetry/lamp", b"21.5", qos=1, packet_id=1))
    await client.expect(PacketType.PUBACK)
    message = await listener.expect_publish()
    assert (message.topic, message.payload) == ("telemetry/lamp", b"21.5")
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(answer(running, execution))
    await client.expect(PacketType.PUBACK)
    assert execution.status is Status.SUCCEEDED


async def test_packet_identifiers_of_amqtt_and_of_the_front_never_meet(running):
    client = await thing(running)
    assert await client.subscribe("news/#", packet_id=2) == [1]
    connection = next(iter(running.front.connections))
    connection._in_flight._last = 4  # so that the next request takes 3, which amqtt is about to use
    taken = [running.service.send("lamp", "turnOn") for _ in range(3)]
    requests = [await client.expect_publish() for _ in taken]
    assert [r.packet_id for r in requests] == [3, 2, 1]
    source = await RawClient.connected(running.address, "source")
    for i in range(3):
        source.send(packets.encode_publish(b"news/today", b"%d" % i, qos=1, packet_id=i + 1))
    news = [await client.expect_publish() for _ in range(3)]
    assert not {n.packet_id for n in news} & {1, 2, 3}
    for publish in news + requests:
        client.send(packets.encode_puback(publish.packet_id))
    await client.ping()
    session = running.broker.sessions["lamp"][0]
    await eventually(lambda: not session.inflight_out)
    assert {execution.delivery for execution in taken} == {Delivery.DELIVERED}


async def test_a_second_connection_with_the_same_client_id_takes_over(running):
    first = await thing(running)
    second = await thing(running)
    await first.expect_end()
    running.service.send("lamp", "turnOn")
    await second.expect_publish()
    assert len(running.front.connections) == 1


@pytest.mark.parametrize("clean", [True, False])
async def test_a_take_over_of_a_client_that_amqtt_knows_leaves_one_that_hears(running, clean):
    first = await RawClient.connected(running.address, "listener", clean=clean)
    await first.subscribe("news/#")
    clients = [await RawClient.open(running.address) for _ in range(5)]
    for client in clients:
        client.send(packets.encode_connect(packets.Connect("listener", clean, 60, None, None, None)))
    admitted = [client for client in clients if await client.receive() is not None]
    alive = [client for client in admitted if await _answers_ping(client)]
    assert len(alive) == 1
    await alive[0].subscribe("news/#")
    source = await RawClient.connected(running.address, "source")
    source.send(packets.encode_publish(b"news/x", b"1"))
    assert (await alive[0].expect_publish()).topic == "news/x"


async def _answers_ping(client: RawClient) -> bool:
    client.send(b"\xc0\x00")
    return await client.receive() is not None


async def test_command_subscriptions_of_a_persistent_session_are_kept(running):
    client = await thing(running, clean=False)
    await client.close()
    client = await RawClient.open(running.address)
    connack = await client.connect("lamp", clean=False)
    assert connack.packet[2] == 1
    running.service.send("lamp", "turnOn")
    await client.expect_publish()
    await client.close()
    client = await RawClient.open(running.address)
    connack = await client.connect("lamp", clean=True)
    assert connack.packet[2] == 0
    assert running.service.send("lamp", "turnOn").delivery is Delivery.QUEUED


async def test_a_will_is_published_by_amqtt_when_the_client_is_lost_and_not_when_it_leaves(running):
    listener = await RawClient.connected(running.address, "listener")
    await listener.subscribe("wills/#")
    will = Will(b"wills/a".decode(), b"gone", 0, retain=False)
    lost = await RawClient.connected(running.address, "lost", will=will)
    lost.reset()
    assert (await listener.expect_publish()).payload == b"gone"
    leaving = await RawClient.connected(running.address, "leaving", will=will)
    leaving.send(b"\xe0\x00")
    await leaving.expect_end()
    other = await RawClient.connected(running.address, "other", will=will._replace(payload=b"other"))
    other.reset()
    assert (await listener.expect_publish()).payload == b"other"


@pytest.mark.parametrize("topic", ["$emqx/commands/things/door/executions/x/request", "$SYS/x", "a/+", ""])
async def test_a_will_where_the_client_may_not_publish_is_refused(running, topic):
    client = await RawClient.open(running.address)
    connack = await client.connect("lamp", will=Will(topic, b"x", 0, retain=False))
    assert connack.packet[3] == 5
    await client.expect_end()


async def test_a_presence_said_for_brokers_behind_a_cluster_is_accepted_and_not_needed(
    running, nothing_goes_wrong
):
    topic = "$emqx/commands/things/lamp/presence"
    will = Will(topic, b'{"online":false}', 1, retain=False)
    lamp = await RawClient.connected(running.address, "lamp", will=will)
    (connection,) = running.front.connections
    assert connection.behind is None  # amqtt is not troubled for it
    lamp.send(packets.encode_publish(topic.encode(), b'{"online":true}', qos=1, packet_id=3))
    assert (await lamp.expect(PacketType.PUBACK)).packet[2:] == b"\0\x03"
    assert not running.service.counters["dropped.badAnnouncement"]
    lamp.send(packets.encode_publish(topic.replace("lamp", "door").encode(), b"{}", qos=1, packet_id=4))
    await lamp.expect(PacketType.PUBACK)
    assert running.service.counters["dropped.forbiddenTopic"] == 1


async def test_the_client_identifier_may_be_left_out_of_a_clean_session(running):
    client = await RawClient.open(running.address)
    assert (await client.connect("")).packet[3] == 0
    client = await RawClient.open(running.address)
    assert (await client.connect("", clean=False)).packet[3] == 2
    await client.expect_end()


async def test_mqtt_5_is_answered_so_that_clients_fall_back(running):
    client = await RawClient.open(running.address)
    client.send(b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04lamp")
    assert (await client.expect(PacketType.CONNACK)).packet == b"\x20\x02\x00\x01"
    await client.expect_end()


async def test_a_silent_connection_is_closed(running_impatient):
    client = await RawClient.open(running_impatient.address)
    await client.expect_end()
    assert running_impatient.service.counters["front.connectTimeout"] == 1


async def test_a_client_that_outlives_its_keep_alive_is_closed(running):
    client = await RawClient.connected(running.address, "lamp", keep_alive=1)
    async with asyncio.timeout(4):
        await client.expect_end()
    assert running.service.counters["front.keepAlive"] == 1
    assert not running.service.things.get("lamp").online


@pytest.fixture
async def running_impatient():
    async with front_broker(limits=FrontLimits(connect_timeout=0.1)) as running:
        yield running


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"\xc0\x00", "MQTT-3.1.0-1"),
        (b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00", "MQTT-3.1.2-1"),
        (b"\x10\xff\xff\xff\xff\x01", "section 2.2.3"),
        (b"GET / HTTP/1.1\r\n\r\n", "MQTT-3.1.0-1"),
    ],
)
async def test_a_connection_that_begins_badly_is_closed(running, data, rule):
    client = await RawClient.open(running.address)
    client.send(data)
    await client.expect_end()
    assert running.service.counters["front.malformed"] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04lamp",  # a second CONNECT
        b"\x20\x02\x00\x00",  # a CONNACK
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\x32\x05\x00\x01a\x00\x00",  # packet identifier 0
        b"\x30\x03\x00\x01+",  # a wildcard in a topic
        b"\x30\x02\x00\x00",  # an empty topic
        b"\x30\x04\x00\x02a\x00",  # U+0000
        b"\x30\x03\x00\x01\xff",  # not UTF-8
        b"\x80\x06\x00\x01\x00\x01a\x00",  # flags 0 on SUBSCRIBE
        b"\x82\x02\x00\x01",  # nothing to subscribe to
        b"\x82\x06\x00\x01\x00\x01a\x03",  # requested QoS 3
        b"\xa2\x02\x00\x01",  # nothing to unsubscribe from
        b"\xc0\x01\x00",  # PINGREQ with a body
        b"\xf0\x00",  # reserved
        b"\x30\x0a\x00\x20abc45678",  # a topic longer than its packet
    ],
)
async def test_a_malformed_packet_closes_only_its_own_connection(running, data):
    bystander = await thing(running, "bystander")
    client = await thing(running)
    client.send(data)
    await client.expect_end()
    assert running.service.counters["front.malformed"] == 1
    await bystander.ping()
    running.service.send("bystander", "turnOn")
    await bystander.expect_publish()


async def test_a_packet_over_the_limit_closes_the_connection_before_it_is_buffered(running):
    client = await thing(running)
    client.send(b"\x30" + packets.encode_length(200 * 1024 * 1024) + b"\x00\x01a" + b"x" * 100)
    await client.expect_end()
    assert running.service.counters["front.tooLarge"] == 1


async def test_an_oversized_response_is_dropped_and_the_connection_kept(running):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(
        answer(running, execution, payload=b'{"status":"SUCCEEDED","result":"' + b"x" * 300_000 + b'"}')
    )
    await client.expect(PacketType.PUBACK)
    assert running.service.counters["dropped.badPayload"] == 1
    client.send(answer(running, execution))
    await client.expect(PacketType.PUBACK)
    assert execution.status is Status.SUCCEEDED


async def test_a_client_that_acknowledges_nothing_is_dropped():
    async with front_broker(limits=FrontLimits(in_flight=64)) as running:
        client = await thing(running)
        executions = [running.service.send("lamp", "turnOn") for _ in range(64)]
        for _ in executions:
            await client.expect_publish()
        for execution in executions:
            client.send(answer(running, execution))
            await client.expect(PacketType.PUBACK)
        running.service.send("lamp", "turnOn")
        await client.expect_end()
        assert running.service.counters["front.inFlight"] == 1


async def test_a_client_that_does_not_read_is_dropped_and_the_others_are_served():
    async with front_broker(limits=FrontLimits(write_buffer=200_000)) as running:
        reader = await thing(running, "reader")
        deaf = await RawClient.connected(running.address, "deaf")
        await deaf.subscribe(REQUESTS.format("deaf"), qos=0)
        params = b'{"x":"' + b"y" * 100_000 + b'"}'
        for _ in range(1000):
            if not running.front.service._deliveries.is_reachable("deaf"):
                break
            running.service.send("deaf", "fill", params)
            await asyncio.sleep(0)
        assert running.service.counters["front.writeBuffer"] == 1
        running.service.send("reader", "turnOn")
        await reader.expect_publish()


async def test_there_is_room_for_so_many_retained_messages_and_no_more():
    async with front_broker(limits=FrontLimits(retained=2, retained_bytes=10)) as running:
        client = await RawClient.connected(running.address, "source")

        async def retain(topic, payload):
            client.send(packets.encode_publish(topic, payload, qos=1, packet_id=1, retain=True))
            await client.expect(PacketType.PUBACK)

        await retain(b"a", b"1")
        await retain(b"b", b"x" * 11)  # too large
        await retain(b"b", b"1")
        await eventually(lambda: set(running.broker.retained_messages) == {"a", "b"})
        await retain(b"c", b"1")  # too many
        await retain(b"a", b"2")
        await eventually(lambda: running.broker.retained_messages["a"].data == b"2")
        assert set(running.broker.retained_messages) == {"a", "b"}
        assert running.service.counters["dropped.forbiddenTopic"] == 2
        await retain(b"a", b"")
        await eventually(lambda: set(running.broker.retained_messages) == {"b"})
        await retain(b"c", b"1")
        await eventually(lambda: set(running.broker.retained_messages) == {"b", "c"})


async def test_there_is_room_for_so_many_connections_and_no_more():
    async with front_broker(limits=FrontLimits(connections=2)) as running:
        first = await RawClient.connected(running.address, "a")
        await RawClient.connected(running.address, "b")
        third = await RawClient.open(running.address)
        await third.expect_end()
        await first.close()
        await eventually(lambda: len(running.front.connections) == 1)
        await RawClient.connected(running.address, "c")


async def test_requests_and_acknowledgements_wait_for_the_journal():
    class Withholding:
        def __init__(self) -> None:
            self.waiting = []
            self.accepting = True

        def record(self, execution) -> None: ...

        def forget(self, execution_id) -> None: ...

        def then(self, kept, lost=None) -> None:
            self.waiting.append(kept)

        def commit(self) -> None:
            waiting, self.waiting = self.waiting, []
            for callback in waiting:
                callback()

    journal = Withholding()
    async with front_broker(journal=journal) as running:
        client = await thing(running)
        execution = running.service.send("lamp", "turnOn")
        await client.ping()  # and no request before the answer
        journal.commit()
        await client.expect_publish()
        client.send(answer(running, execution))
        await client.ping()  # and no PUBACK before the answer
        journal.commit()
        await client.expect(PacketType.PUBACK)


async def test_a_connection_that_has_ended_goes_without_the_collector():
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "lamp")
        await client.subscribe("$emqx/commands/things/lamp/executions/+/request")
        gc.collect()

        def there() -> list[object]:
            return [one for one in gc.get_objects() if type(one) is Connection]

        assert len(there()) == 1
        gc.disable()
        try:
            client.send(b"\xe0\x00")
            await client.expect_end()
            await eventually(lambda: not there())
        finally:
            gc.enable()


async def test_why_a_connection_was_closed_is_told_to_who_debugs(caplog):
    caplog.set_level("DEBUG", logger="thingctl.front")
    async with front_broker() as running:
        client = await RawClient.connected(running.address, "lamp")
        await RawClient.connected(running.address, "lamp")
        await client.expect_end()
    assert "connection closed: taken over by a new connection (client 'lamp')" in caplog.messages
