"""The real HTTP server over fakes, in a thread with a loop of its own.

:class:`RunningApi` is over the embedded service, :class:`ClusterApi` over a worker of a cluster.
What the tests do with things is the same for both.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urljoin

from support.fleet import Fleet
from thingctl_broker.cluster.link_port import PresenceReport, Source
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.http.app import create_app
from thingctl_broker.http.server.server import HttpServer
from thingctl_broker.rollouts.runner import RolloutRunner
from thingctl_broker.security.login_throttle import OF_NAME, LoginThrottle
from thingctl_broker.security.passwords import Passwords
from thingctl_broker.security.rate_limit import Rate
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.system.addresses import NO_PROXIES, Address, bind_tcp
from thingctl_broker.testing import service_with_fakes
from thingctl_broker.testing.mqtt_clients import InMemoryClients
from thingctl_broker.things.service import ThingService

TOKEN = "tctl_test-0123456789abcdef0123456789abcdef"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Tls(NamedTuple):
    """How the server proves itself, and how a client trusts it."""

    serve: ssl.SSLContext
    trust: ssl.SSLContext


class Reply(NamedTuple):
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes
    link: str = ""
    """Where ``Location`` leads, for a client that asked for this."""

    @property
    def json(self):
        return json.loads(self.content)


class Server:
    """Serves until ``close``. ``call`` runs a function in the server's loop.

    A test plays the things: ``connect``, ``respond``, ``announce``; ``requested`` is what went to them.
    """

    clients = None
    """The MQTT clients, where the broker serves them."""

    def _serve(self, rate=None, tls=None, proxies=NO_PROXIES, public_url=""):
        """Begin; the parts are there."""
        self.app = create_app(
            self.operations,
            self.rollouts,
            self.tokens,
            self.directory,
            clients=self.clients,
            rate=rate,
            public_url=public_url,
        )
        sock = bind_tcp(Address("127.0.0.1", 0))
        self._trust = None if tls is None else tls.trust
        self.server = HttpServer(self.app, sock, tls=None if tls is None else tls.serve, proxies=proxies)
        self.host, self.port = self.server.address
        self.url = f"{'http' if tls is None else 'https'}://{self.host}:{self.port}"
        self.run(self.server.start())

    def _start_loop(self):
        self.loop_errors = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self):
        self.run(self.server.stop())
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.passwords.close()
        assert self.loop_errors == []

    async def _stop(self):
        """End what is behind the server."""

    def know(self, thing):
        """Make a thing known."""
        self.call(self.operations.things.know, thing, 0.0)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    def call(self, function, *args, **kwargs):
        async def in_loop():
            return function(*args, **kwargs)

        return self.run(in_loop())

    def request(self, method, target, body=None, headers=AUTHORIZED, timeout=10):
        headers = dict(headers)
        if isinstance(body, dict):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        with closing(self.client(timeout)) as connection:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            link = urljoin(target, found.get("location", ""))
            return Reply(response.status, found, response.read(), link)

    def client(self, timeout=10):
        """A client's connection, not opened yet."""
        if self._trust is None:
            return HTTPConnection(self.host, self.port, timeout=timeout)
        return HTTPSConnection(self.host, self.port, timeout=timeout, context=self._trust)

    def get(self, target, **kwargs):
        return self.request("GET", target, **kwargs)

    def post(self, target, body=None, **kwargs):
        return self.request("POST", target, body, **kwargs)

    def send(self, thing="lamp", action="turnOn", **fields):
        """POST a command; return its execution."""
        reply = self.post("/api/v1/commands", {"thingId": thing, "action": action, **fields})
        assert reply.status == 201, reply
        return reply.json

    def respond(self, execution, **response):
        """Let the execution's thing answer."""
        self.answer(execution["thingId"], execution["executionId"], json.dumps(response).encode())

    def executions(self):
        """All there are, oldest first."""
        return self.call(lambda: list(self.table))

    def newest(self):
        return self.executions()[-1]

    def waiting(self):
        """How many callers wait for an execution."""
        return self.call(lambda: sum(map(len, self.operations._waiters._waiters.values())))

    def raw(self):
        """A bare connection to the server."""
        sock = socket.create_connection((self.host, self.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._trust is None:
            return sock
        return self._trust.wrap_socket(sock, server_hostname=self.host)


class RunningApi(Server):
    """Over the embedded service."""

    def __init__(self, things=("lamp", "lock"), journal=None, rate=None, **serving):
        self.service, self.link, self.clock = service_with_fakes(things, journal)
        self.tokens = TokenStore.open(None, TOKEN)
        self.passwords = Passwords(LoginThrottle(Rate(1e-9, OF_NAME.burst)))  # however slow the machine is
        self.operations = EmbeddedOperations(self.service)
        self.rollouts = RolloutRunner(self.service)
        self.directory = ThingService(self.operations, self.passwords)
        self.table = self.service.table
        self.clients = InMemoryClients()
        self._start_loop()
        self._serve(rate, **serving)

    @property
    def requested(self):
        return self.link.published

    def answer(self, thing, execution_id, payload):
        self.call(self.service.respond, thing, execution_id, payload, lambda: None)

    def announce(self, thing, payload):
        self.call(self.service.announce, thing, payload)

    def connect(self, thing="lamp"):
        """Let a thing connect and subscribe."""
        self.call(self.service.connected, thing, f"client-of-{thing}")
        self.call(self.service.reachable, thing)

    def answer_at_once(self, thing, payload):
        """From now on the thing answers while its request is being published."""

        def publish(thing, execution_id, request, *, again):
            self.service.respond(thing, execution_id, payload, lambda: None)
            return False

        self.link.publish_request = publish

    def send_to(self, things):
        """Send a command to each, without HTTP; return the ids."""
        return self.call(lambda: [self.service.send(thing, "x").execution_id for thing in things])

    def expire(self):
        self.call(self.service.expire)

    def bound_queue(self, queue_max):
        self.call(setattr, self.service._deliveries, "queue_max", queue_max)


class ClusterApi(Server):
    """Over a worker of a cluster; ``fleet`` has what the workers share."""

    def __init__(self, things=("lamp", "lock")):
        self._start_loop()
        self.passwords = Passwords(LoginThrottle(Rate(1e-9, OF_NAME.burst)))  # however slow the machine is
        self.run(self._assemble(things))
        self._serve()
        self.call(self.member.rollouts.start)

    async def _assemble(self, things):
        self.fleet = Fleet()
        self.clock, self.table = self.fleet.clock, self.fleet.store._table
        self.member = await self.fleet.member("w1")
        await self._add_things(things)
        self.tokens = TokenStore.open(None, TOKEN)
        self.operations, self.rollouts = self.member.operations, self.member.rollouts
        self.link = self.member.link
        self.directory = ThingService(self.operations, self.passwords, self.member.mirror)

    async def _stop(self):
        await self.fleet.stop()

    @property
    def requested(self):
        return [request for request in self.link.requested if request.thing in self.fleet.things]

    def answer(self, thing, execution_id, payload):
        self.run(self.member.incoming.responded(thing, execution_id, payload))

    def announce(self, thing, payload):
        self.run(self.member.incoming.announced(thing, payload, Source.LIVE))

    def connect(self, thing="lamp"):
        """Let a thing connect and subscribe."""
        self.call(self.fleet.come, thing)
        presence = PresenceReport(thing, online=True, client_id=f"client-of-{thing}")
        self.run(self.member.incoming.present(presence))

    async def _add_things(self, things):
        """As the embedded broker knows things: who has not come yet is away."""
        await self.fleet.add_things(*things)
        for thing in things:
            self.member.mirror.things.connected(thing, "", 1.0)
            self.member.mirror.things.disconnected(thing, 2.0)
        await self.member.mirror.kept()

    def know(self, thing):
        self.run(self._add_things([thing]))

    def answer_at_once(self, thing, payload):
        self.call(self.fleet.come, thing, payload)

    def send_to(self, things):
        async def send():
            return [(await self.member.send(thing, "x")).execution_id for thing in things]

        return self.run(send())

    def expire(self):
        self.run(self.member.sweeper.expire())

    def bound_queue(self, queue_max):
        self.call(setattr, self.operations, "_queue_max", queue_max)


def until(condition, seconds=5.0):
    """Wait until ``condition()`` holds; fail when it does not within ``seconds``."""
    done = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        done.wait(0.005)
    raise AssertionError("it did not come true in time")
