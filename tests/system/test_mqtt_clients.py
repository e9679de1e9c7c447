"""Clients that people have: mosquitto's tools and its bridge, paho in each version, gmqtt, aiomqtt and MQTT.js."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import threading
from contextlib import ExitStack

import aiomqtt
import gmqtt
import paho.mqtt.client as mqtt
import pytest

from agent.harness import mosquitto
from support.needs import missing
from support.processes import BIN, serving
from support.waits import soon

pytestmark = pytest.mark.system


@pytest.fixture
def broker(tmp_path):
    with serving(tmp_path / "ours", "--in-memory") as serve:
        yield serve


def tool(name: str) -> str:
    found = shutil.which(name)
    return found or missing(f"{name} is not installed")


class Paho:
    """A paho client whose messages gather in ``heard``."""

    def __init__(self, address, name, *filters, version=mqtt.MQTTv311, transport="tcp", qos=1, ca=""):
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, name, protocol=version, transport=transport
        )
        self.heard: list[tuple[str, bytes, int, bool]] = []
        self.subscribed = threading.Event()
        self.client.on_message = lambda _, __, m: self.heard.append(
            (m.topic, m.payload, m.qos, bool(m.retain))
        )
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_connect = lambda client, *_: client.subscribe([(f, qos) for f in filters or ("none",)])
        if ca:
            self.client.tls_set(ca)
        self.client.connect(*address)
        self.client.loop_start()
        assert self.subscribed.wait(10)

    def publish(self, topic, payload=b"x", qos=1, **options):
        self.client.publish(topic, payload, qos, **options).wait_for_publish(10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def paho():
    with ExitStack() as stack:

        def connect(*args, **options) -> Paho:
            made = Paho(*args, **options)
            stack.callback(made.close)
            return made

        yield connect


@pytest.mark.parametrize("version", [mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1", "3.1.1", "5"])
@pytest.mark.parametrize("way", ["tcp", "websocket"])
def test_paho_in_each_version(broker, paho, version, way):
    if way == "tcp":
        one = paho(broker.mqtt_address, "one", "news/#", version=version, qos=2)
    else:
        one = paho(broker.http_address, "one", "news/#", version=version, qos=2, transport="websockets")
    other = paho(broker.mqtt_address, "other", "news/+")
    for qos in (0, 1, 2):
        other.publish("news/a", b"%d" % qos, qos)
        one.publish("news/b", b"%d" % qos, qos)
    soon(lambda: len(one.heard) == len(other.heard) == 6)
    assert sorted(one.heard) == [(f"news/{t}", b"%d" % q, q, False) for t in "ab" for q in range(3)]
    assert sorted(other.heard) == [(f"news/{t}", b"%d" % q, min(q, 1), False) for t in "ab" for q in range(3)]


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquittos_tools(broker, version):
    host, port = broker.mqtt_address
    where = ("-h", host, "-p", str(port), "-V", version)
    subprocess.run(
        [tool("mosquitto_pub"), *where, "-t", "kept", "-m", "on", "-q", "2", "-r"], check=True, timeout=20
    )
    heard = subprocess.run(
        [tool("mosquitto_sub"), *where, "-t", "kept", "-q", "2", "-C", "1", "-W", "10", "-F", "%t %p %q %r"],
        check=True,
        timeout=20,
        capture_output=True,
        text=True,
    )
    assert heard.stdout.strip() == "kept on 2 1"


def test_mosquitto_rr_asks_and_is_answered(broker, paho):
    """It needs MQTT 5: the answer goes to the response topic of the request."""
    server = paho(broker.mqtt_address, "server", "ask", version=mqtt.MQTTv5)
    server.client.on_message = lambda client, _, m: client.publish(m.properties.ResponseTopic, b"yes", 1)
    host, port = broker.mqtt_address
    answer = subprocess.run(
        [
            tool("mosquitto_rr"),
            "-h",
            host,
            "-p",
            str(port),
            "-t",
            "ask",
            "-e",
            "answer",
            "-m",
            "well?",
            "-W",
            "10",
        ],
        check=True,
        timeout=20,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.strip() == "yes"


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
@pytest.mark.parametrize("more", ["", "try_private false\n"], ids=["defaults", "plain"])
def test_a_bridge_of_mosquittos_with_its_defaults_carries_both_ways(broker, paho, tmp_path, version, more):
    host, port = broker.mqtt_address
    bridge = (
        f"allow_anonymous true\nconnection b1\naddress {host}:{port}\nbridge_protocol_version {version}\n"
        f"topic up/# out 1\ntopic down/# in 1\nrestart_timeout 1\n{more}"
    )
    (tmp_path / "theirs").mkdir()
    with mosquitto(tmp_path / "theirs", bridge) as theirs:
        ours = paho(broker.mqtt_address, "ours", "up/#")
        beyond = paho(("127.0.0.1", theirs.port), "beyond", "down/#")

        def is_carried() -> bool:
            beyond.publish("up/a", b"up")
            ours.publish("down/a", b"down")
            return bool(ours.heard and beyond.heard)

        soon(is_carried, 20)
        assert ours.heard[0][:2] == ("up/a", b"up")
        assert beyond.heard[0][:2] == ("down/a", b"down")


async def test_gmqtt_speaks_mqtt_5_to_it(broker):
    heard: asyncio.Queue[tuple[str, bytes, dict]] = asyncio.Queue()

    async def on_message(client, topic, payload, qos, properties):
        heard.put_nowait((topic, payload, properties))
        return 0

    subscribed = asyncio.Event()
    client = gmqtt.Client("gmqtt")
    client.on_message = on_message
    client.on_subscribe = lambda *_, **__: subscribed.set()
    async with asyncio.timeout(20):
        await client.connect(*broker.mqtt_address, version=5)
        client.subscribe("news/#", qos=1, subscription_identifier=7)
        await subscribed.wait()
        client.publish("news/a", b"x", qos=1, user_property=("key", "value"), content_type="text")
        topic, payload, properties = await heard.get()
        await client.disconnect()
    assert (topic, payload) == ("news/a", b"x")
    assert properties["user_property"] == [("key", "value")]
    assert properties["content_type"] == ["text"]
    assert properties["subscription_identifier"] == [7]


def test_what_is_kept_comes_back_after_a_restart(tmp_path, paho):
    """Retained messages, sessions, and what waits in them."""
    data = tmp_path / "data"
    with serving(data) as serve, ExitStack() as stack:
        away = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "away", clean_session=False)
        subscribed = threading.Event()
        away.on_subscribe = lambda *_: subscribed.set()
        away.on_connect = lambda client, *_: client.subscribe("news", 1)
        away.connect(*serve.mqtt_address)
        away.loop_start()
        assert subscribed.wait(10)
        away.disconnect()
        away.loop_stop()
        source = Paho(serve.mqtt_address, "source")
        stack.callback(source.close)
        source.publish("state", b"on", retain=True)
        for i in range(3):
            source.publish("news", b"%d" % i)
        serve.process.kill()
    with serving(data) as serve:
        assert paho(serve.mqtt_address, "late", "state").subscribed.is_set()
        heard: list[bytes] = []
        away = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "away", clean_session=False)
        away.on_message = lambda _, __, m: heard.append(m.payload)
        away.connect(*serve.mqtt_address)
        away.loop_start()
        soon(lambda: len(heard) == 3)
        assert heard == [b"0", b"1", b"2"]
        late = paho(serve.mqtt_address, "later", "state")
        soon(lambda: late.heard == [("state", b"on", 1, True)])
        away.disconnect()
        away.loop_stop()


async def test_aiomqtt_in_both_versions(broker):
    host, port = broker.mqtt_address
    for version in (aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5):
        async with asyncio.timeout(20), aiomqtt.Client(host, port, protocol=version) as client:
            await client.subscribe("news/#", qos=2)
            await client.publish("news/a", b"x", qos=2)
            message = await anext(aiter(client.messages))
            assert (str(message.topic), message.payload, message.qos) == ("news/a", b"x", 2)


MQTT_JS = "mqtt@5.16.0"

USE_MQTT_JS = """
import mqtt from "mqtt";
const told = [];
for (const url of [process.env.TCP, process.env.WS])
  for (const [protocolVersion, protocolId] of [[3, "MQIsdp"], [4, "MQTT"], [5, "MQTT"]]) {
    const client = await mqtt.connectAsync(url, {protocolVersion, protocolId, reconnectPeriod: 0});
    const heard = new Promise(resolve => client.on("message", (topic, payload) => resolve(`${topic} ${payload}`)));
    await client.subscribeAsync("news/#", {qos: 1});
    await client.publishAsync("news/a", "x", {qos: 2});
    told.push(await heard);
    await client.endAsync();
  }
