"""The engine beside a plain model of MQTT: any order of events, and every message compared.

``engine_faults`` are mistakes in the engine; the comparison must find each of them.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from support.engine_client import NEVER, NOW, EngineClient, Heard
from support.engine_faults import FAULTS
from support.memory_records import MemoryRecords
from support.mqtt_model import Copy, LastWill, Model, Options, Published, fits
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.restore import restore
from thingctl_broker.mqtt.engine.session import Session
from thingctl_broker.mqtt.protocol.packets import PacketType, Will
from thingctl_broker.mqtt.server.limits import MqttLimits

WALL = 1_700_000_000.0
CLIENTS = st.sampled_from(["x", "y", "z"])
TOPICS = st.sampled_from(["a", "a", "a/b", "$d/a"])
FILTERS = st.sampled_from(
    ["a", "a", "a/b", "a/#", "+", "#", "+/b", "$d/#", "+/a", "$share/g/a", "$share/g/a", "$share/h/#"]
)
QOS = st.sampled_from([0, 1, 1, 2, 2])
OPTIONS = st.builds(Options, QOS, st.booleans(), st.booleans(), st.integers(0, 2), st.integers(0, 3))
WILLS = st.none() | st.tuples(TOPICS, QOS, st.booleans(), st.sampled_from([0, 5, 5]))


class EngineBesideModel(RuleBasedStateMachine):
    """Three clients, whatever they do; an event of a client that is away connects it."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryRecords()
        self.model = Model()
        self.now = NOW
        self.copies: list[tuple[bytes, Copy]] = []
        self.wills: list[Published] = []
        self.number = 0
        self.clients: dict[str, EngineClient] = {}
        self.begin()

    def begin(self) -> None:
        self.engine = Engine(MqttLimits(), self.store, wall=WALL)
        restore(self.engine, self.store, self.now, lambda *_: None)
        deliver = Session.deliver

        def delivers(session, message, qos, now, *, retain=False, ids=()):
            copy = Copy(session.client_id, qos, retain, tuple(sorted(ids)))
            self.copies.append((message.payload, copy))
            deliver(session, message, qos, now, retain=retain, ids=ids)

        self.delivers = delivers

    def call(self, function, *arguments, **named):
        """Call into the engine, and note the copies it makes."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "deliver", self.delivers)
            return function(*arguments, **named)

    def payload(self) -> bytes:
        self.number += 1
        return b"%d" % self.number

    def is_here(self, name) -> bool:
        session = self.model.sessions.get(name)
        return session is not None and session.is_connected

    def ready(self, name) -> EngineClient:
        if not self.is_here(name):
            self.connect(name)
        return self.clients[name]

    # What the model says of what the engine has done.

    def follow(self, messages: list[Published]) -> None:
        """The model delivers messages, by the copies that the engine made."""
        for message in messages:
            self.model.retain(message)
            made = [copy for payload, copy in self.copies if payload == message.payload]
            assert Counter(made) in self.model.choices(message), (message, made)
            for copy in made:
                self.model.deliver(message, copy, self.now)
        known = {message.payload for message in messages}
        assert {payload for payload, _ in self.copies} <= known, "a message that the model does not know"
        self.copies.clear()

    @invariant()
    def every_client_gets_what_the_model_says(self) -> None:
        for name, session in self.model.sessions.items():
            if session.is_connected:
                self.compare(self.clients[name], session)
        assert {s.client_id for s in self.engine.sessions} == set(self.model.sessions)
        kept = [*self.engine.retained.match("#", self.now), *self.engine.retained.match("$d/#", self.now)]
        assert {m.topic: m.payload for m in kept} == self.model.kept(self.now)
        assert len(kept) == len(self.model.kept(self.now))

    def compare(self, client, session) -> None:
        heard = client.read()
        expected, session.packets = session.packets, []
        for kind in (0, 1, 2, "PUBREL"):
            got = [p for p in heard if (p.qos if isinstance(p, Heard) else p.kind.name) == kind]
            wanted = [p for p in expected if p.kind == kind]
            assert [self.seen(p) for p in got] == [self.said(p, session) for p in wanted], client.client_id
            for packet, said in zip(got, wanted, strict=True):
                self.note_id(session, packet, said)
        assert len(heard) == len(expected)

    @staticmethod
    def seen(packet):
        if not isinstance(packet, Heard):
            return packet.kind
        properties = packet.properties
        return (
            packet.topic,
            packet.payload,
            packet.retain,
            packet.dup,
            sorted(properties.get("SubscriptionIdentifier", [])),
            properties.get("MessageExpiryInterval"),
        )

    def said(self, packet, session):
        if packet.kind == "PUBREL":
            return PacketType.PUBREL
        message, is_5 = packet.message, session.version == 5
        left = None if message.expires_at is None or not is_5 else max(0, int(message.expires_at - self.now))
        ids = sorted(packet.ids) if is_5 else []
        return (message.topic, message.payload, packet.retain, packet.dup, ids, left)

    @staticmethod
    def note_id(session, packet, said) -> None:
        exchange = said.exchange
        if exchange is None:
            return
        if exchange.packet_id:
            assert packet.packet_id == exchange.packet_id, "a message keeps its identifier"
        taken = [e.packet_id for e in session.in_flight if e is not exchange]
        assert packet.packet_id not in taken, "an identifier means one message"
        exchange.packet_id = packet.packet_id

    # Connections.

    @initialize(
        versions=st.tuples(*[st.sampled_from([4, 5, 5])] * 3),
        windows=st.tuples(*[st.sampled_from([1, 2, 20])] * 3),
        subscriptions=st.tuples(*[st.none() | st.tuples(FILTERS, OPTIONS)] * 3),
    )
    def come(self, versions, windows, subscriptions) -> None:
        for name, version, window, subscription in zip("xyz", versions, windows, subscriptions, strict=True):
            self.connect(name, version=version, window=window)
            if subscription is not None:
                self.subscribe(name, *subscription)

    @rule(
        name=CLIENTS,
        version=st.sampled_from([4, 5, 5]),
        clean=st.sampled_from([False, False, True]),
        expiry=st.sampled_from([0, 10, 20, NEVER]),
        window=st.sampled_from([1, 2, 20]),
        will=WILLS,
    )
    def connect(self, name, *, version=5, clean=False, expiry=20, window=20, will=None) -> None:
        if self.is_here(name):
            self.leave(name, True)
        if version == 4:
            expiry, window = 0 if clean else NEVER, 20
        model_will = engine_will = None
        if will is not None:
            topic, qos, retain, delay = will
            delay = delay if version == 5 else 0
            model_will = LastWill(topic, self.payload(), qos, retain, delay)
            engine_will = Will(topic, model_will.payload, qos, retain, delay)
        client = EngineClient(self.engine, name, version=version, expiry=expiry)
        self.clients[name] = client
        present, wills = self.model.connect(
            name, version=version, clean=clean, expiry=expiry, window=window, will=model_will, now=self.now
        )
        was = self.call(client.connect, self.now, clean=clean, will=engine_will, window=window)
        assert was == present
        self.follow(wills)
        self.model.go_on(self.model.sessions[name], self.now)

    @rule(name=CLIENTS, will=st.booleans())
    def leave(self, name, will) -> None:
        if self.is_here(name):
            wills = self.model.disconnect(name, publishes_will=will, now=self.now)
            self.call(self.clients[name].leave, self.now, will=will)
            self.follow(wills)

    @rule(seconds=st.sampled_from([1, 3, 6, 12]))
    def time_passes(self, seconds) -> None:
        if seconds:
            self.every_client_gets_what_the_model_says()
        self.now += seconds
        wills = self.model.tick(self.now)
        self.call(self.engine.tick, self.now)
        self.follow(wills)

    @rule()
    def restart(self) -> None:
        self.model.restart(self.now)
        self.begin()
        self.time_passes(0)

    # Subscriptions.

    @rule(name=CLIENTS, topic_filter=FILTERS, options=OPTIONS)
    def subscribe(self, name, topic_filter, options) -> None:
        for _ in range(2 if options.retain_handling == 1 else 1):
            self.subscribe_once(name, topic_filter, options)

    def subscribe_once(self, name, topic_filter, options) -> None:
        client = self.ready(name)
        if client.version == 4:
            options = Options(options.qos)
        if topic_filter.startswith("$share/"):
            options = options._replace(no_local=False)
        expected = self.model.subscribe(name, topic_filter, options, self.now)
        self.call(client.subscribe, topic_filter, now=self.now, **options._asdict())
        assert Counter(self.copies) == Counter((m.payload, copy) for m, copy in expected)
        retained = {m.payload: m for m, _ in expected}
        for payload, copy in self.copies:
            self.model.deliver(retained[payload], copy, self.now)
        self.copies.clear()

    @rule(name=CLIENTS, topic_filter=FILTERS)
    def unsubscribe(self, name, topic_filter) -> None:
        client = self.ready(name)
        was = self.engine.unsubscribe(client.session, topic_filter)
        self.engine.subscriptions_changed(client.session, lambda: None)
        assert was == self.model.unsubscribe(name, topic_filter)

    # Messages.

    @rule(
        name=CLIENTS,
        topic=TOPICS,
        qos=QOS,
        retain=st.booleans(),
        is_empty=st.sampled_from([False, False, True]),
        expiry=st.sampled_from([None, None, 2, 5]),
        packet_id=st.integers(1, 2),
        times=st.sampled_from([1, 1, 3]),
    )
    def publish(self, name, topic, *, qos, retain, is_empty, expiry, packet_id, times) -> None:
        client = self.ready(name)
        expires_at = None if expiry is None or client.version == 4 else self.now + expiry
        for _ in range(times):
            payload = b"" if is_empty and retain else self.payload()
            message = Published(topic, payload, qos, retain, name, expires_at)
            self.send(client, message, packet_id)
            if times > 1:
                self.release(name, packet_id)

    def send(self, client, message, packet_id) -> None:
        received = self.model.sessions[client.client_id].received
        if message.qos == 2:
            is_first = self.engine.begin_exactly_once(client.session, packet_id)
            assert is_first == (packet_id not in received), "exactly once"
            received.add(packet_id)
            if not is_first:
                return
        answers = []
        self.call(self.engine.receive, self.made(message), lambda _receivers: answers.append(1), self.now)
        assert answers == [1]
        self.follow([message])

    @staticmethod
    def made(message) -> Message:
        return Message(*message[:5], expires_at=message.expires_at)

    @rule(
        name=CLIENTS,
        source=CLIENTS,
        topic=TOPICS,
        qos=QOS,
        retain=st.booleans(),
        expiry=st.sampled_from([None, 2, 5]),
        seconds=st.sampled_from([0, 1, 3, 6]),
        window=st.sampled_from([1, 2, 20]),
    )
    def come_back(self, name, source, *, topic, qos, retain, expiry, seconds, window) -> None:
        """Messages come while a client is away, and some time passes."""
        self.ready(name)
        self.leave(name, True)
        sent = {"qos": qos, "retain": retain, "expiry": expiry}
        if source != name:
            self.publish(source, topic, is_empty=False, packet_id=3, times=2, **sent)
        self.time_passes(seconds)
        if not self.is_here(name):
            self.connect(name, window=window)

    @rule(name=CLIENTS, packet_id=st.integers(1, 2))
    def release(self, name, packet_id) -> None:
        client = self.ready(name)
        received = self.model.sessions[name].received
        was = self.engine.complete_exactly_once(client.session, packet_id, lambda: None)
        assert was == (packet_id in received)
        received.discard(packet_id)

    @rule(which=st.integers(0, 20), refuses=st.sampled_from([False, False, False, True]))
    def answer(self, which, refuses) -> None:
        """PUBACK, PUBREC or PUBCOMP, for any message that a client has."""
        waiting = [
            (name, exchange)
            for name, session in self.model.sessions.items()
            if session.is_connected
            for exchange in self.model.waiting_for(name)
        ]
        if not waiting:
            return
        name, exchange = waiting[which % len(waiting)]
        packet_id, session = exchange.packet_id, self.clients[name].session
        if exchange.copy.qos == 1:
            assert session.on_puback(packet_id, self.now)
        elif exchange.is_released:
            session.on_pubcomp(packet_id, self.now)
        else:
            session.on_pubrec(packet_id, 0x80 if refuses else 0, self.now)
        if exchange.copy.qos == 2 and not refuses and not exchange.is_released:
            self.model.take(name, exchange)
        else:
            self.model.complete(name, exchange, self.now)


def run(examples: int) -> None:
    """Run the comparison; the same examples each time. Raises AssertionError for a difference."""
    run_state_machine_as_test(
        EngineBesideModel,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_engine_delivers_what_the_model_says():
    run(300)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/#", "a", True),
        ("+", "a/b", False),
        ("#", "$d/a", False),
        ("+/a", "$d/a", False),
        ("$d/#", "$d/a", True),
        ("a/+", "a", False),
    ],
)
def test_the_model_matches_as_the_standard_says(topic_filter, topic, expected):
    assert fits(topic_filter, topic) == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_the_model_finds(fault, monkeypatch):
    FAULTS[fault](monkeypatch)
    with pytest.raises(AssertionError):
        run(300)
