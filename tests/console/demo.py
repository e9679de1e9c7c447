"""A fleet with an hour behind it: the real service and HTTP server over a clock that was wound forward.

For pictures, and for lists too long to be sent one by one.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from contextlib import contextmanager

from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.commands.table import ExecutionTable
from thingctl_broker.http.app import create_app
from thingctl_broker.http.server.server import HttpServer
from thingctl_broker.rollouts.runner import RolloutRunner
from thingctl_broker.security.passwords import Passwords
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.testing import InMemoryLink
from thingctl_broker.testing.mqtt_clients import InMemoryClients
from thingctl_broker.things.service import ThingService

TOKEN = "tctl_a-token-for-the-demonstration-0123456789"

SITES = ("north", "south", "harbour", "depot")

ACTIONS = {
    "setTemperature": {
        "description": "Set the temperature to keep.",
        "paramsSchema": {
            "type": "object",
            "required": ["value"],
            "properties": {
                "value": {
                    "type": "number",
                    "minimum": 5,
                    "maximum": 30,
                    "description": "degrees Celsius",
                },
                "mode": {"enum": ["comfort", "eco", "away"], "default": "comfort"},
                "boost": {"type": "boolean", "default": False, "description": "heat up at full power"},
            },
        },
    },
    "getTemperature": {"description": "Read the temperature.", "paramsSchema": {"type": "object"}},
    "setSchedule": {
        "description": "Replace the schedule of the week.",
        "paramsSchema": {
            "type": "object",
            "required": ["entries"],
            "properties": {
                "entries": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["day", "from", "value"],
                        "properties": {
                            "day": {"enum": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]},
                            "from": {"type": "string", "description": "HH:MM"},
                            "value": {"type": "number", "minimum": 5, "maximum": 30},
                        },
                    },
                },
                "limits": {
                    "type": "object",
                    "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
                },
            },
        },
    },
    "calibrate": {
        "description": "Run the valve from end to end, telling how far it has come.",
        "paramsSchema": {
            "type": "object",
            "properties": {"seconds": {"type": "integer", "minimum": 1, "maximum": 30, "default": 5}},
        },
    },
    "reboot": {"description": "Restart the controller.", "paramsSchema": {"type": "object"}},
}


class WoundClock:
    """Stands still while it is wound, then follows the real time."""

    def __init__(self, behind):
        self._unix = time.time() - behind
        self._monotonic = time.monotonic() - behind
        self.live = False

    def advance(self, seconds):
        self._unix += seconds
        self._monotonic += seconds

    def monotonic(self):
        return time.monotonic() if self.live else self._monotonic

    def unix(self):
        return time.time() if self.live else self._unix


class Demo:
    """The server in a thread of its own. ``call`` runs a function in its loop."""

    def __init__(self, behind=3600.0):
        self.clock = WoundClock(behind)
        self.link = InMemoryLink()
        self.service = CommandService(
            clock=self.clock, link=self.link, journal=NullJournal(), table=ExecutionTable()
        )
        self.tokens = TokenStore.open(None, TOKEN)
        self.passwords = Passwords()
        operations = EmbeddedOperations(self.service)
        directory = ThingService(operations, self.passwords)
        self.rollouts = RolloutRunner(self.service)
        self.clients = InMemoryClients()
        self.app = create_app(operations, self.rollouts, self.tokens, directory, clients=self.clients)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        self.server = HttpServer(self.app, sock)
        self.url = "http://{}:{}/".format(*self.server.address)

    def start(self):
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(10)

    def stop(self):
        for stopped in (self.server.stop(), self.rollouts.stop()):
            asyncio.run_coroutine_threadsafe(stopped, self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.passwords.close()

    def call(self, function, *args, **kwargs):
        async def in_loop():
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(in_loop(), self._loop).result(30)

    def connect(self, thing, actions=ACTIONS):
        self.service.connected(thing, f"{thing}-agent")
        self.service.reachable(thing)
        announced = [{"name": name, **action} for name, action in actions.items()]
        self.service.announce(thing, json.dumps({"agentVersion": "0.1.0", "actions": announced}).encode())

    def send(self, thing, action, params=None, ttl=60, by="admin"):
        return self.service.send(thing, action, json.dumps(params or {}).encode(), ttl, requested_by=by)

    def respond(self, execution, status, **fields):
        body = json.dumps({"status": status, **fields}).encode()
        self.service.respond(execution.thing, execution.execution_id, body, lambda: None)


@contextmanager
def serving_demo(behind=3600.0):
    demo = Demo(behind)
    demo.start()
    try:
        yield demo
    finally:
        demo.stop()


def live_an_hour(demo, seed=7):
    """Things come, are sent commands, and most of them do as they are told. Ends at the real time."""
    draw, begun = random.Random(seed), demo.clock.unix()
    things = [f"thermostat-{site}-{number:02}" for site in SITES for number in range(1, 7)]
    for thing in things:
        demo.connect(thing)
    for thing in ("gate-depot-01", "kiosk-harbour-02"):
        demo.service.connected(thing, thing)
    for thing in draw.sample(things, 3):
        demo.service.disconnected(thing)
    demo.service.disconnected("kiosk-harbour-02")
    while demo.clock.unix() < time.time() - 20:
        second = int(demo.clock.unix() - begun)
        demo.clock.advance(1.0)
        demo.service.expire()
        busy = 0.16 + 0.12 * (1 + ((second // 60) % 17) / 17) + (0.5 if 1500 < second < 1740 else 0)
        if draw.random() < busy:
            one_command(demo, draw, draw.choice(things))
    demo.clock.live = True
    demo.service.expire()


def one_command(demo, draw, thing):
    action = draw.choices(list(ACTIONS), (8, 5, 2, 2, 1))[0]
    params = {
        "setTemperature": {"value": draw.randrange(16, 25), "mode": draw.choice(["comfort", "eco"])},
        "setSchedule": {"entries": [{"day": "Monday", "from": "06:30", "value": 21}]},
        "calibrate": {"seconds": draw.randrange(2, 20)},
    }.get(action, {})
    execution = demo.send(thing, action, params, ttl=45)
    if execution.published_at is None:
        return
    demo.clock.advance(0.004)
    demo.service.acknowledged(thing, execution.execution_id)
    demo.clock.advance(min(8.0, draw.lognormvariate(-3.4, 1.1)))
    luck = draw.random()
    if action == "calibrate":
        demo.respond(execution, "IN_PROGRESS", progress={"percent": 50, "message": "moving the valve"})
        demo.clock.advance(draw.uniform(0.3, 2.0))
    if luck < 0.93:
        demo.respond(execution, "SUCCEEDED", result={"currentTemperature": float(params.get("value", 21))})
    elif luck < 0.955:
        reason = {"reasonCode": "LOCKED", "reasonDescription": "the child lock is on"}
        demo.respond(execution, "REJECTED", statusReason=reason)
    elif luck < 0.985:
        reason = {"reasonCode": "HANDLER_FAILED", "reasonDescription": "OSError: the valve does not answer"}
        demo.respond(execution, "FAILED", statusReason=reason)
