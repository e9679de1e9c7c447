"""The MQTT 5 device of docs/protocol.md against a real broker, and one that refuses its requests."""

from __future__ import annotations

import json
import re
import sys

import paho.mqtt.client as mqtt
import pytest

from agent.harness import AgentProcess
from support.operators import Operator
from support.processes import ROOT, process, serving
from support.waits import soon

pytestmark = pytest.mark.system

THING = "lamp"


@pytest.fixture
def broker(tmp_path):
    with serving(tmp_path, "--in-memory") as serve:
        operator = Operator(serve.http_address)
        yield serve, operator
        operator.close()


def online(operator: Operator) -> bool:
    return bool(operator.call("GET", f"/api/v1/things/{THING}").body.get("online"))


def test_the_device_in_the_page_answers_by_what_mqtt_5_says(broker, tmp_path):
    serve, operator = broker
    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    source = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert len([line for line in source.splitlines() if line.strip()]) == 10
    host, port = serve.mqtt_address
    script = tmp_path / "device.py"
    script.write_text(source.replace('"127.0.0.1", 1883', f'"{host}", {port}'))
    with process(sys.executable, script):
        soon(lambda: online(operator))
        execution_id = operator.send(THING, "setTemperature", {"value": 24})
        operator.until(execution_id, "SUCCEEDED")
        assert operator.get(execution_id)["result"] == {"value": 24}


def test_a_request_that_the_device_refuses_is_rejected_and_the_next_one_comes(broker):
    serve, operator = broker
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, THING, protocol=mqtt.MQTTv5, manual_ack=True)
    seen = []

    def on_message(client, userdata, message):
        seen.append(json.loads(message.payload)["action"])
        if seen[-1] == "refused":
            # paho sends no reason codes: PUBACK, reason 0x97 (quota exceeded).
            client.socket().sendall(b"\x40\x04" + message.mid.to_bytes(2) + b"\x97\x00")
        else:
            client.ack(message.mid, message.qos)
            client.publish(message.properties.ResponseTopic, b'{"status":"SUCCEEDED"}', qos=1)

    device.on_connect = lambda *_: device.subscribe(f"$emqx/commands/things/{THING}/executions/+/request", 1)
    device.on_message = on_message
    device.connect(*serve.mqtt_address)
    device.loop_start()
    try:
        soon(lambda: online(operator))
        refused = operator.send(THING, "refused")
        operator.until(refused, "REJECTED")
        found = operator.get(refused)
        assert found["statusReason"]["reasonCode"] == "REFUSED_BY_DEVICE"
        assert "quota exceeded (0x97)" in found["statusReason"]["reasonDescription"]
        assert found["delivery"] == "PUBLISHED"
        operator.until(operator.send(THING, "taken"), "SUCCEEDED")
    finally:
        device.disconnect()
        device.loop_stop()


ACTIONS = """
from thingctl_agent import Agent

agent = Agent()


@agent.action
def echo(text: str) -> str:
    return text
"""


def test_the_agent_speaks_mqtt_5_where_that_is_set(broker, tmp_path):
    serve, operator = broker
    url = "mqtt://{}:{}".format(*serve.mqtt_address)
    config = tmp_path / "agent.toml"
    config.write_text("mqtt_version = 5\n")
    with AgentProcess(ACTIONS, url, tmp_path / "state", "--config", str(config), thing=THING) as agent:
        soon(lambda: online(operator))
        (client,) = operator.call("GET", f"/api/v1/mqtt/clients?thingId={THING}").body["clients"]
        assert (client["mqttVersion"], client["connected"]) == ("5", True)
        operator.until(operator.send(THING, "echo", {"text": "one"}), "SUCCEEDED")
        agent.kill()
        soon(lambda: not online(operator))
        waiting = operator.send(THING, "echo", {"text": "two"})
        agent.start()
        operator.until(waiting, "SUCCEEDED")
