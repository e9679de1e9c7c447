"""The stock ``amqtt`` command with our plugin, and a listener of amqtt's own beside ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from support.event_recorder import heard
from support.paho import Listening, paho
from support.processes import BIN, ROOT, TOKEN, free_address, output, process, serving, until_said
from support.waits import soon
from thingctl_broker.mqtt.engine.sys_topics import ROOT as SYS

pytestmark = pytest.mark.system

ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"
RECORDER = "support.event_recorder.EventRecorder"
END = "the/end"


class Sides(NamedTuple):
    """Where amqtt listens and where we do, and what the recorder writes."""

    amqtt: tuple[str, int]
    ours: tuple[str, int]
    events: Path

    def of(self, name: str) -> tuple[str, int]:
        return self.amqtt if name == "amqtt" else self.ours


def address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    return host, int(port)


@contextmanager
def amqtt(tmp_path: Path) -> Iterator[Sides]:
    own, ours, events = free_address(), free_address(), tmp_path / "events"
    settings = {
        "open": True,
        "data_dir": str(tmp_path),
        "mqtt": {"bind": ours, "sys_interval": 1},
        "http": {"bind": "127.0.0.1:0"},
    }
    config = {
        "listeners": {"default": {"type": "tcp", "bind": own}},
        "plugins": {
            "thingctl_broker.mqtt.plugin.CommandsPlugin": {"settings": settings},
            ANONYMOUS: {"allow_anonymous": True},
            RECORDER: {"file": str(events)},
        },
    }
    path = tmp_path / "amqtt.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    environment = {"THINGCTL_ADMIN_TOKEN": TOKEN, "PYTHONPATH": str(ROOT / "tests")}
    with process(BIN / "amqtt", "-c", path, **environment) as started:
        until_said(started, "serving")
        yield Sides(address(own), address(ours), events)
        assert "Traceback" not in output(started)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    with amqtt(tmp_path_factory.mktemp("amqtt")) as running:
        yield running


@pytest.fixture
def clients(sides) -> Iterator[tuple[Listening, Listening]]:
    """One of amqtt's listener, one of ours."""
    with ExitStack() as stack:
        theirs = stack.enter_context(paho(sides.amqtt, "theirs"))
        ours = stack.enter_context(paho(sides.ours, "ours"))
        yield theirs, ours


def until_the_end(client: Listening, ends: int = 2) -> list[tuple[str, bytes, bool]]:
    """What a client hears until it was said ``ends`` times that it is the end."""
    got = []
    while ends:
        message = client.heard()
        if message.topic == END:
            ends -= 1
        else:
            got.append((message.topic, message.payload, message.retain))
    return got


def say_the_end(*clients: Listening) -> None:
    for client in clients:
        client.say(END, client._client_id)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_pass_both_ways_once_and_in_order(clients, qos):
    for client in clients:
        assert client.listen("both/#", END, qos=qos) == [qos, qos]
    names = ("theirs", "ours")
    for i in range(20):
        for client, name in zip(clients, names, strict=True):
            client.say(f"both/{name}", b"%d" % i, qos=qos)
    say_the_end(*clients)
    for client in clients:
        got = until_the_end(client)
        for name in names:
            mine = [payload for topic, payload, _ in got if topic == f"both/{name}"]
            assert mine == [b"%d" % i for i in range(20)]
        assert len(got) == 40
        assert not any(retain for _, _, retain in got)


def test_a_client_of_mqtt_5_shares_messages_with_amqtts(sides):
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = ("unit", "K")
    properties.MessageExpiryInterval = 60
    with paho(sides.amqtt, "theirs") as theirs, paho(sides.ours, "ours", protocol=mqtt.MQTTv5) as ours:
        theirs.listen("five/ours")
        ours.listen("five/theirs")
        ours.publish("five/ours", b"1", 1, properties=properties).wait_for_publish(15)
        theirs.say("five/theirs", b"2")
        assert (theirs.heard().payload, ours.heard().payload) == (b"1", b"2")


@pytest.mark.parametrize(("publisher", "subscriber"), [("amqtt", "ours"), ("ours", "amqtt")])
def test_retained_messages_wait_for_clients_of_the_other_side(sides, publisher, subscriber):
    topic = f"kept/by/{publisher}"
    with paho(sides.of(publisher), "keeps") as client:
        client.say(topic, b"kept", retain=True)
        with paho(sides.of(subscriber), "comes") as other:
            other.listen(topic)
            message = other.heard()
            assert (message.topic, message.payload, message.retain) == (topic, b"kept", True)
            client.say(topic, b"", retain=True)
            assert other.heard().payload == b""
            other.say(topic, b"newer", retain=True)
            assert other.heard().payload == b"newer"
        with (
            paho(sides.of(publisher), "comes-too") as third,
            paho(sides.of(subscriber), "and-fourth") as fourth,
        ):
            for late in (third, fourth):
                late.listen(topic, END)
                say_the_end(late)
                got = until_the_end(late, ends=1)
                # amqtt sends a client that connects what is retained under filters of others, too.
                assert set(got) == {(topic, b"newer", True)}
            client.say(topic, b"", retain=True)


