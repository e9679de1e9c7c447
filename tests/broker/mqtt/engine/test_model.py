"""The engine beside a plain model of MQTT: what it writes to whom, message by message, in any order of events.

A second test puts one fault at a time into the engine, and this comparison has to find each.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.engine_client import Answer, EngineClient
from support.memory_records import MemoryRecords
from support.mqtt_model import Item, MqttModel
from thingctl_broker.mqtt.engine import engine as engine_module
from thingctl_broker.mqtt.engine import subscription_tree
from thingctl_broker.mqtt.engine.encoder import PlainEncoder
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.outbox import Outbox
from thingctl_broker.mqtt.engine.restore import restore
from thingctl_broker.mqtt.engine.retained_messages import RetainedMessages
from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
from thingctl_broker.mqtt.protocol.packets import Will
from thingctl_broker.mqtt.server.limits import MqttLimits

VERSIONS = {"plain": 4, "five": 5, "other": 5}
CLIENTS = st.sampled_from(list(VERSIONS))
TOPICS = st.sampled_from(["a", "a/b", "$x/a"])
FILTERS = st.sampled_from(["a", "a/b", "+", "#", "a/#", "+/b", "$x/#"])
BUSY = 12
"""Messages in flight to a client, at which nothing more is published: the model has no window."""


class Comparison(RuleBasedStateMachine):
    """The engine and the model, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.count = 0
        self.model = MqttModel()
        self.store = MemoryRecords()
        self.clients: dict[str, EngineClient] = {}
        self.begin()

    def begin(self) -> None:
        self.engine = Engine(MqttLimits(), self.store)
        restore(self.engine, self.store, self.now, lambda *_: None)
        self.clients = {}

    def is_connected(self, client: str) -> bool:
        session = self.model.sessions.get(client)
        return session is not None and session.connected

    def is_calm(self) -> bool:
        return all(len(session.items) < BUSY for session in self.model.sessions.values())

    @rule(
        client=CLIENTS,
        expiry=st.sampled_from([0, 100]),
        clean=st.booleans(),
        will=st.none()
        | st.builds(lambda q, r, d: (q, r, d), st.integers(0, 2), st.booleans(), st.sampled_from([0, 5])),
    )
    def connect(self, client, expiry, clean, will):
        version = VERSIONS[client]
        if self.is_connected(client):
            self.clients[client].leave(self.now, will=True)
        made = self.clients[client] = EngineClient(self.engine, client, version=version, expiry=expiry)
        words = None
        if will is not None:
            self.count += 1
            qos, retain, delay = will
            words = Will("a", b"will %d" % self.count, qos, retain, delay if version == 5 else 0)
        present = made.connect(self.now, clean=clean, will=words)
        expected = self.model.connect(
            client, self.now, version=version, expiry=expiry, clean=clean, will=words
        )
        assert present == expected

    @rule(client=CLIENTS, politely=st.booleans())
    def leave(self, client, politely):
        if self.is_connected(client):
            self.clients[client].leave(self.now, will=not politely)
            self.model.lose(client, self.now, politely=politely)

    @rule(
        client=CLIENTS,
        topic_filter=FILTERS,
        qos=st.integers(0, 2),
        no_local=st.booleans(),
        as_published=st.booleans(),
        handling=st.integers(0, 2),
        identifier=st.integers(0, 3),
    )
    def subscribe(self, client, topic_filter, *, qos, no_local, as_published, handling, identifier):
        if not (self.is_connected(client) and self.is_calm()):
            return
        options = SubscriptionOptions(qos)
        if VERSIONS[client] == 5:
            options = SubscriptionOptions(qos, no_local, as_published, handling, identifier)
        fields = options._asdict()
        self.clients[client].subscribe(topic_filter, fields.pop("qos"), self.now, **fields)
        self.model.subscribe(client, topic_filter, options, self.now)

    @rule(client=CLIENTS, topic_filter=FILTERS)
    def unsubscribe(self, client, topic_filter):
        if self.is_connected(client):
            self.engine.unsubscribe(self.clients[client].session, topic_filter)
            self.engine.subscriptions_changed(self.clients[client].session, lambda: None)
            self.model.unsubscribe(client, topic_filter)

    @precondition(is_calm)
    @rule(
        client=CLIENTS,
        topic=TOPICS,
        qos=st.integers(0, 2),
        retain=st.booleans(),
        empty=st.integers(0, 5).map(lambda n: not n),
        expiry=st.none() | st.sampled_from([3, 30]),
    )
    def publish(self, client, topic, *, qos, retain, empty, expiry):
        if not self.is_connected(client):
            return
        self.count += 1
        payload = b"" if empty and retain else b"%d" % self.count
        expires_at = None if expiry is None else self.now + expiry
        message = Message(topic, payload, qos, retain, client, expires_at=expires_at)
        self.engine.publish(message, self.now)
        self.model.publish(client, topic, payload, qos, self.now, retain=retain, expires_at=expires_at)

    @rule(client=CLIENTS, which=st.integers(0, 20))
    def acknowledge(self, client, which):
        if not self.is_connected(client):
            return
        items = [item for item in self.model.sessions[client].items if item.state != "waits"]
        if not items:
            return
        item = items[which % len(items)]
        session = self.clients[client].session
        if item.qos == 1:
            assert session.on_puback(item.packet_id, self.now)
        elif item.state == "sent":
            session.on_pubrec(item.packet_id, 0, self.now)
        else:
            session.on_pubcomp(item.packet_id, self.now)
        self.model.acknowledge(client, item)

    @rule(seconds=st.sampled_from([1, 4, 40, 101]))
    def wait(self, seconds):
        self.now += seconds
        self.engine.tick(self.now)
        self.model.tick(self.now)

    @rule()
    def restart(self):
        self.begin()
        self.model.restart(self.now)

    @invariant()
    def everybody_has_what_the_model_says(self):
        for client, session in self.model.sessions.items():
            if session.connected:
                self.compare(client, session)
        assert {session.client_id for session in self.engine.sessions} == set(self.model.sessions)
        found = {(m.topic, m.payload) for m in self.engine.retained.match("#", self.now)}
        found |= {(m.topic, m.payload) for m in self.engine.retained.match("$x/#", self.now)}
        assert found == {(item.topic, item.payload) for item in self.model.retained.values()}

    def compare(self, client, session):
        heard = self.clients[client].read()
        wrote, session.wrote = session.wrote, []
        expected = Counter(packet[:5] for packet in wrote)
        found = Counter()
        for packet in heard:
            if isinstance(packet, Answer):
                found["PUBREL",] += 1
                continue
            ids = tuple(sorted(packet.properties.get("SubscriptionIdentifier", ())))
            found[packet.topic, packet.payload, packet.qos, packet.retain, ids] += 1
            self.identify(session, packet)
        assert found == expected, f"{client}: {heard} instead of {wrote}"
        unknown = any(packet[-1] is None for packet in wrote)
        if not unknown:
            assert sum(getattr(packet, "dup", False) for packet in heard) == sum(
                packet[-1] is True for packet in wrote
            )
        self.check_order(heard)

    def identify(self, session, packet):
        """Note the packet identifier of a message; what is sent again has the one that it had."""
        if not packet.qos:
            return
        alike = [
            i
            for i in session.items
            if (i.payload, i.retain, i.qos) == (packet.payload, packet.retain, packet.qos)
        ]
        known = [item for item in alike if item.packet_id == packet.packet_id]
        fresh = [item for item in alike if not item.packet_id or item.dup is None]
        item: Item = (known or fresh)[0]
        item.packet_id = packet.packet_id
        if item.dup is None and item.state == "sent":
            item.dup = packet.dup

    def check_order(self, heard):
        latest: dict[tuple[str, bool], int] = {}
        for packet in heard:
            if isinstance(packet, Answer) or packet.retain or not packet.payload.isdigit():
                continue
            key = packet.topic, packet.qos > 0
            number = int(packet.payload)
            assert latest.get(key, 0) < number, f"out of order: {heard}"
            latest[key] = number


