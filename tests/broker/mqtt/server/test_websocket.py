"""MQTT over WebSocket, with the websockets library and paho as clients."""

from __future__ import annotations

import asyncio
import threading

import paho.mqtt.client as paho
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.brokers import front_broker, plugin_broker
from support.waits import eventually
from thingctl_broker.http.server.server import HttpServer
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.fields import encode_length
from thingctl_broker.mqtt.protocol.packets import Connect
from thingctl_broker.mqtt.server.limits import MqttLimits
from thingctl_broker.mqtt.server.origins import AllowedOrigins
from thingctl_broker.mqtt.server.websocket import PATH, WebSocket
from thingctl_broker.system.addresses import Address, bind_tcp, bound_to
from thingctl_broker.things.mqtt_clients import Carrier
from thingctl_protocol.statuses import Status

CONNECT = packets.encode_connect(Connect("lamp", True, 60, None, None, None))
SUBSCRIBE = packets.encode_subscribe(1, [("$emqx/commands/things/lamp/executions/+/request", 1)])


class NothingElse:
    """An HTTP application that is not asked in these tests."""

    def stop(self) -> None: ...

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def running():
    async with front_broker(limits=MqttLimits(packet_bytes=100_000)) as running:
        sock = bind_tcp(Address("127.0.0.1", 0))
        port = bound_to(sock).port
        origins = AllowedOrigins({f"127.0.0.1:{port}"}, ["https://app.example"])
        server = HttpServer(NothingElse(), sock, lambda **_: WebSocket(running.front, origins))
        await server.start()
        yield running, port
        await server.stop()


def url(port: int, path: str = PATH) -> str:
    return f"ws://127.0.0.1:{port}{path}"


@pytest.mark.conforms("MQTT-6.0.0-2", "MQTT5-6.0.0-2")
async def test_a_command_goes_there_and_back(running):
    running, port = running
    async with connect(url(port), subprotocols=["mqtt"]) as client:
        assert client.subprotocol == "mqtt"
        await client.send(CONNECT + SUBSCRIBE)
        assert await client.recv() == b"\x20\x02\x00\x00"
        assert await client.recv() == b"\x90\x03\x00\x01\x01"
        execution = running.service.send("lamp", "turnOn")
        request = await client.recv()
        topic = running.front.topics.response("lamp", execution.execution_id).encode()
        answer = CODEC_3.encode_publish(topic, b'{"status":"SUCCEEDED"}', qos=1, packet_id=7)
        for i in range(len(answer)):  # frames may be cut anywhere [MQTT-6.0.0-2]
            await client.send(answer[i : i + 1])
        assert await client.recv() == b"\x40\x02\x00\x07"
    assert execution.status is Status.SUCCEEDED
    assert execution.execution_id.encode() in request
    await eventually(lambda: not running.front.connections)
    assert not running.service.things.get("lamp").online


@pytest.mark.conforms("MQTT-7.1.1-1", "MQTT5-4.2-1")
async def test_paho_speaks_it(running):
    running, port = running
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="lamp", transport="websockets")
    client.ws_set_options(path=PATH)
    subscribed = threading.Event()
    client.on_connect = lambda *_: client.subscribe("$emqx/commands/things/lamp/executions/+/request", 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: client.publish(
        message.topic.replace("/request", "/response"), b'{"status":"SUCCEEDED","result":1}', 1
    )
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    try:
        await eventually(subscribed.is_set)
        executions = [running.service.send("lamp", "turnOn") for _ in range(100)]
        await eventually(lambda: all(execution.is_terminal for execution in executions))
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


@pytest.mark.parametrize(
    ("path", "subprotocols", "origin", "status"),
    [
        ("/other", ["mqtt"], None, 404),
        ("/", ["mqtt"], None, 404),
        (PATH + "/x", ["mqtt"], None, 404),
        (PATH, ["chat"], None, 400),
        (PATH, ["mqtt"], "https://evil.example", 403),
        (PATH, ["mqtt"], "null", 403),
    ],
)
async def test_who_may_not_upgrade_is_told_so(running, path, subprotocols, origin, status):
    running, port = running
    with pytest.raises(InvalidStatus) as refusal:
        await connect(url(port, path), subprotocols=subprotocols, origin=origin)
    assert refusal.value.response.status_code == status
    assert refusal.value.response.body.endswith(b"\n")
    assert not running.front.connections


@pytest.mark.parametrize(
    ("path", "subprotocols", "given"),
    [
        (PATH, ["mqtt"], "mqtt"),
        (PATH + "/", ["mqtt"], "mqtt"),
        (PATH + "?client=1", ["mqttv3.1"], "mqttv3.1"),
        (PATH, ["chat", "mqttv3.1", "mqtt"], "mqtt"),
        (PATH, None, None),
    ],
)
@pytest.mark.conforms("MQTT-6.0.0-4", "MQTT5-6.0.0-4")
async def test_a_client_gets_the_subprotocol_that_it_asks_for(running, path, subprotocols, given):
    running, port = running
    async with connect(url(port, path), subprotocols=subprotocols) as client:
        assert client.subprotocol == given
        await client.send(CONNECT)
        assert await client.recv() == b"\x20\x02\x00\x00"
        (connection,) = running.front.connections
        assert connection.carrier is Carrier.WEBSOCKET


def upgrade(method=b"GET", headers=b"", path=b"/mqtt"):
    return (
        b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\n%b\r\n" % (method, path, headers)
    )


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (upgrade(), b"101 "),
        (upgrade(headers=b"".join(b"X-%d: y\r\n" % i for i in range(200))), b"431 "),
        (upgrade(headers=b"X: %b\r\n" % (b"y" * 10_000)), b"431 "),
        (upgrade(path=b"/mqtt?" + b"y" * 10_000), b"431 "),
        (upgrade(b"POST"), b"405 "),
        (upgrade(b"HEAD"), b"405 "),
        (upgrade(b"POST", b"Content-Length: 2\r\n") + b"{}", b"405 "),
        (upgrade(headers=b"Content-Length: 2\r\n") + b"{}", b"400 "),
        (upgrade(headers=b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", b"400 "),
    ],
)
async def test_every_wish_to_upgrade_gets_a_status(running, request_, status):
    running, port = running
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request_)
        line = await asyncio.wait_for(reader.readline(), 5)
        assert line.startswith(b"HTTP/1.1 " + status)
        if status != b"101 ":
            rest = (await asyncio.wait_for(reader.read(), 5)).lower()  # and then the end
            assert (b"\r\nallow: get\r\n" in rest) == (status == b"405 ")
            assert rest.count(b"http/1.1") == 0
    finally:
        writer.close()
    await eventually(lambda: not running.front.connections)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:{}", "https://app.example"], ids=["own", "named"])
