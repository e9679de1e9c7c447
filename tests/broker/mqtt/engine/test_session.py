"""Sessions: windows, queues, acknowledgements, and what is sent again. One engine, clients without sockets."""

from __future__ import annotations

import pytest

from support.engine_client import NEVER, NOW, Answer, EngineClient, Heard
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.outbox import BACKLOG_BYTES, LAST_PACKET_ID, WINDOW
from thingctl_broker.mqtt.protocol.packets import PacketType
from thingctl_broker.mqtt.server.limits import MqttLimits


def engine(**limits) -> Engine:
    return Engine(MqttLimits(**limits))


def client(owner: Engine, name: str, *filters: str, qos: int = 1, **options) -> EngineClient:
    made = EngineClient(owner, name, **options)
    made.connect()
    for topic_filter in filters:
        made.subscribe(topic_filter, qos)
    return made


@pytest.mark.conforms(
    "MQTT-2.3.1-4",
    "MQTT-3.3.1-1",
    "MQTT-4.3.2-1",
    "MQTT-4.4.0-1",
    "MQTT-4.6.0-6",
    "MQTT5-3.3.1-1",
    "MQTT5-4.3.2-2",
    "MQTT5-4.3.2-3",
    "MQTT5-4.4.0-1",
    "MQTT5-4.6.0-5",
)
def test_what_is_not_acknowledged_is_sent_again_in_order_with_dup():
    owner = engine()
    away = client(owner, "away", "news", expiry=NEVER)
    source = client(owner, "source")
    for i in range(30):
        source.publish("news", b"%d" % i)
    first = away.read()
    assert [m.payload for m in first] == [b"%d" % i for i in range(WINDOW)]
    away.acknowledge(first[0])
    (another,) = away.read()
    away.leave()
    assert away.connect()
    again = away.read()
    assert [m.payload for m in again] == [b"%d" % i for i in range(1, WINDOW + 1)]
    assert [m.dup for m in (*first, another)] == [False] * (WINDOW + 1)
    assert [m.dup for m in again] == [True] * WINDOW
    assert [m.packet_id for m in again] == [m.packet_id for m in (*first[1:], another)]


@pytest.mark.conforms("MQTT5-3.3.4-9")
def test_the_window_is_kept_whatever_was_in_flight():
    owner = engine()
    away = client(owner, "away", "news", expiry=NEVER, version=5)
    source = client(owner, "source")
    for i in range(10):
        source.publish("news", b"%d" % i)
    away.leave()
    away.connect(window=3)
    read = away.read()
    assert [m.payload for m in read] == [b"0", b"1", b"2"]
    away.acknowledge(read[1])
    assert away.payloads() == [b"3"]


@pytest.mark.conforms(
    "MQTT-4.3.3-1",
    "MQTT-4.4.0-1",
    "MQTT5-4.3.3-4",
    "MQTT5-4.3.3-5",
    "MQTT5-4.3.3-6",
    "MQTT5-4.4.0-1",
)
def test_qos_2_is_released_before_it_is_complete_and_the_release_is_repeated():
    owner = engine()
    away = client(owner, "away", "news", qos=2, expiry=NEVER)
    client(owner, "source").publish("news", b"x", 2)
    (message,) = away.read()
    away.session.on_pubrec(message.packet_id, 0, NOW)
    assert away.read() == [Answer(PacketType.PUBREL, message.packet_id)]
    away.leave()
    away.connect()
    assert away.read() == [Answer(PacketType.PUBREL, message.packet_id)]
    away.session.on_pubcomp(message.packet_id, NOW)
    away.leave()
    away.connect()
    assert away.read() == []
    assert owner.totals.waiting_bytes == 0


@pytest.mark.conforms("MQTT5-4.4.0-2")
def test_a_qos_2_message_that_the_client_refuses_is_over():
    owner = engine()
    reader = client(owner, "reader", "news", qos=2, version=5)
    client(owner, "source").publish("news", b"x", 2)
    (message,) = reader.read()
    reader.session.on_pubrec(message.packet_id, 0x83, NOW)
    assert reader.read() == []
    assert not reader.session.in_flight


def test_answers_that_fit_nothing_change_nothing():
    owner = engine()
    reader = client(owner, "reader", "news", qos=2)
    client(owner, "source").publish("news", b"x", 2)
    (message,) = reader.read()
    assert not reader.session.on_puback(message.packet_id, NOW)
    assert not reader.session.on_puback(99, NOW)
    reader.session.on_pubcomp(message.packet_id, NOW)
    assert message.packet_id in reader.session.in_flight
    reader.session.on_pubrec(99, 0, NOW)
    assert reader.read() == [Answer(PacketType.PUBREL, 99)]


def test_qos_0_does_not_wait_for_a_client_that_is_away_and_displaces_nothing():
    owner = engine(away_messages=5)
    away = client(owner, "away", "#", expiry=NEVER)
    away.leave()
    source = client(owner, "source")
    source.publish("alarm", b"alarm")
    for _ in range(100):
        source.publish("telemetry", b"t", 0)
    away.connect()
    assert away.payloads() == [b"alarm"]


