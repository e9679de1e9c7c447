"""The other ends: a device that does exactly as it is told, and a client of the HTTP API."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import quote, urlencode, urlsplit

import paho.mqtt.client as mqtt

from support.waits import soon
from thingctl_protocol.topics import DEFAULT_ROOT

TERMINAL = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED"}


class Device:
    """A thing of its own making: takes requests, and answers when told to."""

    def __init__(self, name, address, announcement=None):
        self.name = name
        self.requests = {}
        self._topic = f"{DEFAULT_ROOT}/things/{name}"
        self._subscribed = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
        self._client.on_connect = lambda client, *_: client.subscribe(
            f"{self._topic}/executions/+/request", 1
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect(*address)
        self._client.loop_start()
        assert self._subscribed.wait(10)
        if announcement is not None:
            self.publish(f"{self._topic}/actions", announcement, retain=True)

    def _on_message(self, _client, _userdata, message):
        self.requests[message.topic.split("/")[-2]] = json.loads(message.payload)

    def request(self, execution_id):
        """The request of an execution, once it is here."""
        soon(lambda: execution_id in self.requests)
        return self.requests[execution_id]

    def respond(self, execution_id, status, **fields):
        self.publish(f"{self._topic}/executions/{execution_id}/response", {"status": status, **fields})

    def publish(self, topic, payload, *, retain=False):
        self._client.publish(topic, json.dumps(payload), 1, retain=retain).wait_for_publish(10)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


class Api:
    """What the tests ask of the broker, beside what the console does."""

    def __init__(self, url, token):
        self._netloc = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {token}"}

    def call(self, method, path, body=None):
        with closing(HTTPConnection(self._netloc, timeout=20)) as connection:
            content = body if body is None or isinstance(body, str) else json.dumps(body)
            headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
            connection.request(method, f"/api/v1/{path}", content, headers)
            response = connection.getresponse()
            content = response.read()
            return response.status, json.loads(content) if content else None

    def thing(self, name):
        status, thing = self.call("GET", f"things/{quote(name)}")
        return thing if status == 200 else None

    def send(self, thing, action, params=None, ttl=60):
        status, execution = self.call(
            "POST", "commands", {"thingId": thing, "action": action, "params": params or {}, "ttl": ttl}
        )
        assert status == 201, execution
        return execution

    def send_raw(self, body):
        """Send a command whose body is given digit for digit."""
        status, execution = self.call("POST", "commands", body)
        assert status == 201, execution
        return execution

    def rejected(self, thing):
        """A command that a thermostat has refused: its child lock was on."""
        self.ended(self.send(thing, "setChildLock", {"on": True})["executionId"])
        execution = self.ended(self.send(thing, "setTemperature", {"value": 19})["executionId"])
        self.ended(self.send(thing, "setChildLock", {"on": False})["executionId"])
        assert execution["status"] == "REJECTED", execution
        return execution

    def execution(self, execution_id):
        return self.call("GET", f"commands/{execution_id}")[1]

    def ended(self, execution_id):
        """The execution when it has ended."""
        execution = self.call("GET", f"commands/{execution_id}?wait=30")[1]
        assert execution["status"] in TERMINAL, execution
        return execution

    def executions(self, **query):
        return self.call("GET", f"commands?{urlencode(query)}")[1]["executions"]
