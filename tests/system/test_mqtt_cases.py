"""What users met at other brokers, beside mosquitto as the reference: QoS, retained messages, windows, shares, figures."""

from __future__ import annotations

import pytest

from support.peers import Peer
from support.processes import Serving, serving
from thingctl_broker.mqtt.protocol.packets import PacketType

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("none_stays_open")]


def serving_with(tmp_path, settings: str):
    """A broker with these lines in its broker.toml."""
    config = tmp_path / "broker.toml"
    config.write_text(settings)
    return serving(tmp_path / "data", "--config", str(config))


def settle(message, client: Peer) -> None:
    """Answer a message at its QoS."""
    if message.qos == 1:
        client.acknowledge(message)
    elif message.qos == 2:
        client.complete(message)


@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("subscribed", [0, 1, 2])
def test_the_qos_is_the_lower_of_the_two(address, published, subscribed, retain):
    source, client = Peer(address, "source"), Peer(address, "client")
    if retain:
        source.publish("state", b"on", published, retain=True)
        source.ping()
    assert client.subscribe("state", qos=subscribed) == [subscribed]
    if not retain:
        source.publish("state", b"on", published)
    (message,) = client.messages(1)
    assert (message.payload, message.qos, message.retain) == (b"on", min(published, subscribed), retain)
    settle(message, client)
    client.ping()


@pytest.mark.parametrize("published", [1, 2])
@pytest.mark.parametrize("subscribed", [1, 2])
def test_a_message_that_waited_has_the_lower_qos_too(address, published, subscribed):
    client = Peer(address, "client", clean=False)
    client.subscribe("state", qos=subscribed)
    client.leave()
    Peer(address, "source").publish("state", b"on", published)
    client = Peer(address, "client", clean=False)
    (message,) = client.messages(1)
    assert (message.qos, message.dup) == (min(published, subscribed), False)


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [0, 1, 2])
@pytest.mark.parametrize("kept", [False, True], ids=["on one connection", "of a kept session"])
def test_a_new_subscription_to_the_same_filter_replaces_the_old_one(address, first, second, kept):
    client = Peer(address, "client", clean=not kept)
    assert client.subscribe("state", qos=first) == [first]
    if kept:
        client.reset()
        client = Peer(address, "client", clean=False)
        assert client.present
    assert client.subscribe("state", qos=second) == [second]
    Peer(address, "source").publish("state", b"on", 2)
    (message,) = client.messages(1)
    assert message.qos == second
    settle(message, client)
    client.ping()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_long_retained_message_reaches_who_is_there_and_who_comes(address, qos):
    payload = bytes(70_000)
    source, client = Peer(address, "source"), Peer(address, "client")
    client.subscribe("devices", qos=0)
    source.publish("devices", payload, qos, retain=True)
    assert [(m.payload, m.retain) for m in client.messages(1)] == [(payload, False)]
    late = Peer(address, "late")
    late.subscribe("devices", qos=0)
    assert [(m.payload, m.retain) for m in late.messages(1)] == [(payload, True)]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("limit", ["retained = 2", "retained_bytes = 2000"])
def test_a_retained_message_without_room_is_delivered_live(tmp_path, limit, qos):
    with serving_with(tmp_path, f"[limits]\n{limit}\n") as serve:
        source, client = Peer(serve.mqtt_address, "source"), Peer(serve.mqtt_address, "client")
        client.subscribe("state/#", qos=0)
        for i in range(10):
            source.publish(f"state/{i}", b"%d" % i * 500, qos, retain=True)
        assert [m.payload[:1] for m in client.messages(10)] == [b"%d" % i for i in range(10)]
        late = Peer(serve.mqtt_address, "late")
        late.subscribe("state/#", "end", qos=0)
        source.publish("end", b"end")
        topics = []
        while "end" not in topics:
            topics += [m.topic for m in late.messages(1)]
        assert 1 < len(topics) < 10


@pytest.mark.parametrize("kept", [False, True], ids=["live", "queued"])
def test_no_more_than_twenty_messages_are_unacknowledged(address, kept):
    client = Peer(address, "client", clean=not kept)
    client.subscribe("news")
    if kept:
        client.leave()
    source = Peer(address, "source")
    for i in range(60):
        source.publish("news", b"%d" % i)
    if kept:
        client = Peer(address, "client", clean=False)
    heard = client.messages(20)
    client.ping()
    for i in range(40):
        client.acknowledge(heard[i])
        heard += client.messages(1)
    assert [m.payload for m in heard] == [b"%d" % i for i in range(60)]
    client.ping()


def test_a_connection_that_takes_over_gets_what_the_old_one_did_not_acknowledge(address):
    old = Peer(address, "client", clean=False)
    old.subscribe("news")
    source = Peer(address, "source")
    for i in range(10):
        source.publish("news", b"%d" % i)
    old.messages(10)
    new = Peer(address, "client", clean=False)
    assert new.present
    assert [(m.payload, m.dup) for m in new.messages(10)] == [(b"%d" % i, True) for i in range(10)]
    new.ping()


def test_each_message_goes_to_one_client_of_a_share(address):
    members = [Peer(address, f"member-{i}") for i in range(3)]
    for member in members:
        assert member.subscribe("$share/group/jobs/+") == [1]
    outside = Peer(address, "outside")
    outside.subscribe("jobs/#")
    source = Peer(address, "source")
    for i in range(12):
        source.publish(f"jobs/{i}", b"%d" % i)
    assert len(outside.messages(12)) == 12
    done = []
    for member in members:
        member.send(b"\xc0\x00")
        while (frame := member.receive()).first >> 4 == PacketType.PUBLISH:
            done.append(member.parse(frame).payload)
    assert sorted(done, key=int) == [b"%d" % i for i in range(12)]


def test_overlapping_filters_give_one_copy_of_the_highest_qos(tmp_path):
    """[MQTT-3.3.5-1]; mosquitto 2.0 gives one copy, too, at the QoS of any of the filters."""
    with serving(tmp_path / "data") as serve:
        _one_copy(serve.mqtt_address)


def _one_copy(address):
    client = Peer(address, "client")
    client.subscribe("a", qos=0)
    client.subscribe("+", qos=2)
    client.subscribe("#", qos=1)
    Peer(address, "source").publish("a", b"x", 2)
    (message,) = client.messages(1)
    assert message.qos == 2
    client.complete(message)
    client.ping()


@pytest.fixture
def figures(tmp_path):
    with serving_with(tmp_path, "[mqtt]\nsys_interval = 1\n") as serve:
        yield serve


def test_an_observer_gets_the_brokers_figures_and_no_other_client_does(figures: Serving):
    observer, thing = Peer(figures.mqtt_address, "@exporter"), Peer(figures.mqtt_address, "thing")
    assert observer.subscribe("$SYS/#", qos=0) == [0]
    thing.subscribe("#", qos=0)
    while observer.messages(1)[0].topic != "$SYS/broker/clients/connected":
        pass
    thing.ping()