SEARCH = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

Comparison.TestCase.settings = SEARCH
TestComparison = Comparison.TestCase


def without(name):
    return lambda monkeypatch: monkeypatch.setattr(*name)


def highest_of_the_publisher(monkeypatch):
    deliver = Outbox.deliver
    monkeypatch.setattr(
        Outbox,
        "deliver",
        lambda self, message, qos, now, **more: deliver(self, message, message.qos, now, **more),
    )


def keeps_retain(monkeypatch):
    deliver = Outbox.deliver
    monkeypatch.setattr(
        Outbox,
        "deliver",
        lambda self, message, qos, now, *, retain=False, ids=(): deliver(
            self, message, qos, now, retain=message.retain, ids=ids
        ),
    )


def forgets_in_flight(monkeypatch):
    def resume(self, now):
        self.in_flight.clear()
        self.pump(now)

    monkeypatch.setattr(Outbox, "resume", resume)


def never_dup(monkeypatch):
    encode = PlainEncoder.acknowledged

    def acknowledged(self, delivery, now):
        delivery.is_sent = False
        return encode(self, delivery, now)

    monkeypatch.setattr(PlainEncoder, "acknowledged", acknowledged)


def match_with(change):
    def fault(monkeypatch):
        make = subscription_tree._match_of
        monkeypatch.setattr(
            subscription_tree, "_match_of", lambda s, options: change(make(s, options), options)
        )

    return fault


