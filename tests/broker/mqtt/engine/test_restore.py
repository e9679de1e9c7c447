"""What the store has kept becomes the same sessions again."""

from __future__ import annotations

from thingctl_broker.mqtt.engine.encoder import PlainEncoder
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.restore import restore
from thingctl_broker.mqtt.engine.session import NEVER
from thingctl_broker.mqtt.engine.store import RecordKind
from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
from thingctl_broker.mqtt.server.limits import MqttLimits

NOW = 100.0


class DictRecords:
    """A store in a dict: the keys come in their order, as from a disk."""

    accepting = True

    def __init__(self) -> None:
        self.kinds: dict[int, dict[bytes, bytes]] = {}

    def add(self, kind, key, value) -> None:
        assert key not in self.kinds.get(kind, {})
        self.put(kind, key, value)

    def put(self, kind, key, value) -> None:
        self.kinds.setdefault(kind, {})[key] = value

    def delete(self, kind, key) -> None:
        del self.kinds[kind][key]

    def then(self, kept) -> None:
        kept()

    def load(self, kind):
        return iter(sorted(self.kinds.get(kind, {}).items()))


def client(engine: Engine, name: str, *, window: int = 20):
    session, _ = engine.connect(
        name,
        owner=None,
        thing=None,
        clean=False,
        expiry=NEVER,
        will=None,
        encoder=PlainEncoder(),
        window=window,
        now=NOW,
    )
    session.resume(NOW)
    return session


def restored(store: DictRecords) -> Engine:
    engine = Engine(MqttLimits(), store)
    restore(engine, store, NOW, lambda *_: None)
    return engine


def waiting(engine: Engine, name: str) -> list[bytes]:
    session = engine.sessions.get(name)
    assert session is not None
    return [delivery.message.payload for delivery in (*session.in_flight.values(), *session.queue)]


def test_each_session_has_its_messages_again_in_their_order():
    store = DictRecords()
    engine = Engine(MqttLimits(), store)
    names = [f"client-{n}" for n in range(3)]
    for name in names:
        session = client(engine, name)
        engine.subscribe(session, f"{name}/#", SubscriptionOptions(1))
        engine.subscribe(session, "all", SubscriptionOptions(1))
        engine.subscriptions_changed(session, NOW, lambda: None)
        engine.disconnect(session, NOW, publishes_will=False)
    for n in range(300):  # numbers of more than one byte among them
        engine.publish(Message(f"{names[n % 3]}/x", b"%d" % n, 1), NOW)
    engine.publish(Message("all", b"last", 1), NOW)
    again = restored(store)
    for i, name in enumerate(names):
        assert waiting(again, name) == [*(b"%d" % n for n in range(i, 300, 3)), b"last"]


def test_a_message_of_several_sessions_is_one_record_until_the_last_has_it():
    store = DictRecords()
    engine = Engine(MqttLimits(), store)
    sessions = [client(engine, f"reader-{n}") for n in range(2)]
    for session in sessions:
        engine.subscribe(session, "a", SubscriptionOptions(1))
        engine.subscriptions_changed(session, NOW, lambda: None)
    engine.publish(Message("a", b"x", 1), NOW)
    assert (len(store.kinds[RecordKind.MESSAGE]), len(store.kinds[RecordKind.DELIVERY])) == (1, 2)
    sessions[0].on_puback(1, NOW)
    assert len(store.kinds[RecordKind.MESSAGE]) == 1
    again = restored(store)
    assert (waiting(again, "reader-0"), waiting(again, "reader-1")) == ([], [b"x"])
    last = again.sessions.get("reader-1")
    assert last is not None
    last.attach(PlainEncoder(), 20)
    last.resume(NOW)
    (packet_id,) = last.in_flight
    assert last.on_puback(packet_id, NOW)
    assert not store.kinds[RecordKind.MESSAGE]
    assert not store.kinds[RecordKind.DELIVERY]


def test_a_message_of_one_session_is_one_record():
    store = DictRecords()
    engine = Engine(MqttLimits(), store)
    session = client(engine, "reader")
    engine.subscribe(session, "a", SubscriptionOptions(2))
    engine.subscriptions_changed(session, NOW, lambda: None)
    engine.disconnect(session, NOW, publishes_will=False)
    message = Message("a", b"x", 2, publisher="sensor", properties=b"\x01\x01", expires_at=NOW + 60)
    engine.publish(message, NOW)
    assert not store.kinds.get(RecordKind.MESSAGE)
    again = restored(store).sessions.get("reader")
    assert again is not None
    (delivery,) = again.queue
    assert delivery.qos == 2
    for name in ("topic", "payload", "qos", "publisher", "properties", "expires_at"):
        assert getattr(delivery.message, name) == getattr(message, name), name


def test_what_was_delivered_does_not_come_again():
    store = DictRecords()
    engine = Engine(MqttLimits(), store)
    session = client(engine, "reader")
    engine.subscribe(session, "a", SubscriptionOptions(1))
    engine.subscriptions_changed(session, NOW, lambda: None)
    for n in range(3):
        engine.publish(Message("a", b"%d" % n, 1), NOW)
    assert session.on_puback(2, NOW)
    assert waiting(restored(store), "reader") == [b"0", b"2"]
    for packet_id in (1, 3):
        session.on_puback(packet_id, NOW)
    assert not store.kinds[RecordKind.DELIVERY]


def test_records_are_added_behind_all_others_whatever_session_they_are_of():
    """Or else each commit writes a page of the table for each session."""
    store = DictRecords()
    engine = Engine(MqttLimits(), store)
    for n in range(5):
        session = client(engine, f"client-{n}")
        engine.subscribe(session, "all", SubscriptionOptions(1))
        engine.subscriptions_changed(session, NOW, lambda: None)
        engine.disconnect(session, NOW, publishes_will=False)
    for _ in range(3):
        engine.publish(Message("all", b"x", 1), NOW)
    for kind in (RecordKind.MESSAGE, RecordKind.DELIVERY):
        keys = list(store.kinds[kind])
        assert keys == sorted(keys)
