"""What the records bring back: an engine that ends, and another one that begins with what was kept."""

from __future__ import annotations

import pytest

from support.engine_client import NEVER, NOW, EngineClient
from support.memory_records import MemoryRecords
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.restore import DamagedRecord, restore
from thingctl_broker.mqtt.engine.store import RecordKind
from thingctl_broker.mqtt.server.limits import MqttLimits

WALL = 1_700_000_000.0


def begin(store, wall=WALL) -> Engine:
    engine = Engine(MqttLimits(), store, wall=wall)
    restore(engine, store, NOW, lambda session, f, qos: session.commands.observe(f))
    return engine


@pytest.fixture
def store():
    return MemoryRecords()


@pytest.mark.conforms("MQTT-4.1.0-1")
def test_sessions_messages_and_retained_ones_come_back(store):
    engine = begin(store)
    away = EngineClient(engine, "away", version=5, expiry=NEVER)
    away.connect(owner="me", thing="lamp")
    away.subscribe("news/#", 2, subscription_id=3, no_local=True)
    away.session.commands.observe("commands/#")
    engine.subscriptions_changed(away.session, lambda: None)
    away.leave()
    source = EngineClient(engine, "source")
    source.connect()
    for i in range(30):
        source.publish("news/a", b"%d" % i, i % 3, properties=b"\x26\x00\x01a\x00\x01b")
    source.publish("state", b"on", 1, retain=True)
    later = begin(store)
    (session,) = later.sessions
    assert (session.client_id, session.owner, session.thing, session.expiry) == ("away", "me", "lamp", NEVER)
    assert session.commands.filters == ["commands/#"]
    again = EngineClient(later, "away", version=5, expiry=NEVER)
    assert again.connect(owner="me", thing="lamp", window=100)
    heard = again.read()
    assert [(m.payload, m.qos) for m in heard] == [(b"%d" % i, i % 3) for i in range(30) if i % 3]
    assert heard[0].properties == {"UserProperty": [("a", "b")], "SubscriptionIdentifier": [3]}
    assert [m.payload for m in later.retained.match("#", NOW)] == [b"on"]
    for message in heard:
        again.acknowledge(message)
    assert not [key for key in store.records if key[0] in {RecordKind.DELIVERY, RecordKind.MESSAGE}]


def test_a_message_for_many_is_one_record_that_goes_with_the_last(store):
    engine = begin(store)
    away = [EngineClient(engine, f"away{i}", expiry=NEVER) for i in range(3)]
    for one in away:
        one.connect()
        one.subscribe("a")
        one.leave()
    source = EngineClient(engine, "source")
    source.connect()
    source.publish("a")
    messages = [key for key in store.records if key[0] == RecordKind.MESSAGE]
    assert len(messages) == 1
    for one in away:
        assert messages[0] in store.records
        one.connect()
        one.acknowledge(one.read()[0])
    assert messages[0] not in store.records


def test_a_qos_2_message_keeps_its_identifier_and_is_not_sent_before_that_is_kept():
    store = MemoryRecords(holds=True)
    engine = begin(store)
    reader = EngineClient(engine, "reader", expiry=NEVER)
    reader.connect()
    reader.subscribe("a", 2)
    source = EngineClient(engine, "source")
    source.connect()
    source.publish("a", b"x", 2)
    assert reader.read() == []
    store.commit()
    (message,) = reader.read()
    store.records = dict(store.kept)  # killed
    later = begin(store)
    again = EngineClient(later, "reader", expiry=NEVER)
    again.connect()
    store.commit()
    (repeated,) = again.read()
    assert (repeated.packet_id, repeated.dup, repeated.payload) == (message.packet_id, True, b"x")
    again.session.on_pubrec(message.packet_id, 0, NOW)
    assert again.read() == [], "the release is kept before it is sent"
    store.commit()
    assert len(again.read()) == 1
    later = begin(store)
    last = EngineClient(later, "reader", expiry=NEVER)
    last.connect()
    store.commit()
    assert [type(packet).__name__ for packet in last.read()] == ["Answer"]


def test_what_came_at_qos_2_is_known_after_a_restart(store):
    engine = begin(store)
    source = EngineClient(engine, "source", expiry=NEVER)
    source.connect()
    engine.begin_exactly_once(source.session, 7)
    engine.begin_exactly_once(source.session, 8)
    engine.complete_exactly_once(source.session, 8, lambda: None)
    later = begin(store)
    again = EngineClient(later, "source", expiry=NEVER)
    again.connect()
    assert set(again.session.received) == {7}


def test_times_go_on_by_the_wall_clock(store):
    engine = begin(store)
    away = EngineClient(engine, "away", version=5, expiry=100)
    away.connect()
    away.subscribe("a")
    away.leave()
    source = EngineClient(engine, "source")
    source.connect()
    source.publish("a", b"x", 1, expires_at=NOW + 30)
    source.publish("b", b"x", 1, retain=True, expires_at=NOW + 30)
    later = begin(store, WALL + 20)  # 20 seconds have gone by
    again = EngineClient(later, "away", version=5, expiry=100)
    assert again.connect()
    assert [m.properties["MessageExpiryInterval"] for m in again.read()] == [10]
    again.leave()
    much_later = begin(store, WALL + 20 + 101)
    much_later.tick(NOW)
    assert len(much_later.sessions) == 0
    assert len(much_later.retained) == 0


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_client_that_was_connected_at_a_crash_is_away_from_the_restart_on(store, restarts):
    engine = begin(store)
    reader = EngineClient(engine, "reader", version=5, expiry=100)
    reader.connect()
    reader.subscribe("a")
    source = EngineClient(engine, "source")
    source.connect()
    source.publish("a", b"x")
    for i in range(restarts):
        engine = begin(store, WALL + 500 + 60 * i)
        engine.tick(NOW)
    again = EngineClient(engine, "reader", version=5, expiry=100)
    assert again.connect()
    assert again.payloads() == [b"x"]


def test_a_session_of_a_client_that_stays_away_expires_over_restarts(store):
    reader = EngineClient(begin(store), "reader", version=5, expiry=100)
    reader.connect()
    for seconds in (500, 560, 601):
        engine = begin(store, WALL + seconds)
        engine.tick(NOW)
    assert len(engine.sessions) == 0


def test_a_session_that_ends_leaves_no_record(store):
    engine = begin(store)
    away = EngineClient(engine, "away", expiry=NEVER)
    away.connect()
    away.subscribe("a", 2)
    engine.begin_exactly_once(away.session, 7)
    away.leave()
    source = EngineClient(engine, "source")
    source.connect()
    source.publish("a", b"x", 2)
    away.connect(clean=True)
    away.expiry = 0
    away.leave()
    away.connect(clean=True)
    away.leave()
    assert store.records == {}


def test_a_record_that_cannot_be_read_is_told(store):
    store.put(RecordKind.SESSION, b"x", b"\x93\x01")
    with pytest.raises(DamagedRecord):
        begin(store)


def test_a_client_that_was_connected_has_gone_when_the_broker_did(store):
    """However long it had been connected before."""
    engine = begin(store)
    away = EngineClient(engine, "away", version=5, expiry=100)
    away.connect()
    later = begin(store, WALL + 500)
    later.tick(NOW + 99)
    assert EngineClient(later, "away", version=5, expiry=100).connect(NOW + 99)