def publishes_no_will(monkeypatch):
    monkeypatch.setattr(Engine, "_publish_will", lambda self, session, now: None)


def dollar_is_plain(monkeypatch):
    walk = subscription_tree._walk
    monkeypatch.setattr(subscription_tree, "_walk", lambda root, topic: walk(root, topic.replace("$", "", 1)))


def retained_are_not_cleared(monkeypatch):
    monkeypatch.setattr(RetainedMessages, "clear", lambda self, topic: False)


def releases_again(monkeypatch):
    send = Outbox._send_again

    def send_again(self, delivery, now):
        delivery.released = False
        send(self, delivery, now)

    monkeypatch.setattr(Outbox, "_send_again", send_again)


FAULTS = {
    "the QoS of delivery is the publisher's": highest_of_the_publisher,
    "RETAIN is always as published": keeps_retain,
    "what is in flight is forgotten": forgets_in_flight,
    "DUP is never set": never_dup,
    "No Local is ignored": match_with(lambda match, options: match._replace(is_own_other=False)),
    "overlapping filters bring the lowest QoS": match_with(
        lambda match, options: match._replace(qos=min(o.qos for o in options))
    ),
    "subscription identifiers are lost": match_with(
        lambda match, options: match._replace(subscription_ids=())
    ),
    "Retain As Published is ignored": match_with(
        lambda match, options: match._replace(retain_as_published=False)
    ),
    "retained messages come with every SUBSCRIBE": without((engine_module, "ONLY_NEW", 0)),
    "no will is published": publishes_no_will,
    "wildcards match $ topics": dollar_is_plain,
    "an empty retained message clears nothing": retained_are_not_cleared,
    "a released QoS 2 message is sent again": releases_again,
    "messages never expire": without((Message, "seconds_left", lambda self, now: None)),
    "sessions never expire": without((engine_module.Engine, "tick", lambda self, now: None)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(monkeypatch, fault):
    FAULTS[fault](monkeypatch)
    search = settings(SEARCH, phases=[Phase.generate], max_examples=400)
    with pytest.raises((AssertionError, KeyError, IndexError)):
        run_state_machine_as_test(Comparison, settings=search)
