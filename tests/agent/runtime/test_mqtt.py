"""The one module that speaks paho, with a real broker."""

from __future__ import annotations

import select
import socket

import paho.mqtt.client as paho
import pytest

from agent.harness import mosquitto, until
from thingctl_agent.runtime.address import BrokerAddress
from thingctl_agent.runtime.boot_id import since_boot
from thingctl_agent.runtime.mqtt import CONNECT_TIMEOUT, PACKET_MAX, MqttConnection


class Recorder:
    def __init__(self):
        self.events = []

    def on_connected(self):
        self.events.append("connected")

    def on_subscribed(self, *, extras):
        self.events.append(f"subscribed {extras}")

    def on_message(self, topic, payload, *, retain):
        self.events.append((topic, payload, retain))

    def on_acknowledged(self, receipt):
        self.events.append(f"acknowledged {receipt}")

    def on_lost(self, reason):
        self.events.append(f"lost: {reason}")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture
def recorder():
    return Recorder()


def test_a_will_is_published_when_the_connection_is_lost(broker, recorder):
    heard = []
    listener = paho.Client(paho.CallbackAPIVersion.VERSION2, "listener")
    listener.on_message = lambda _client, _data, message: heard.append((message.topic, message.payload))
    subscribed = []
    listener.on_subscribe = lambda *_: subscribed.append(1)
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    listener.subscribe("wills/#", 1)
    until(lambda: subscribed)
    for close in (False, True):
        connection = connect(broker.port, recorder, client_id=f"w{close}", will=(f"wills/{close}", b"gone"))
        serve(connection, recorder, lambda events, count=1 + close: events.count("connected") == count)
        if close:
            connection.close()
        else:
            connection.drop()
    until(lambda: heard)
    listener.publish("wills/last", b"", 1)
    until(lambda: len(heard) > 1)
    listener.disconnect()
    listener.loop_stop()
    assert heard == [("wills/False", b"gone"), ("wills/last", b"")]


def serve(connection, recorder, enough, seconds=5.0):
    def step():
        if connection.fileno() >= 0:
            readable = bool(select.select([connection.fileno()], [], [], 0.01)[0])
            connection.serve(since_boot(), readable=readable)
        return enough(recorder.events)

    until(step, seconds)


def connect(port, recorder, **options):
    connection = MqttConnection(BrokerAddress("127.0.0.1", port, **{"client_id": "c1", **options}), recorder)
    connection.open()
    connection.begin(since_boot())
    return connection


def test_it_connects_subscribes_publishes_and_receives(broker, recorder):
    connection = connect(broker.port, recorder)
    serve(connection, recorder, lambda e: "connected" in e)
    connection.subscribe([("a/+", 1), ("b", 0)])
    serve(connection, recorder, lambda e: "subscribed True" in e)
    connection.publish("a/1", b"hello", receipt="r1")
    serve(connection, recorder, lambda e: "acknowledged r1" in e and ("a/1", b"hello", False) in e)
    connection.close()
    assert not any(str(e).startswith("lost") for e in recorder.events)


def test_tcp_nodelay_is_set(broker, recorder):
    connection = connect(broker.port, recorder)
    sock = connection._client.socket()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.drop()


def test_publishing_never_touches_the_socket(broker, recorder):
    """Else workers and the loop would race on it."""
    connection = connect(broker.port, recorder)
    serve(connection, recorder, lambda e: "connected" in e)
    connection.publish("a/1", b"x" * 100)
    assert connection.wants_write
    connection.drop()


def test_a_lost_connection_is_told_once(broker, recorder):
    connection = connect(broker.port, recorder)
    serve(connection, recorder, lambda e: "connected" in e)
    other = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="c1")
    other.connect("127.0.0.1", broker.port)
    serve(connection, recorder, lambda e: any(str(x).startswith("lost") for x in e))
    connection.serve(since_boot(), readable=False)
    connection.drop()
    assert len([e for e in recorder.events if str(e).startswith("lost")]) == 1
    other.disconnect()


def test_a_connack_that_does_not_come_in_time_is_told(recorder):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = connect(silent.getsockname()[1], recorder)
        now = since_boot()
        connection.serve(now, readable=False)
        assert recorder.events == []
        assert connection.next_due == pytest.approx(now + CONNECT_TIMEOUT, abs=1)
        connection.serve(now + CONNECT_TIMEOUT + 1, readable=False)
        (said,) = recorder.events
        assert said.startswith("lost: the broker did not answer CONNECT in time")


def test_it_pings_when_nothing_else_is_said_and_misses_the_answer(recorder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = connect(server.getsockname()[1], recorder, keepalive=5)
        peer, _ = server.accept()
        with peer:
            connection.serve(since_boot(), readable=False)
            peer.recv(100)
            peer.sendall(b"\x20\x02\x00\x00")
            serve(connection, recorder, lambda e: "connected" in e)
            now = since_boot()
            assert connection.next_due == pytest.approx(now + 5, abs=0.5)
            client_now = [now]
            import paho.mqtt.client as module

            old = module.time_func
            module.time_func = lambda: client_now[0] - since_boot() + old()
            try:
                client_now[0] = connection.next_due
                connection.serve(client_now[0], readable=False)
                peer.settimeout(5)
                assert peer.recv(2) == b"\xc0\x00"
                assert recorder.events == ["connected"]
                for _ in range(2):
                    client_now[0] = connection.next_due + 0.1
                    connection.serve(client_now[0], readable=False)
            finally:
                module.time_func = old
            assert recorder.events[1].startswith("lost")


def test_a_packet_that_is_too_long_ends_the_connection(recorder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = connect(server.getsockname()[1], recorder)
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"\x20\x02\x00\x00\x30\xff\xff\xff\x7f" + b"x" * 1000)
            serve(connection, recorder, lambda e: any(f"more than {PACKET_MAX}" in str(x) for x in e))


def test_a_refused_subscription_to_requests_is_told(recorder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = connect(server.getsockname()[1], recorder)
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"\x20\x02\x00\x00")
            serve(connection, recorder, lambda e: "connected" in e)
            connection.subscribe([("r", 1), ("c", 1)])
            peer.sendall(b"\x90\x04\x00\x01\x80\x01")
            serve(connection, recorder, lambda e: any("refused the subscription" in str(x) for x in e))


def test_a_refused_extra_is_no_harm(recorder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = connect(server.getsockname()[1], recorder)
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"\x20\x02\x00\x00")
            serve(connection, recorder, lambda e: "connected" in e)
            connection.subscribe([("r", 1), ("c", 1)])
            peer.sendall(b"\x90\x04\x00\x01\x01\x80")
            serve(connection, recorder, lambda e: "subscribed False" in e)
            connection.drop()


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"", "closed the connection before it answered: if this port speaks TLS, use mqtts://"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "speaks TLS: use mqtts://"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP server answers at 127.0.0.1:"),
        (b"220 mail.example ESMTP\r\n", "is no MQTT broker"),
        (b"\x20\x02\x00\x05", "no password was sent"),
    ],
)
def test_what_answers_instead_of_a_broker_is_named(recorder, sent, text):
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = connect(server.getsockname()[1], recorder)
        peer, _ = server.accept()
        with peer:
            connection.serve(since_boot(), readable=False)
            peer.recv(100)
            peer.sendall(sent)
        serve(connection, recorder, lambda e: any(text in str(x) for x in e))
