"""The engine: sessions that begin, stay and end; who gets which message; wills; retained messages."""

from __future__ import annotations

import pytest

from support.engine_client import NEVER, NOW, EngineClient, client
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.protocol.packets import Will
from thingctl_broker.mqtt.server.limits import MqttLimits


@pytest.fixture
def engine():
    return Engine(MqttLimits())


@pytest.mark.parametrize(("published", "granted"), [(p, g) for p in range(3) for g in range(3)])
@pytest.mark.conforms("MQTT-3.8.4-6", "MQTT-4.3.1-1", "MQTT5-3.8.4-8", "MQTT5-4.3.1-1")
def test_the_qos_of_delivery_is_the_lower_of_both(engine, published, granted):
    reader = client(engine, "reader", "a", qos=granted)
    client(engine, "source").publish("a", b"x", published)
    assert [m.qos for m in reader.read()] == [min(published, granted)]


@pytest.mark.conforms("MQTT-3.8.4-3", "MQTT5-3.8.4-3")
def test_subscribing_again_replaces(engine):
    reader = client(engine, "reader", "a", qos=2)
    reader.subscribe("a", 0)
    client(engine, "source").publish("a", b"x", 2)
    assert [m.qos for m in reader.read()] == [0]
    assert engine.unsubscribe(reader.session, "a")
    assert not engine.unsubscribe(reader.session, "a")
    assert client(engine, "other").publish("a") == 0


@pytest.mark.conforms("MQTT-3.3.5-1", "MQTT5-3.3.4-2", "MQTT5-3.3.4-3", "MQTT5-3.3.4-4")
def test_filters_that_overlap_bring_one_message_at_the_highest_qos(engine):
    reader = EngineClient(engine, "reader", version=5)
    reader.connect()
    reader.subscribe("a", 0, subscription_id=1)
    reader.subscribe("+", 2, subscription_id=2)
    reader.subscribe("#", 1)
    client(engine, "source").publish("a", b"x", 2)
    (message,) = reader.read()
    assert message.qos == 2
    assert sorted(message.properties["SubscriptionIdentifier"]) == [1, 2]


@pytest.mark.conforms("MQTT5-3.8.3-3")
def test_no_local_is_for_ones_own_messages_only(engine):
    both = EngineClient(engine, "both", version=5)
    both.connect()
    both.subscribe("a", 1, no_local=True)
    assert both.publish("a", b"own") == 0
    client(engine, "source").publish("a", b"other")
    assert both.payloads() == [b"other"]
    both.publish("a", b"kept", retain=True)
    both.subscribe("a", 1, no_local=True)
    assert both.payloads() == []
    both.subscribe("+", 0, retain_handling=2)
    both.publish("a", b"own")
    assert [(m.payload, m.qos) for m in both.read()] == [(b"own", 0)]


@pytest.mark.parametrize(("handling", "times"), [(0, 2), (1, 1), (2, 0)])
@pytest.mark.conforms(
    "MQTT-3.3.1-8",
    "MQTT-3.8.4-3",
    "MQTT5-3.3.1-9",
    "MQTT5-3.3.1-10",
    "MQTT5-3.3.1-11",
    "MQTT5-3.8.4-4",
)
def test_retain_handling(engine, handling, times):
    client(engine, "source").publish("a", b"kept", retain=True)
    reader = EngineClient(engine, "reader", version=5)
    reader.connect()
    for _ in range(2):
        reader.subscribe("a", 1, retain_handling=handling)
    assert [(m.payload, m.retain) for m in reader.read()] == [(b"kept", True)] * times


@pytest.mark.conforms("MQTT-3.3.1-9", "MQTT5-3.3.1-12", "MQTT5-3.3.1-13")
def test_retain_as_published_and_its_opposite(engine):
    plain = client(engine, "plain", "a")
    bridge = EngineClient(engine, "bridge", version=5)
    bridge.connect()
    bridge.subscribe("a", 1, retain_as_published=True)
    source = client(engine, "source")
    source.publish("a", b"x", retain=True)
    source.publish("a", b"y")
    assert [m.retain for m in plain.read()] == [False, False]
    assert [m.retain for m in bridge.read()] == [True, False]


def test_a_retained_message_that_does_not_fit_is_delivered_and_takes_the_stale_one_along():
    engine = Engine(MqttLimits(retained_bytes=1000))
    reader = client(engine, "reader", "a")
    source = client(engine, "source")
    source.publish("a", b"old", retain=True)
    source.publish("a", b"x" * 2000, retain=True)
    assert [len(payload) for payload in reader.payloads()] == [3, 2000]
    late = client(engine, "late", "a")
    assert late.read() == []
    assert engine.totals.counters["dropped.retained"] == 1


@pytest.mark.conforms("MQTT-3.3.1-10", "MQTT-3.3.1-11", "MQTT5-3.3.1-6", "MQTT5-3.3.1-7")
def test_an_empty_retained_message_clears_and_is_delivered(engine):
    source = client(engine, "source")
    source.publish("a", b"x", retain=True)
    reader = client(engine, "reader", "a")
    source.publish("a", b"", retain=True)
    assert reader.payloads() == [b"x", b""]
    assert len(engine.retained) == 0


def test_shared_subscriptions_take_turns_and_prefer_members_that_are_there(engine):
    workers = [client(engine, f"w{i}", "$share/g/jobs/+", expiry=NEVER) for i in range(3)]
    everybody = client(engine, "all", "jobs/#")
    source = client(engine, "source")
    for i in range(9):
        assert source.publish("jobs/a", b"%d" % i) == 2
    taken = [worker.payloads() for worker in workers]
    assert [len(payloads) for payloads in taken] == [3, 3, 3]
    assert sorted(payload for payloads in taken for payload in payloads) == [b"%d" % i for i in range(9)]
    assert len(everybody.payloads()) == 9
    workers[0].leave()
    for i in range(4):
        source.publish("jobs/a", b"%d" % i)
    assert [len(worker.payloads()) for worker in workers[1:]] == [2, 2]
    for worker in workers[1:]:
        worker.leave()
    source.publish("jobs/a", b"kept")
    for worker in workers:
        worker.connect()
    assert [payload for worker in workers for payload in worker.payloads()].count(b"kept") == 1