console.log(JSON.stringify(told));
"""


def test_mqtt_js_in_each_version(broker, tmp_path):
    npm = tool("npm")
    folder = tmp_path / "js"
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    (folder / "use.js").write_text(USE_MQTT_JS)
    install = (npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", MQTT_JS)
    if subprocess.run(install, cwd=folder, capture_output=True, timeout=120, check=False).returncode:
        missing(f"{MQTT_JS} cannot be installed")
    host, port = broker.mqtt_address
    told = subprocess.run(
        [tool("node"), "use.js"],
        cwd=folder,
        env={
            **os.environ,
            "TCP": f"mqtt://{host}:{port}",
            "WS": f"ws://{':'.join(str(part) for part in broker.http_address)}/mqtt",
        },
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(told.stdout) == ["news/a x"] * 6


@pytest.fixture
def secured(tmp_path):
    files = tmp_path / "tls"
    subprocess.run(
        [BIN / "thingctl", "tls", "init", "--dir", files, "--name", "127.0.0.1"],
        check=True,
        capture_output=True,
    )
    with serving(tmp_path / "data", "--in-memory", "--tls-dir", str(files)) as serve:
        yield serve, str(files / "ca.crt")


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1.1", "5"])
def test_paho_over_tls_and_secure_websocket(secured, paho, version):
    serve, ca = secured
    one = paho(serve.mqtt_address, "one", "news", version=version, ca=ca)
    other = paho(serve.http_address, "other", "news", version=version, transport="websockets", ca=ca)
    one.publish("news", b"1")
    other.publish("news", b"2")
    soon(lambda: len(one.heard) == len(other.heard) == 2)
    assert sorted(m[1] for m in one.heard) == sorted(m[1] for m in other.heard) == [b"1", b"2"]


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquittos_tools_over_tls(secured, version):
    serve, ca = secured
    host, port = serve.mqtt_address
    where = ("-h", host, "-p", str(port), "-V", version, "--cafile", ca)
    publish = [tool("mosquitto_pub"), *where, "-t", "kept", "-m", "on", "-q", "1", "-r"]
    subprocess.run(publish, check=True, timeout=20)
    heard = subprocess.run(
        [tool("mosquitto_sub"), *where, "-t", "kept", "-C", "1", "-W", "10"],
        check=True,
        timeout=20,
        capture_output=True,
        text=True,
    )
    assert heard.stdout.strip() == "on"