@pytest.mark.conforms("MQTT5-3.3.2-5")
def test_the_oldest_leaves_a_full_queue_and_expired_ones_leave_first():
    owner = engine(away_messages=3)
    away = client(owner, "away", "#", expiry=NEVER)
    away.leave()
    source = client(owner, "source")
    source.publish("a", b"0")
    source.publish("a", b"1", expires_at=NOW + 1)
    source.publish("a", b"2")
    source.publish("a", b"3", now=NOW + 2)
    source.publish("a", b"4", now=NOW + 2)
    away.connect(now=NOW + 2)
    assert away.payloads() == [b"2", b"3", b"4"]
    assert owner.totals.counters["dropped.expired"] == 1
    assert owner.totals.counters["dropped.queueFull"] == 1


def test_a_client_that_reads_nothing_costs_no_more_than_its_bytes():
    limits = {"client_bytes": 100_000}
    owner = engine(**limits)
    slow = client(owner, "slow", "#", qos=2)
    source = client(owner, "source")
    for qos in (0, 1, 2):
        for _ in range(500):
            source.publish("a", b"x" * 1000, qos)
            assert slow.session.waiting_bytes <= 100_000 + 2000
    assert owner.totals.waiting_bytes == slow.session.waiting_bytes
    assert owner.totals.counters["dropped.slowReader"] > 0
    assert owner.totals.counters["dropped.queueFull"] > 0
    slow.leave()
    assert owner.totals.waiting_bytes == 0


def test_all_clients_together_cost_no_more_than_the_total():
    owner = engine(total_bytes=200_000, client_bytes=100_000)
    away = [client(owner, f"away{i}", "#", expiry=NEVER) for i in range(5)]
    for one in away:
        one.leave()
    source = client(owner, "source")
    for _ in range(400):
        source.publish("a", b"x" * 1000)
    assert owner.totals.waiting_bytes <= 200_000 + 2000
    assert owner.totals.counters["dropped.totalBytes"] > 0
    for one in away:
        one.connect(clean=True)
    assert owner.totals.waiting_bytes == 0


def test_what_the_socket_does_not_take_stays_unencoded():
    owner = engine()
    slow = client(owner, "slow", "#", version=5)
    slow.leave()
    slow.connect(window=1000)
    slow.subscribe("#", 1)
    source = client(owner, "source")
    for _ in range(100):
        source.publish("a", b"x" * 10_000)
    assert slow.session.outgoing_bytes < BACKLOG_BYTES + 20_000
    assert slow.session.has_backlog
    total = 0
    while True:
        read = slow.read()
        if not read:
            break
        total += len(read)
        slow.session.pump(NOW)
    assert total == 100


@pytest.mark.conforms("MQTT-2.3.1-4", "MQTT5-2.2.1-4", "MQTT5-4.3.2-1", "MQTT5-4.3.3-1")
def test_identifiers_are_used_again_and_stay_in_the_engines_half():
    owner = engine()
    reader = client(owner, "reader", "a")
    reader.session._last_id = LAST_PACKET_ID - 1
    source = client(owner, "source")
    for _ in range(3):
        source.publish("a")
    assert [m.packet_id for m in reader.read()] == [LAST_PACKET_ID, 1, 2]


@pytest.mark.conforms("MQTT5-3.1.2-24", "MQTT5-3.1.2-25")
def test_a_message_longer_than_the_client_takes_is_as_if_it_had_been_sent():
    owner = engine()
    small = EngineClient(owner, "small", version=5)
    small.connect(maximum_packet_size=100)
    small.subscribe("#", 1)
    source = client(owner, "source")
    for qos in (0, 1):
        source.publish("a", b"x" * 200, qos)
        source.publish("a", b"short", qos)
    assert small.payloads() == [b"short", b"short"]
    assert owner.totals.counters["dropped.packetSize"] == 1


@pytest.mark.parametrize("most", [1, 30, 1 << 20])
def test_outgoing_packets_are_taken_whole_and_in_order(most):
    owner = engine()
    reader = client(owner, "reader", "#", qos=0)
    source = client(owner, "source")
    for i in range(20):
        source.publish("a", b"%d" % i, 0)
    taken: list[Heard] = []
    while read := reader.read(most):
        taken += read
    assert [m.payload for m in taken] == [b"%d" % i for i in range(20)]
    assert reader.session.outgoing_bytes == 0


def test_a_client_for_whom_little_waits_is_served_when_others_have_used_up_the_total():
    owner = engine(total_bytes=300_000, client_bytes=200_000)
    deaf = [client(owner, f"deaf{i}", "large", qos=i % 3) for i in range(6)]
    modest = client(owner, "modest", "small", qos=2)
    source = client(owner, "source")
    for i in range(300):
        source.publish("large", b"x" * 2000, 2)
        source.publish("small", b"%d" % i, i % 3)
        assert modest.payloads() == [b"%d" % i]
        for message in modest.session.in_flight.copy():
            modest.session.on_puback(message, NOW)
            modest.session.on_pubrec(message, 0, NOW)
            modest.session.on_pubcomp(message, NOW)
        modest.read()
    assert owner.totals.waiting_bytes <= 300_000
    assert owner.totals.counters["dropped.totalBytes"] > 0
    assert all(one.session.waiting_bytes for one in deaf)