def test_a_shared_subscription_gets_nothing_that_is_retained(engine):
    client(engine, "source").publish("a", b"x", retain=True)
    assert client(engine, "worker", "$share/g/a").read() == []


@pytest.mark.conforms("MQTT5-3.1.2-23", "MQTT5-4.1.0-2")
def test_a_session_expires_and_one_that_is_back_in_time_does_not(engine):
    back = client(engine, "back", "a", expiry=10)
    gone = client(engine, "gone", "a", expiry=10)
    back.leave()
    gone.leave()
    engine.tick(NOW + 9)
    assert back.connect(NOW + 9)
    engine.tick(NOW + 11)
    assert not gone.connect(NOW + 11)
    assert len(engine.tree) == 1


@pytest.mark.conforms("MQTT5-3.1.2-4")
def test_a_clean_start_ends_the_session_and_another_owner_never_has_it(engine):
    mine = EngineClient(engine, "c", expiry=NEVER)
    mine.connect(owner="me")
    mine.subscribe("a")
    mine.leave()
    other = EngineClient(engine, "c", expiry=NEVER)
    assert not other.connect(owner="you")
    assert len(engine.tree) == 0
    other.subscribe("b")
    other.leave()
    assert not other.connect(owner="you", clean=True)
    assert len(engine.tree) == 0


WILL = Will("wills", b"gone", 1, retain=False)


@pytest.mark.conforms("MQTT-3.1.2-8", "MQTT-3.1.2-10", "MQTT5-3.1.2-8")
def test_a_will_is_published_when_its_client_is_lost_and_not_when_it_leaves(engine):
    heir = client(engine, "heir", "wills")
    for lost in (False, True):
        dying = EngineClient(engine, "dying")
        dying.connect(will=WILL)
        dying.leave(will=lost)
        assert heir.payloads() == [b"gone"] * lost


@pytest.mark.conforms("MQTT5-3.1.2-7", "MQTT5-3.1.2-8", "MQTT5-3.1.2-10", "MQTT5-3.1.3-9")
def test_a_delayed_will_waits_and_its_client_may_come_back(engine):
    heir = client(engine, "heir", "wills")
    dying = EngineClient(engine, "dying", version=5, expiry=100)
    delayed = WILL._replace(delay=10)
    dying.connect(will=delayed)
    dying.leave(will=True)
    engine.tick(NOW + 5)
    assert heir.payloads() == []
    dying.connect(NOW + 5, will=delayed)
    engine.tick(NOW + 20)
    assert heir.payloads() == []
    dying.leave(NOW + 20, will=True)
    engine.tick(NOW + 31)
    assert heir.payloads() == [b"gone"]
    engine.tick(NOW + 300)
    assert heir.payloads() == []


@pytest.mark.parametrize("how", ["expires", "clean"])
@pytest.mark.conforms("MQTT5-3.1.2-8")
def test_the_end_of_the_session_is_the_latest_time_for_a_will(engine, how):
    heir = client(engine, "heir", "wills")
    dying = EngineClient(engine, "dying", version=5, expiry=10)
    dying.connect(will=WILL._replace(delay=1000))
    dying.leave(will=True)
    if how == "expires":
        engine.tick(NOW + 11)
    else:
        dying.connect(NOW + 1, clean=True)
    assert heir.payloads() == [b"gone"]


def test_void_timers_do_not_pile_up(engine):
    flapping = client(engine, "flapping", "a", expiry=7 * 24 * 3600)
    for i in range(5000):
        flapping.leave(NOW + i)
        flapping.connect(NOW + i)
    assert len(engine._timers) < 2000


@pytest.mark.conforms("MQTT-4.3.3-2", "MQTT5-4.3.3-10", "MQTT5-4.3.3-12")
def test_qos_2_from_a_client_is_published_once(engine):
    reader = client(engine, "reader", "a")
    source = client(engine, "source", expiry=NEVER)
    assert engine.begin_exactly_once(source.session, 7)
    source.publish("a", b"x", 2)
    assert not engine.begin_exactly_once(source.session, 7)
    source.leave()
    source.connect()
    assert not engine.begin_exactly_once(source.session, 7)
    done = []
    assert engine.complete_exactly_once(source.session, 7, lambda: done.append(1))
    assert not engine.complete_exactly_once(source.session, 7, lambda: done.append(2))
    assert done == [1, 2]
    assert engine.begin_exactly_once(source.session, 7)
    assert reader.payloads() == [b"x"]


def test_the_figures_count(engine):
    client(engine, "reader", "a").read()
    client(engine, "source").publish("a", b"x", retain=True)
    figures = engine.figures()
    assert (figures["publish_received"], figures["publish_sent"]) == (1, 1)
    assert (figures["retained"], figures["subscriptions"]) == (1, 1)


def test_the_will_of_a_session_that_ends_does_not_go_to_its_own_share(engine):
    away = client(engine, "away", "$share/g/a", expiry=NEVER)
    away.leave()
    for i in range(3):
        dying = EngineClient(engine, "dying")
        dying.connect(will=Will("a", b"%d" % i, 1, False))
        dying.subscribe("$share/g/a")
        dying.leave(will=True)
    away.connect()
    assert away.payloads() == [b"0", b"1", b"2"]
