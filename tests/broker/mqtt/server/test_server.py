"""The server, over real sockets."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from support import wire5
from support.brokers import front_broker
from support.things import answer, thing
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_protocol.statuses import Delivery, Status


@pytest.fixture
async def running():
    async with front_broker() as running:
        yield running


async def test_a_request_reaches_the_thing_and_its_answer_ends_the_execution(running):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn", b'{"level":3}', 30)
    request = await client.expect_publish()
    assert request.topic == f"$emqx/commands/things/lamp/executions/{execution.execution_id}/request"
    assert (request.qos, request.dup, request.retain) == (1, False, False)
    assert execution.delivery is Delivery.PUBLISHED
    client.send(CODEC_3.encode_puback(request.packet_id))
    await client.ping()
    assert execution.delivery is Delivery.DELIVERED
    client.send(answer(running, execution, payload=b'{"status":"SUCCEEDED","result":{"level":3}}'))
    puback = await client.expect(PacketType.PUBACK)
    assert packets.parse_packet_id(puback) == 7
    assert (execution.status, execution.result) == (Status.SUCCEEDED, b'{"level":3}')


async def test_a_command_is_no_message_of_the_engine(running):
    client = await thing(running)
    execution = running.service.send("lamp", "turnOn")
    await client.expect_publish()
    client.send(answer(running, execution))
    await client.expect(PacketType.PUBACK)
    assert (running.front.engine.totals.received, running.front.engine.totals.sent) == (0, 0)


async def test_what_waits_goes_out_in_order_when_the_thing_subscribes(running):
    running.service.things.know("lamp", 0.0)
    sent = [running.service.send("lamp", f"action{i}") for i in range(10)]
    client = await thing(running)
    for execution in sent:
        assert execution.execution_id in (await client.expect_publish()).topic


@pytest.mark.conforms("MQTT-3.3.1-1")
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


@pytest.mark.conforms("MQTT-3.1.4-2")
async def test_a_second_connection_with_the_same_client_id_takes_over(running):
    first = await thing(running)
    second = await thing(running)
    await first.expect_end()
    running.service.send("lamp", "turnOn")
    await second.expect_publish()
    assert len(running.front.connections) == 1


@pytest.mark.parametrize("clean", [True, False])
async def test_a_take_over_leaves_one_that_hears(running, clean):
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
    source.send(CODEC_3.encode_publish(b"news/x", b"1"))
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


@pytest.mark.conforms("MQTT-3.1.2-8", "MQTT-3.14.4-3")
async def test_a_will_is_published_when_the_client_is_lost_and_not_when_it_leaves(running):
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


async def test_there_is_room_for_so_many_connections_and_no_more():
    async with front_broker(limits=MqttLimits(connections=2)) as running:
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


async def test_one_reason_for_a_refusal_does_not_hide_another_and_a_client_makes_none():
    async with front_broker() as running:
        with capture_logs() as logs:
            for reason in ("wrong password", "a will on topic 'a'", "wrong password", "a will on topic 'b'"):
                running.front.note("refused", "connection refused", who="192.0.2.7", reason=reason)
    assert [log["reason"] for log in logs if "reason" in log] == ["wrong password", "a will on topic 'a'"]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [("", Reason.SERVER_SHUTTING_DOWN), ("broker2.example:8883", Reason.USE_ANOTHER_SERVER)],
)
async def test_when_the_broker_stops_mqtt_5_clients_are_told_where_to_go(reference, reason):
    async with front_broker() as running:
        running.front.server_reference = reference
        client = await RawClient.open(running.address)
        client.send(wire5.connect("lamp"))
        await client.expect(PacketType.CONNACK)
        await running.front.stop()
        goodbye = (await client.expect(PacketType.DISCONNECT)).packet
        assert goodbye[2] == reason
        assert reference.encode() in goodbye
        await client.expect_end()
