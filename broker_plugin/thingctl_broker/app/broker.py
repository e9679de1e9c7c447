"""The whole broker side put together. One composition serves ``thingctl serve`` and stock amqtt alike."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
import structlog

from thingctl_broker.app.operator_access import OperatorAccess
from thingctl_broker.app.startup import (
    data_dir_of,
    open_mqtt_tls,
    open_records,
    open_socket,
    report_proxies,
    report_refusals,
)
from thingctl_broker.commands.delivery import Deliveries
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.commands.expiry import sweep
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.commands.table import ExecutionTable
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.auth.authenticator import OpenAuthenticator
from thingctl_broker.mqtt.auth.device_auth import IdentityGatekeeper
from thingctl_broker.mqtt.engine.restore import DamagedRecord
from thingctl_broker.mqtt.server.origins import AllowedOrigins
from thingctl_broker.mqtt.server.server import MqttServer
from thingctl_broker.mqtt.server.sys_publisher import publish_figures
from thingctl_broker.mqtt.server.websocket import WebSocket
from thingctl_broker.rollouts.runner import RolloutRunner
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import CredentialsError
from thingctl_broker.storage.rollout_files import RolloutFiles
from thingctl_broker.storage.sqlite.journal import DatabaseFileError, SqliteJournal
from thingctl_broker.storage.sqlite.record_store import FILE as RECORDS_FILE
from thingctl_broker.storage.sqlite.registry import RegistryStore
from thingctl_broker.system.addresses import Address, bound_to
from thingctl_broker.system.clock import SystemClock
from thingctl_broker.things.enrolment import device_url
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.webhooks import secret as webhook_secret
from thingctl_protocol import __version__
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from thingctl_broker.app.config import Settings
    from thingctl_broker.commands.execution import Execution
    from thingctl_broker.commands.ports import Journal
    from thingctl_broker.mqtt.auth.authenticator import Authenticator
    from thingctl_broker.system.proxy_protocol import Peer
    from thingctl_broker.things.records import Stored

_log = structlog.get_logger("thingctl.broker")


class Application:
    """Everything but amqtt: the MQTT server, the service, the sweeper, the HTTP API.

    Building it binds the ports and opens the stores, so that whatever is wrong with
    the settings is told before anything runs.
    """

    def __init__(self, settings: Settings, gatekeeper: Authenticator | None = None) -> None:
        """Raises :class:`~thingctl_broker.errors.ConfigurationError`; then nothing stays open."""
        self.settings = settings
        self.data_dir = data_dir_of(settings)
        with ExitStack() as undo:
            self._journal = self._open_journal()  # first: it locks out any other broker
            undo.callback(self._journal.release)
            self.tokens = self._open_tokens()
            self._mqtt_tls = open_mqtt_tls(settings.mqtt)
            self._access = access = OperatorAccess(settings)
            undo.callback(access.abandon)
            self.passwords = access.passwords
            is_lab = (
                settings.open and settings.in_memory
            )  # nobody has said who is a thing, and nothing is kept
            self.things = ThingRegistry(enrols=settings.open, changed=None if is_lab else self._thing_changed)
            self._registry_store = None if is_lab else self._open_registry(undo)
            self._records = open_records(settings, self.data_dir)
            self.front = self._make_server(gatekeeper or self._make_authenticator())
            self.service = self._make_service()
            self.rollouts = RolloutRunner(
                self.service, None if settings.in_memory else RolloutFiles(self.data_dir)
            )
            self._recover()
            self._restore_sessions()
            self._restore_rollouts()
            self.operations = EmbeddedOperations(self.service)
            secret = self._read_webhook_secret()
            self._mqtt_socket = open_socket("mqtt", settings.mqtt.bind)
            undo.callback(self._mqtt_socket.close)
            access.listen()
            undo.pop_all()
        self.mqtt_address: Address = bound_to(self._mqtt_socket)
        self.http_address: Address = access.address
        self.http_url = access.url
        self.enrolment = access.make_enrolment(self._find_device_url)
        access.compose(
            self.operations,
            self.rollouts,
            self.tokens,
            registry=self._registry_store,
            secret=secret,
            expel=self.front.expel,
            websocket=self._websocket,
            connections=lambda: len(self.front.connections),
            clients=self.front.clients,
        )
        self.directory = access.directory
        self.webhooks = access.webhooks
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to serve. Raises :class:`ConfigurationError`."""
        settings = self.settings
        await self._start_stores()
        self._access.begin_audit(self.service.events, "open enrolment" if settings.open else "")
        await self.front.start(
            self.service,
            [self._mqtt_socket],
            None if self._mqtt_tls is None else self._mqtt_tls.context,
            proxies=settings.mqtt.proxies,
            refused=report_proxies("mqtt", self.service.counters),
        )
        report_refusals(self._mqtt_tls, "mqtt", self.service.counters)
        create_task = asyncio.get_running_loop().create_task
        figures = publish_figures(self.front, f"thingctl version {__version__}", settings.mqtt.sys_interval)
        self._tasks = [create_task(sweep(self.service)), create_task(figures)]
        await self._access.start(self._mqtt_tls)
        if settings.open:
            _log.warning(
                "OPEN ENROLMENT: whoever reaches the MQTT port is any thing it says; for labs only",
                mqtt=str(self.mqtt_address),
            )
        _log.info("serving", mqtt=str(self.mqtt_address), http=str(self.http_address))

    async def _start_stores(self) -> None:
        try:
            await self._journal.start()
            if self._records is not None:
                await self._records.start()
        except DatabaseFileError as error:
            raise ConfigurationError(str(error)) from error
        if self._registry_store is not None:
            self._registry_store.start()

    async def stop(self) -> None:
        """Stop serving: operators first, then devices."""
        await self._access.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.front.stop()
        self._mqtt_socket.close()
        if self._records is not None:
            await self._records.stop()
        await self._journal.stop()
        if self._registry_store is not None:
            await self._registry_store.stop()
        await self._access.close()

    def _find_device_url(self) -> str:
        names = None if self._mqtt_tls is None else self._mqtt_tls.names
        return device_url(self.settings.mqtt.public_url, self.mqtt_address, names)

    def _websocket(self, peer: Peer | None = None, **_: object) -> WebSocket:
        """The protocol of a client that speaks MQTT over WebSocket on the HTTP port."""
        hosts = {f"{host}:{self.http_address.port}" for host in (self.http_address.host, "localhost")}
        origins = AllowedOrigins(
            hosts | self.settings.http.public_hosts, self.settings.mqtt.websocket_origins
        )
        return WebSocket(self.front, origins, peer)

    @property
    def mqtt_url(self) -> str:
        """Where devices reach the broker."""
        scheme = "mqtt" if self._mqtt_tls is None else "mqtts"
        return self.settings.mqtt.public_url or f"{scheme}://{self.mqtt_address}"

    # What the constructor puts together.

    def _make_authenticator(self) -> Authenticator:
        if self.settings.open:
            return OpenAuthenticator()
        return IdentityGatekeeper(
            self.things, self.passwords, self.settings.acl, self.tokens, proven=self._password_proven
        )

    def _make_server(self, authenticator: Authenticator) -> MqttServer:
        settings = self.settings
        return MqttServer(
            gatekeeper=authenticator,
            topics=Topics(settings.mqtt.topic_root),
            limits=settings.limits,
            proxies=settings.mqtt.proxies | settings.http.proxies.named,
            store=self._records,
            keep_alive=settings.mqtt.keep_alive_max,
            server_reference=settings.mqtt.server_reference,
        )

    def _make_service(self) -> CommandService:
        commands = self.settings.commands
        return CommandService(
            clock=SystemClock(),
            link=self.front,
            journal=self._journal,
            table=ExecutionTable(commands.table, commands.keep),
            deliveries=Deliveries(commands.window, commands.queue),
            things=self.things,
            settings=self.settings.service,
        )

    # What it opens.

    def _open_journal(self) -> Journal:
        if self.settings.in_memory:
            return NullJournal()
        try:
            return SqliteJournal(self.data_dir, max_bytes=self.settings.commands.journal_bytes)
        except DatabaseFileError as error:
            raise ConfigurationError(str(error)) from error

    def _open_tokens(self) -> TokenStore:
        try:
            return TokenStore.open(self.data_dir, os.environ.get("THINGCTL_ADMIN_TOKEN"))
        except (CredentialsError, OSError) as error:
            raise ConfigurationError(f"data directory {self.data_dir}: {error}") from error

    def _read_webhook_secret(self) -> bytes:
        try:
            return webhook_secret.read_or_make(self.data_dir)
        except OSError as error:
            raise ConfigurationError(f"data directory {self.data_dir}: {error}") from error

    def _open_registry(self, undo: ExitStack) -> RegistryStore:
        try:
            store = RegistryStore(self.data_dir, self.things.record)
            undo.callback(store.close)
            count = self.things.restore(store.load())
        except (DatabaseFileError, msgspec.DecodeError) as error:
            raise ConfigurationError(str(error)) from error
        if count:
            _log.info("things known", count=count)
        return store

    # What it restores.

    def _restore_rollouts(self) -> None:
        count = self.rollouts.restore()
        if count:
            _log.info("commands to many things go on", count=count)

    def _restore_sessions(self) -> None:
        try:
            count = self.front.restore(time.monotonic())
        except (DamagedRecord, DatabaseFileError) as error:
            text = f"{self.data_dir / RECORDS_FILE}: {error}. Move it away to start without sessions"
            raise ConfigurationError(text) from error
        if count:
            _log.info("sessions restored", count=count)

    def _recover(self) -> None:
        began = time.monotonic()
        enabled = gc.isenabled()
        gc.disable()  # a million objects that all stay: looking through them again and again is in vain
        try:
            count = self.service.restore(_with_progress(self._journal.recover(began, time.time())))
        except DatabaseFileError as error:
            raise ConfigurationError(str(error)) from error
        finally:
            if enabled:
                gc.enable()
        if count:
            _log.info("executions recovered", count=count, seconds=round(time.monotonic() - began, 2))

    # What the registry tells.

    async def _password_proven(self, thing: str, password_hash: str) -> None:
        await self.directory.proven(thing, password_hash)

    def _thing_changed(self, kept: Stored, name: str) -> None:
        if self._registry_store is not None:
            self._registry_store.changed(kept, name)


def _with_progress(executions: Iterable[Execution]) -> Iterator[Execution]:
    for count, execution in enumerate(executions, 1):
        yield execution
        if count % 250_000 == 0:
            _log.info("recovering executions", so_far=count)
