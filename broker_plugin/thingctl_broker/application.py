"""The whole broker side put together. One composition serves ``thingctl serve`` and stock amqtt alike."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from thingctl_broker.addresses import Address, bind_tcp, bound_to, parse_address
from thingctl_broker.clock import SystemClock
from thingctl_broker.config import ConfigurationError, Settings
from thingctl_broker.credentials import CredentialsError, TokenStore
from thingctl_broker.delivery import Deliveries
from thingctl_broker.http.app import create_app
from thingctl_broker.http.server import HttpServer
from thingctl_broker.mqtt.front import ClosedGatekeeper, Front, OpenGatekeeper
from thingctl_broker.paths import default_data_dir
from thingctl_broker.service import CommandService
from thingctl_broker.sweeper import sweep
from thingctl_broker.table import ExecutionTable
from thingctl_broker.unkept import NoJournal
from thingctl_broker.waiting import EndWaiters
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    import socket

    from thingctl_broker.mqtt.front import Broker, Gatekeeper

_log = structlog.get_logger("thingctl.broker")


class Application:
    """Everything but amqtt: the front, the service, the sweeper, the HTTP API.

    Building it binds the ports and opens the stores, so that whatever is wrong with
    the settings is told before anything runs.
    """

    def __init__(self, settings: Settings, gatekeeper: Gatekeeper | None = None) -> None:
        """Raises :class:`~thingctl_broker.config.ConfigurationError`."""
        self.settings = settings
        self.data_dir = Path(settings.data_dir) if settings.data_dir else default_data_dir()
        try:
            self.tokens = TokenStore.open(self.data_dir, os.environ.get("THINGCTL_ADMIN_TOKEN"))
        except (CredentialsError, OSError) as error:
            raise ConfigurationError(f"data directory {self.data_dir}: {error}") from error
        if gatekeeper is None:
            gatekeeper = OpenGatekeeper() if settings.open else ClosedGatekeeper()
        self.front = Front(
            gatekeeper=gatekeeper, topics=Topics(settings.mqtt.topic_root), limits=settings.limits
        )
        commands = settings.commands
        self.service = CommandService(
            clock=SystemClock(),
            link=self.front,
            journal=NoJournal(),
            table=ExecutionTable(commands.table, commands.keep),
            deliveries=Deliveries(commands.window, commands.queue),
            settings=settings.service,
        )
        self.waiters = EndWaiters(self.service.events)
        self._mqtt_socket = _bind("mqtt", settings.mqtt.bind)
        try:
            self._http_socket = _bind("http", settings.http.bind)
        except ConfigurationError:
            self._mqtt_socket.close()
            raise
        self.mqtt_address: Address = bound_to(self._mqtt_socket)
        self.http_address: Address = bound_to(self._http_socket)
        self._http = HttpServer(create_app(self.service, self.waiters, self.tokens), self._http_socket)
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, broker: Broker) -> None:
        """Begin to serve, with ``broker`` behind the front."""
        await self.front.start(self.service, broker, [self._mqtt_socket])
        self._sweeper = asyncio.get_running_loop().create_task(sweep(self.service))
        await self._http.start()
        _log.info("serving", mqtt=str(self.mqtt_address), http=str(self.http_address))

    async def stop(self) -> None:
        """Stop serving: operators first, then devices."""
        self.waiters.release()
        await self._http.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self.front.stop()


def _bind(what: str, bind: str) -> socket.socket:
    try:
        return bind_tcp(parse_address(bind))
    except OSError as error:
        raise ConfigurationError(f"{what}: cannot listen on {bind}: {error.strerror or error}") from None
