"""The real HTTP server over a service with fakes, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from typing import NamedTuple

from thingctl_broker.credentials import TokenStore
from thingctl_broker.directory import Directory
from thingctl_broker.embedded import EmbeddedOperations
from thingctl_broker.http.app import create_app
from thingctl_broker.http.server import HttpServer
from thingctl_broker.passwords import Passwords
from thingctl_broker.rolling import Rollouts
from thingctl_broker.testing import service_with_fakes

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

    @property
    def json(self):
        return json.loads(self.content)


class RunningApi:
    """Serves until ``close``. ``call`` runs a function in the server's loop."""

    def __init__(self, things=("lamp", "lock"), journal=None, rate=None, tls=None):
        self.service, self.link, self.clock = service_with_fakes(things, journal)
        self.tokens = TokenStore.open(None, TOKEN)
        self.passwords = Passwords()
        self.operations = EmbeddedOperations(self.service)
        self.rollouts = Rollouts(self.service)
        self.directory = Directory(self.operations, self.passwords)
        self.app = create_app(self.operations, self.rollouts, self.tokens, self.directory, rate=rate)
        self.loop_errors = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self._trust = None if tls is None else tls.trust
        self.server = HttpServer(self.app, sock, tls=None if tls is None else tls.serve)
        self.host, self.port = self.server.address
        self.url = f"{'http' if tls is None else 'https'}://{self.host}:{self.port}"
        self.run(self.server.start())

    def close(self):
        self.run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.passwords.close()
        assert self.loop_errors == []

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
            return Reply(response.status, found, response.read())

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
        self.call(
            self.service.respond,
            execution["thingId"],
            execution["executionId"],
            json.dumps(response).encode(),
            lambda: None,
        )

    def connect(self, thing="lamp"):
        """Let a thing connect and subscribe."""
        self.call(self.service.connected, thing, f"client-of-{thing}")
        self.call(self.service.reachable, thing)

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


def until(condition, seconds=5.0):
    """Wait until ``condition()`` holds; fail when it does not within ``seconds``."""
    done = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        done.wait(0.005)
    raise AssertionError("it did not come true in time")