async def test_a_page_of_the_broker_itself_or_of_a_named_origin_may_connect(running, origin):
    _, port = running
    async with connect(url(port), subprotocols=["mqtt"], origin=origin.format(port)) as client:
        await client.send(CONNECT)
        assert await client.recv() == b"\x20\x02\x00\x00"


@pytest.mark.parametrize("sent", ["text", b"\x00" * 10, b"\x30" + encode_length(200_000)])
@pytest.mark.conforms("MQTT-6.0.0-1", "MQTT5-6.0.0-1")
async def test_what_is_not_mqtt_ends_the_connection(running, sent):
    running, port = running
    async with connect(url(port), subprotocols=["mqtt"]) as client:
        await client.send(sent)
        with pytest.raises(ConnectionClosed):
            await client.recv()
    await eventually(lambda: not running.front.connections)


async def test_a_take_over_closes_the_first_connection(running):
    _, port = running
    async with connect(url(port), subprotocols=["mqtt"]) as first:
        await first.send(CONNECT)
        await first.recv()
        async with connect(url(port), subprotocols=["mqtt"]) as second:
            await second.send(CONNECT)
            assert await second.recv() == b"\x20\x02\x00\x00"
            with pytest.raises(ConnectionClosed):
                await first.recv()


async def upgrade(port: int, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Ask for WebSocket by hand; return the connection and the answer's first line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [
        f"GET {PATH} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt", *headers,
    ]  # fmt: skip
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    return reader, writer, head.partition(b"\r\n")[0]


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """One masked frame, the mask being nothing."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.parametrize(
    "origins", [["http://["], ["http://a.example", "http://b.example"], [""]], ids=["no URL", "two", "empty"]
)
async def test_a_strange_origin_is_refused_in_words(running, origins):
    running, port = running
    _, writer, line = await upgrade(port, *(f"Origin: {origin}" for origin in origins))
    assert line.startswith(b"HTTP/1.1 403")
    assert not running.front.connections
    writer.close()


async def test_what_lies_behind_the_end_is_not_read(running):
    running, port = running
    refused = bytes([*CONNECT[:8], 9, *CONNECT[9:]])  # a protocol level that nobody speaks
    assert b"MQTT\x09" in refused
    _, writer, _ = await upgrade(port)
    writer.write(frame(refused) + frame(CONNECT))
    await eventually(lambda: not running.front.connections)
    assert running.service.things.get("lamp") is None
    assert not running.front._clients
    writer.close()


async def test_a_client_that_pings_and_does_not_read_is_dropped(running):
    running, port = running
    _, writer, _ = await upgrade(port)
    writer.write(frame(CONNECT))
    await eventually(lambda: running.front._clients)
    writer.transport.pause_reading()
    pings = frame(b"p" * 125, opcode=9) * 2000
    async with asyncio.timeout(20):
        while running.front.connections:
            writer.write(pings)
            await asyncio.sleep(0.001)
    assert running.service.counters["front.writeBuffer"] == 1
    writer.transport.abort()


async def test_behind_a_trusted_proxy_the_client_is_the_one_that_it_names(tmp_path):
    http = {
        "bind": "127.0.0.1:0",
        "trusted_proxies": ["127.0.0.1"],
        "public_url": "https://Fleet.example:443/thingctl",
    }
    async with plugin_broker(tmp_path, http=http) as running:
        port = running.application.http_address.port
        asked = {"subprotocols": ["mqtt"], "additional_headers": {"X-Forwarded-For": "192.0.2.7"}}
        async with connect(url(port), origin="https://fleet.example", **asked) as client:
            await client.send(CONNECT)
            assert await client.recv() == b"\x20\x02\x00\x00"
            (connection,) = running.front.connections
            assert connection.peer == ("192.0.2.7", 0)
        for origin in ("https://evil.example", "null", ""):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url(port), origin=origin, **asked)
            assert refused.value.response.status_code == 403