@pytest.mark.parametrize(("dies", "hears"), [("amqtt", "ours"), ("ours", "amqtt")])
def test_wills_cross(sides, dies, hears):
    with paho(sides.of(hears), "hears") as client:
        client.listen(f"wills/{dies}")
        dying = Listening("dies")
        dying.will_set(f"wills/{dies}", b"gone", 1)
        dying.begin(sides.of(dies))
        dying.vanish()
        message = client.heard()
        assert (message.topic, message.payload) == (f"wills/{dies}", b"gone")


def test_a_plugin_hears_our_clients_and_its_answer_reaches_both_sides(sides, clients):
    theirs, ours = clients
    for client in clients:
        client.listen("the/plugin/answers")
    for client, question in ((ours, b"from ours"), (theirs, b"from theirs")):
        client.say("ask/the/plugin", question)
        assert [listener.heard().payload for listener in clients] == [question, question]
    ours.unsubscribe("the/plugin/answers")
    with paho(sides.ours, "short") as short:
        short.listen("a/#")
    soon(lambda: {"client": "short", "user": None} in heard(sides.events, "disconnected"))
    for event in ("connected", "disconnected"):
        assert heard(sides.events, event).count({"client": "short", "user": None}) == 1
    assert {"client": "short", "topic": "a/#", "qos": 1} in heard(sides.events, "subscribed")
    soon(lambda: {"client": "ours", "topic": "the/plugin/answers"} in heard(sides.events, "unsubscribed"))
    asked = [told for told in heard(sides.events, "message") if told["topic"] == "ask/the/plugin"]
    assert [(told["client"], told["text"]) for told in asked] == [
        ("ours", "from ours"),
        ("theirs", "from theirs"),
    ]


def test_commands_stay_on_our_side(sides, clients):
    theirs, _ = clients
    theirs.listen("$emqx/commands/#", END)
    with paho(sides.ours, "lamp") as lamp:
        lamp.listen("$emqx/commands/things/lamp/executions/+/request")
        lamp.say("$emqx/commands/things/lamp/actions", b"{}", retain=True)
        say_the_end(theirs)
        assert theirs.heard().topic == END
    assert not [told for told in heard(sides.events, "message") if told["topic"].startswith("$")]


def test_figures_are_on_our_side_and_only_there(sides):
    with paho(sides.ours, "@watcher") as ours, paho(sides.amqtt, "watcher") as theirs:
        assert ours.listen("$SYS/#") == [1]
        theirs.listen("$SYS/#", END)
        said: dict[str, bytes] = {}
        wanted = {SYS + name for name in ("version", "uptime", "clients/connected", "load/bytes/sent/15min")}
        while not (said.keys() >= wanted and int(said[f"{SYS}clients/connected"])):
            message = ours.heard()
            said[message.topic] = message.payload
        assert said[f"{SYS}version"].startswith(b"thingctl version ")
        assert said[f"{SYS}uptime"].endswith(b" seconds")
        assert all(topic.startswith(SYS) for topic in said)
        say_the_end(theirs)
        assert theirs.heard().topic == END


def test_a_thing_sees_no_figures(sides):
    with paho(sides.ours, "lamp") as lamp:
        assert lamp.listen("$SYS/#") == [0x80]


def test_thingctl_serve_loads_plugins_of_amqtts(tmp_path):
    events = tmp_path / "events"
    config = tmp_path / "broker.toml"
    config.write_text(f'[amqtt.plugins."{RECORDER}"]\nfile = "{events}"\n')
    with serving(tmp_path, "--config", str(config), PYTHONPATH=str(ROOT / "tests")) as broker:
        with paho(broker.mqtt_address, "lamp") as client:
            client.listen("the/plugin/answers")
            client.say("ask/the/plugin", b"hello")
            assert client.heard().payload == b"hello"
        soon(lambda: heard(events, "disconnected"))
        assert heard(events, "connected") == [{"client": "lamp", "user": None}]


def test_thingctl_serve_names_the_plugin_that_it_cannot_load(tmp_path):
    config = tmp_path / "broker.toml"
    config.write_text('[amqtt.plugins."shop.Recorder"]\n')
    command = (BIN / "thingctl", "serve", "--open", "--config", config, "--data-dir", tmp_path)
    with process(*command) as started:
        assert started.wait(20) == 2
        assert "amqtt.plugins: shop.Recorder cannot be imported: No module named 'shop'" in output(started)
        assert "Traceback" not in output(started)
