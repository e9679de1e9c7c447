"""What every operator and every device may count on, over either link, word for word the same."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from support.links import LINKS, Linked, linked
from support.operators import Operator
from support.paho import Listening, paho
from support.processes import BIN, ROOT, TOKEN, process
from support.waits import soon

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=LINKS)
def broker(request, tmp_path_factory) -> Iterator[Linked]:
    server = request.getfixturevalue("postgres") if request.param == "cluster" else None
    folder = tmp_path_factory.mktemp(request.param)
    with linked(request.param, folder, server, "[webhooks]\nallow_private = true\n") as broker:
        yield broker


@pytest.fixture
def operator(broker) -> Iterator[Operator]:
    operator = Operator(broker.http_address)
    yield operator
    operator.close()


class Thing(Listening):
    """A device in bare paho: it hears requests and cancels, and says what it is told to."""

    def say_of(self, root: str, name: str, execution_id: str, **response: object) -> None:
        topic = f"{root}/things/{name}/executions/{execution_id}/response"
        self.say(topic, json.dumps(response).encode())

    def next_request(self) -> tuple[str, dict]:
        """The id of the next execution and its request."""
        message = self.heard()
        *_, execution_id, kind = message.topic.split("/")
        assert kind == "request", message.topic
        return execution_id, json.loads(message.payload)


@contextmanager
def thing(broker: Linked, name: str, *more: str) -> Iterator[Thing]:
    device = Thing(name, clean_session=False)
    device.begin(broker.mqtt_address)
    try:
        device.listen(broker.filter(name), *(f"{broker.root}/things/{name}/{topic}" for topic in more))
        yield device
    finally:
        device.end()


def test_a_device_that_knows_two_topics_works_fully(broker, operator):
    with thing(broker, "two-topics") as device:
        execution_id = operator.send("two-topics", "setTemperature", {"value": 24, "é": "ü\u0000"}, ttl=30)
        heard, request = device.next_request()
        assert heard == execution_id
        assert set(request) == {"commandId", "action", "params", "timestamp", "ttl"}
        assert (request["action"], request["ttl"]) == ("setTemperature", 30)
        assert request["params"] == {"value": 24, "é": "ü\u0000"}
        device.say_of(broker.root, "two-topics", heard, status="IN_PROGRESS", progress={"percent": 40})
        assert operator.until(execution_id, "IN_PROGRESS")["progress"] == {"percent": 40}
        device.say_of(broker.root, "two-topics", heard, status="SUCCEEDED", result={"currentTemperature": 24})
        ended = operator.until(execution_id, "SUCCEEDED")
        assert ended["result"] == {"currentTemperature": 24}
        device.say_of(broker.root, "two-topics", heard, status="FAILED")  # a verdict never changes
        device.say_of(broker.root, "two-topics", heard, status="SUCCEEDED", result={"currentTemperature": 24})
        soon(lambda: operator.get(execution_id)["status"] == "SUCCEEDED")
        assert "late" not in operator.get(execution_id)


def test_a_reason_is_told_as_the_device_gave_it(broker, operator):
    with thing(broker, "door") as device:
        execution_id = operator.send("door", "unlock")
        reason = {"reasonCode": "DOOR_OPEN", "reasonDescription": "The door must be shut first."}
        device.say_of(broker.root, "door", device.next_request()[0], status="REJECTED", statusReason=reason)
        assert operator.until(execution_id, "REJECTED")["statusReason"] == reason


def test_what_waits_goes_out_in_its_order_when_the_device_comes(broker, operator):
    with thing(broker, "late-comer"):
        pass  # so that it is known
    with thing(broker, "absent"):
        pass
    sent = [operator.send("nobody-yet", "go", {"n": n}) for n in range(5)] if broker.link == "cluster" else []
    if broker.link == "embedded":
        with paho(broker.mqtt_address, "nobody-yet"):
            pass
        sent = [operator.send("nobody-yet", "go", {"n": n}) for n in range(5)]
    soon(lambda: operator.get(sent[0])["delivery"] == "QUEUED")
    with thing(broker, "nobody-yet") as device:
        for n in range(5):
            execution_id, request = device.next_request()
            assert (execution_id, request["params"]) == (sent[n], {"n": n})
            device.say_of(broker.root, "nobody-yet", execution_id, status="SUCCEEDED")
        for execution_id in sent:
            assert operator.until(execution_id, "SUCCEEDED")["attempts"] >= 1


def test_nothing_stale_is_published_and_the_record_says_that_it_never_left(broker, operator):
    with paho(broker.mqtt_address, "stale"):
        pass
    execution_id = operator.send("stale", "go", ttl=1)
    ended = operator.until(execution_id, "TIMED_OUT")
    assert (ended["delivery"], ended["retrySafe"]) == ("QUEUED", True)
    assert ended["statusReason"]["reasonCode"] == "NOT_DELIVERED"
    with thing(broker, "stale") as device:
        fresh = operator.send("stale", "go")
        assert device.next_request()[0] == fresh
        with pytest.raises(queue.Empty):
            device.messages.get(timeout=0.2)
        device.say_of(broker.root, "stale", fresh, status="SUCCEEDED")
        operator.until(fresh, "SUCCEEDED")


def test_a_device_that_keeps_silent_times_out_and_what_it_says_later_is_kept_beside(broker, operator):
    with thing(broker, "silent") as device:
        execution_id = operator.send("silent", "go", ttl=1)
        heard, _ = device.next_request()
        ended = operator.until(execution_id, "TIMED_OUT")
        assert ended["retrySafe"] is False
        device.say_of(broker.root, "silent", heard, status="SUCCEEDED", result=7)
        soon(lambda: "late" in operator.get(execution_id))
        late = operator.get(execution_id)
        assert (late["status"], late["late"]["status"], late["late"]["result"]) == (
            "TIMED_OUT",
            "SUCCEEDED",
            7,
        )


def test_cancel_withdraws_what_waits_and_asks_who_is_at_work(broker, operator):
    with paho(broker.mqtt_address, "cancels"):
        pass
    waiting = operator.send("cancels", "go")
    soon(lambda: operator.get(waiting)["delivery"] == "QUEUED")
    answer = operator.call("POST", f"/api/v1/commands/{waiting}/cancel")
    assert (answer.status, answer.body["status"]) == (200, "CANCELED")
    assert operator.call("POST", f"/api/v1/commands/{waiting}/cancel").status == 409
    with thing(broker, "cancels", "executions/+/cancel") as device:
        running = operator.send("cancels", "go")
        assert device.next_request()[0] == running, "what was canceled never comes"
        device.say_of(broker.root, "cancels", running, status="IN_PROGRESS")
        operator.until(running, "IN_PROGRESS")
        assert operator.call("POST", f"/api/v1/commands/{running}/cancel").body["status"] == "IN_PROGRESS"
        cancel = device.heard()
        assert (cancel.topic.split("/")[-2:], cancel.payload) == ([running, "cancel"], b"{}")
        device.say_of(broker.root, "cancels", running, status="CANCELED")
        operator.until(running, "CANCELED")


def test_what_means_nothing_is_dropped_and_the_device_goes_on(broker, operator):
    with thing(broker, "babbler") as device, thing(broker, "victim") as victim:
        other = operator.send("victim", "go")
        assert victim.next_request()[0] == other
        device.say_of(broker.root, "babbler", other, status="SUCCEEDED")  # another's execution
        device.say_of(broker.root, "babbler", "no-such-execution", status="SUCCEEDED")
        own = operator.send("babbler", "go")
        heard, _ = device.next_request()
        for rubbish in (b"", b"{", b"[]", b'{"status":"SENT"}', b'{"status":"\xff"}', b"\x00" * 100):
            device.say(f"{broker.root}/things/babbler/executions/{heard}/response", rubbish)
        device.say_of(broker.root, "babbler", heard, status="SUCCEEDED")
        operator.until(own, "SUCCEEDED")
        assert operator.get(other)["status"] == "SENT"
        victim.say_of(broker.root, "victim", other, status="SUCCEEDED")
        operator.until(other, "SUCCEEDED")


def test_a_key_makes_sending_again_safe(broker, operator):
    with thing(broker, "keyed") as device:
        body = json.dumps({"thingId": "keyed", "action": "go"})
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "Idempotency-Key": "once",
        }
        connection = HTTPConnection(*broker.http_address, timeout=20)
        ids = set()
        for _ in range(3):
            connection.request("POST", "/api/v1/commands", body, headers)
            response = connection.getresponse()
            assert response.status == 201
            ids.add(json.loads(response.read())["executionId"])
        connection.request("POST", "/api/v1/commands", body.replace("go", "stop"), headers)
        assert connection.getresponse().status == 409
        connection.close()
        (execution_id,) = ids
        assert device.next_request()[0] == execution_id
        device.say_of(broker.root, "keyed", execution_id, status="SUCCEEDED")
        operator.until(execution_id, "SUCCEEDED")


def test_waiting_and_listening_callers_are_told(broker, operator):
    connection = HTTPConnection(*broker.http_address, timeout=30)
    connection.request("GET", "/api/v1/events?thingId=waited", headers={"Authorization": f"Bearer {TOKEN}"})
    stream = connection.getresponse()
    with thing(broker, "waited") as device:
        device.on_message = lambda _client, _data, message: device.publish(
            message.topic.removesuffix("request") + "response", b'{"status":"SUCCEEDED","result":1}', 1
        )
        answer = operator.call("POST", "/api/v1/commands?wait=20", {"thingId": "waited", "action": "go"})
        assert (answer.status, answer.body["status"], answer.body["result"]) == (200, "SUCCEEDED", 1)
    told = []
    while not told or told[-1]["status"] != "SUCCEEDED":
        line = stream.readline().decode()
        if line.startswith("data: ") and "executionId" in line:
            told.append(json.loads(line[6:]))
    assert {each["executionId"] for each in told} == {answer.body["executionId"]}
    connection.close()
    short = operator.call(
        "POST", "/api/v1/commands?wait=0.1", {"thingId": "waited", "action": "go", "ttl": 1}
    )
    assert short.status == 202


def test_a_command_to_many_is_rolled_out_paused_and_canceled(broker, operator):
    names = [f"many-{n}" for n in range(12)]
    for name in names:
        assert operator.call("PUT", f"/api/v1/things/{name}", {"tags": ["many"]}).status == 201
    dry = operator.call(
        "POST", "/api/v1/commands", {"targets": {"tags": ["many"]}, "action": "go", "dryRun": True}
    )
    assert (dry.status, dry.body["targeted"]) == (200, 12)
    begun = operator.call(
        "POST",
        "/api/v1/commands",
        {"targets": {"tags": ["many"]}, "action": "go", "rollout": {"batch": 3}, "ttl": 60},
    )
    path = f"/api/v1/groups/{begun.body['commandId']}"
    soon(lambda: operator.call("GET", path).body["statuses"] == {"SENT": 3})
    assert operator.call("POST", path + "/pause").body["state"] == "PAUSED"
    assert operator.call("POST", path + "/resume").body["state"] == "RUNNING"
    with thing(broker, "many-0") as device:
        device.say_of(broker.root, "many-0", device.next_request()[0], status="SUCCEEDED")
        soon(lambda: operator.call("GET", path).body["statuses"] == {"SENT": 3, "SUCCEEDED": 1})
        assert operator.call("POST", path + "/cancel").body["state"] == "CANCELED"
        soon(lambda: operator.call("GET", path).body["statuses"] == {"CANCELED": 3, "SUCCEEDED": 1}, 15)
    assert operator.call("POST", path + "/resume").status == 409


def test_the_agent_announces_checks_and_runs(broker, operator, tmp_path):
    with process(
        sys.executable,
        ROOT / "examples" / "thermostat.py",
        THINGCTL_THING="agent-1",
        THINGCTL_MQTT_URL=f"mqtt://127.0.0.1:{broker.mqtt_address[1]}",
        THINGCTL_TOPIC_ROOT=broker.root,
        THINGCTL_PRESENCE="on",
        THINGCTL_STATE_DIR=str(tmp_path),
    ) as agent:
        soon(lambda: "actions" in operator.call("GET", "/api/v1/things/agent-1").body, 30)
        soon(lambda: operator.call("GET", "/api/v1/things/agent-1").body["online"], 10)
        wrong = operator.call(
            "POST",
            "/api/v1/commands",
            {"thingId": "agent-1", "action": "setTemperature", "params": {"value": 99}},
        )
        assert (wrong.status, wrong.body["pointer"]) == (400, "/params/value")
        execution_id = operator.send("agent-1", "setTemperature", {"value": 24})
        assert operator.until(execution_id, "SUCCEEDED")["result"] == {"currentTemperature": 24.0}
        agent.terminate()
        agent.wait(20)
        soon(lambda: not operator.call("GET", "/api/v1/things/agent-1").body["online"], 10)


def test_the_command_line_does_the_same(broker, tmp_path):
    def thingctl(*words: str) -> str:
        ran = subprocess.run(
            [str(BIN / "thingctl"), *words],
            env={"THINGCTL_URL": broker.serving.http, "THINGCTL_TOKEN": TOKEN, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
        return ran.stdout

    assert "password" in thingctl("things", "add", "cli-lamp")
    with thing(broker, "cli-lamp") as device:
        device.on_message = lambda _client, _data, message: device.publish(
            message.topic.removesuffix("request") + "response", b'{"status":"SUCCEEDED"}', 1
        )
        assert "SUCCEEDED" in thingctl("send", "cli-lamp", "turnOn", "--wait")
    assert "turnOn" in thingctl("list", "--thing", "cli-lamp")
    assert "cli-lamp" in thingctl("things")
    secret = json.loads(thingctl("tokens", "add", "cli", "commands:read", "--json"))["token"]
    assert secret not in thingctl("tokens")
    thingctl("tokens", "revoke", "cli")
    thingctl("things", "remove", "cli-lamp")


def test_the_dialects_speak(broker, operator):
    assert operator.call("PUT", "/api/v1/things/dialect", {}).status == 201
    with thing(broker, "dialect") as device:
        sent = operator.call(
            "POST", "/v2/tracker/send_command", {"hash": TOKEN, "device_id": "dialect", "command": "locate"}
        )
        assert sent.body == {"success": True, "queued": True}
        device.say_of(broker.root, "dialect", device.next_request()[0], status="SUCCEEDED")
        status = {"hash": TOKEN, "device_id": "dialect"}
        soon(
            lambda: (
                operator.call("POST", "/v2/tracker/get_command_status", status).body
                == {"success": True, "status": "executed"}
            )
        )
        uri = {"type": "LaunchUri", "payload": {"uri": "http://bing.com"}}
        launched = operator.call("POST", "/beta/me/devices/dialect/commands", uri)
        assert (launched.status, launched.body["status"]) == (201, "requesting")
        device.say_of(broker.root, "dialect", device.next_request()[0], status="SUCCEEDED", result={"ok": 1})
        path = f"/beta/me/devices/dialect/commands/{launched.body['id']}"
        soon(lambda: operator.call("GET", path).body["status"] == "completed")
        assert operator.call("GET", path + "/responsePayload").body == {"ok": 1}


def test_a_webhook_is_told_how_it_ended(broker, operator):
    posts: queue.Queue[dict] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posts.put(json.loads(body) | {"signature": self.headers["Thingctl-Signature"]})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        with thing(broker, "hooked") as device:
            sent = operator.call(
                "POST",
                "/api/v1/commands",
                {
                    "thingId": "hooked",
                    "action": "go",
                    "postBackUri": f"http://127.0.0.1:{server.server_address[1]}/",
                },
            )
            device.say_of(broker.root, "hooked", device.next_request()[0], status="SUCCEEDED")
            told = posts.get(timeout=15)
            assert (told["executionId"], told["status"]) == (sent.body["executionId"], "SUCCEEDED")
            assert told["signature"].startswith("sha256=")
            with pytest.raises(queue.Empty):
                posts.get(timeout=0.5)
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def test_the_overview_and_the_metrics_have_counted(broker, operator):
    overview = operator.call("GET", "/api/v1/overview").body
    assert overview["hour"]["created"] >= sum(overview["hour"]["ended"].values()) > 0
    assert len(overview["minutes"]) == 60
    connection = HTTPConnection(*broker.http_address, timeout=20)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    metrics = connection.getresponse().read().decode()
    connection.close()
    for name in (
        "thingctl_executions_live",
        "thingctl_things_known",
        'thingctl_dropped_total{kind="wrongThing"}',
    ):
        assert name in metrics
