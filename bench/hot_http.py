"""``POST /api/v1/commands`` alone, without a kernel: what our own code and uvicorn cost per request.

The API on uvicorn's protocol as the product has it, on transports that keep what is
written, with connected things behind it (see ``hot_path``). The figure includes
``service.send`` and the event loop's turns, and excludes system calls.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import secrets
import sys
import time
from typing import Final

import uvicorn

from fleet_parts import thing_name
from hot_path import THINGS, KeepingTransport, Path
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.http.app import create_app
from thingctl_broker.http.server.connection import HttpConnection
from thingctl_broker.rollouts.runner import RolloutRunner
from thingctl_broker.security.passwords import Passwords
from thingctl_broker.security.rate_limit import Rate
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.system.addresses import NO_NETWORKS, Networks
from thingctl_broker.things.service import ThingService

WINDOW: Final = 64
ROUNDS: Final = 30
"""Requests on each connection in one batch."""


FORWARDED: Final = (
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
    "X-Forwarded-Host: fleet.example\r\nX-Forwarded-Prefix: /thingctl\r\n"
)
"""What a proxy adds to a request."""


class HttpTransport(KeepingTransport):
    """What uvicorn asks of a transport besides."""

    def is_closing(self) -> bool:
        """It stays open."""
        return False

    def pause_reading(self) -> None:
        """Nothing comes unasked."""

    def resume_reading(self) -> None:
        """Nothing comes unasked."""


class NoSocket:
    """Stands where the transport's socket does."""

    family: Final = None

    def getsockname(self) -> tuple[str, int]:
        """Where the server listens."""
        return "127.0.0.1", 80

    def setsockopt(self, *_: object) -> None:
        """Nothing to set."""

    def getpeername(self) -> tuple[str, int]:
        """Where the client is."""
        return "127.0.0.1", 40_000


class Api:
    """The API over a path, and ``WINDOW`` connections to it."""

    def __init__(self, path: Path, forwarded: str = "", trusted: Networks = NO_NETWORKS) -> None:
        """``forwarded``: header lines that a proxy adds. ``trusted``: the proxies whose lines count."""
        self.path = path
        token = secrets.token_urlsafe(32)
        service = path.service
        operations = EmbeddedOperations(service)
        directory = ThingService(operations, Passwords())
        tokens = TokenStore.open(None, token)
        app = create_app(operations, RolloutRunner(service), tokens, directory, rate=Rate(1e6, 1_000_000))
        config = uvicorn.Config(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            server_header=False,
        )
        config.load()
        state = uvicorn.server.ServerState()
        state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        self.transports = [HttpTransport(40_000 + i, socket=NoSocket()) for i in range(WINDOW)]
        self.connections = [HttpConnection(config, state, {}, trusted=trusted) for _ in range(WINDOW)]
        for connection, transport in zip(self.connections, self.transports, strict=True):
            connection.connection_made(transport)
        head = (
            f"POST /api/v1/commands HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n{forwarded}"
        )
        self.requests = [self._request(head, thing_name(i)) for i in range(THINGS)]
        self.turn = self.writes = self.answers = 0

    async def batch(self) -> float:
        """CPU microseconds per request."""
        took = 0
        for _ in range(ROUNDS):
            requests = [self.requests[(self.turn + i) % THINGS] for i in range(WINDOW)]
            self.turn += WINDOW
            before = time.process_time_ns()
            for connection, request in zip(self.connections, requests, strict=True):
                connection.data_received(request)
            # A turn of the loop is what is measured: no event could stand for it.
            while not all(transport.written for transport in self.transports):  # noqa: ASYNC110
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            took += time.process_time_ns() - before
            for transport in self.transports:
                assert transport.written[0].startswith(b"HTTP/1.1 201"), transport.written
                self.writes += len(transport.written)
                self.answers += 1
                transport.written.clear()
        self.path.answer()
        return took / 1000 / ROUNDS / WINDOW

    @staticmethod
    def _request(head: str, thing: str) -> bytes:
        body = f'{{"thingId":"{thing}","action":"setTemperature","params":{{"value":24}},"ttl":60}}'
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batches", type=int, default=20, help=f"of {ROUNDS * WINDOW} requests (20)")
    parser.add_argument("--profile", action="store_true", help="cProfile over them, to stderr, instead")
    parser.add_argument("--proxied", action="store_true", help="with the headers of a trusted proxy")
    options = parser.parse_args()
    path = Path()
    await path.connect()
    api = Api(path, FORWARDED, Networks(["127.0.0.1"])) if options.proxied else Api(path)
    await api.batch()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    if options.profile:
        await _profile(api, options.batches)
        return
    least = min([await api.batch() for _ in range(options.batches)])
    print(json.dumps({"cpu_us_per_post": round(least, 2), "writes_per_answer": api.writes / api.answers}))
    await path.front.stop()


async def _profile(api: Api, batches: int) -> None:
    import cProfile  # noqa: PLC0415 not for the figures
    import pstats  # noqa: PLC0415

    with cProfile.Profile() as profile:
        for _ in range(batches):
            await api.batch()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    asyncio.run(main())
