"""The whole broker side put together. One composition serves ``thingctl serve`` and stock amqtt alike."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from thingctl_broker.app.startup import (
    data_dir_of,
    open_audit,
    open_http_tls,
    open_records,
    open_socket,
    report_proxies,
    report_refusals,
)
from thingctl_broker.audit.log import TOLD, Audit
from thingctl_broker.commands.delivery import Deliveries
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.commands.expiry import sweep
from thingctl_broker.commands.null_journal import NullJournal
from thingctl_broker.commands.service import CommandService
from thingctl_broker.commands.table import ExecutionTable
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.http.app import create_app
from thingctl_broker.http.server.server import HttpServer
from thingctl_broker.mqtt.auth.authenticator import OpenAuthenticator
from thingctl_broker.mqtt.auth.device_auth import IdentityGatekeeper
from thingctl_broker.mqtt.engine.restore import DamagedRecord
from thingctl_broker.mqtt.server.origins import AllowedOrigins
from thingctl_broker.mqtt.server.server import MqttServer
from thingctl_broker.mqtt.server.sys_publisher import publish_figures
from thingctl_broker.mqtt.server.websocket import WebSocket
from thingctl_broker.rollouts.runner import RolloutRunner
from thingctl_broker.security.audit_events import Event, note_nothing
from thingctl_broker.security.passwords import Passwords
from thingctl_broker.security.tls import ALPN, ServerTls, TlsError, keep_looking
from thingctl_broker.security.token_store import TokenStore
from thingctl_broker.security.tokens import CredentialsError
from thingctl_broker.storage.rollout_files import RolloutFiles
from thingctl_broker.storage.sqlite.journal import JournalFileError, SqliteJournal
from thingctl_broker.storage.sqlite.record_store import FILE as RECORDS_FILE
from thingctl_broker.storage.sqlite.record_store import SqliteRecords
from thingctl_broker.storage.sqlite.registry import RegistryError, RegistryStore
from thingctl_broker.system.addresses import Address, bound_to
from thingctl_broker.system.clock import SystemClock
from thingctl_broker.things.enrolment import Enrolment, device_url
from thingctl_broker.things.registry import ThingRegistry
from thingctl_broker.things.service import ThingService
from thingctl_broker.webhooks import secret as webhook_secret
from thingctl_broker.webhooks.client import WebhookClient
from thingctl_broker.webhooks.sender import Webhooks
from thingctl_protocol import __version__
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from thingctl_broker.app.config import Settings
    from thingctl_broker.commands.execution import Execution
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
        """Raises :class:`~thingctl_broker.errors.ConfigurationError`."""
        self.settings = settings
        self.data_dir = data_dir_of(settings)
        self._journal = self._open_journal()  # first: it locks out any other broker
        try:
            self.tokens = TokenStore.open(self.data_dir, os.environ.get("THINGCTL_ADMIN_TOKEN"))
        except (CredentialsError, OSError) as error:
            if isinstance(self._journal, SqliteJournal):
                self._journal.release()
            raise ConfigurationError(f"data directory {self.data_dir}: {error}") from error
        self._mqtt_tls, self._http_tls = self._open_tls()
        self.passwords = Passwords()
        is_lab = settings.open and settings.in_memory  # nobody has said who is a thing, and nothing is kept
        self.things = ThingRegistry(enrols=settings.open, changed=None if is_lab else self._thing_changed)
        self._registry_store = self._open_registry()
        if gatekeeper is None:
            gatekeeper = (
                OpenAuthenticator()
                if settings.open
                else IdentityGatekeeper(
                    self.things, self.passwords, settings.acl, self.tokens, proven=self._password_proven
                )
            )
        self._records = self._open_records()
        self.front = MqttServer(
            gatekeeper=gatekeeper,
            topics=Topics(settings.mqtt.topic_root),
            limits=settings.limits,
            proxies=settings.mqtt.proxies | settings.http.proxies.named,
            store=self._records,
            keep_alive=settings.mqtt.keep_alive_max,
            server_reference=settings.mqtt.server_reference,
        )
        commands = settings.commands
        self.service = CommandService(
            clock=SystemClock(),
            link=self.front,
            journal=self._journal,
            table=ExecutionTable(commands.table, commands.keep),
            deliveries=Deliveries(commands.window, commands.queue),
            things=self.things,
            settings=settings.service,
        )
        self._audit = self._open_audit()
        note = note_nothing if self._audit is None else self._audit.note
        files = RolloutFiles(self.data_dir) if isinstance(self._journal, SqliteJournal) else None
        self.rollouts = RolloutRunner(self.service, files)
        with ExitStack() as undo:
            undo.callback(self.passwords.close)
            if self._audit is not None:
                undo.callback(self._audit.stop)
            if self._registry_store is not None:
                undo.callback(self._registry_store.close)
            if isinstance(self._journal, SqliteJournal):
                undo.callback(self._journal.release)
                self._recover(self._journal)
            self._restore_sessions()
            self._restore_rollouts()
            self.operations = EmbeddedOperations(self.service)
            self.webhooks = self._make_webhooks()
            self._mqtt_socket = open_socket("mqtt", settings.mqtt.bind)
            undo.callback(self._mqtt_socket.close)
            self._http_socket = open_socket("http", settings.http.bind)
            undo.pop_all()
        self.mqtt_address: Address = bound_to(self._mqtt_socket)
        self.http_address: Address = bound_to(self._http_socket)
        self.enrolment = Enrolment(
            lambda: device_url(
                settings.mqtt.public_url,
                self.mqtt_address,
                None if self._mqtt_tls is None else self._mqtt_tls.names,
            ),
            ca=self._ca,
            topic_root=settings.mqtt.topic_root,
            is_open=settings.open,
        )
        self.directory = ThingService(
            self.operations,
            self.passwords,
            self._registry_store,
            self.front.expel,
            note,
            enrolment=self.enrolment,
        )
        self._http = HttpServer(
            create_app(
                self.operations,
                self.rollouts,
                self.tokens,
                self.directory,
                note,
                connections=lambda: len(self.front.connections),
                clients=self.front.clients,
                rate=settings.http.rate,
                public_url=settings.http.public_url,
                ttl_max=settings.commands.ttl_max,
            ),
            self._http_socket,
            self._websocket,
            None if self._http_tls is None else self._http_tls.context,
            proxies=settings.http.proxies,
            refused=report_proxies("http", self.service.counters),
        )
        self._tls_watch: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._figures: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve. Raises :class:`ConfigurationError`."""
        await self._start_stores()
        if self._audit is not None:
            self.service.events.subscribe(self._audit.on_change, TOLD)
            self._audit.note(Event.STARTED, detail="open enrolment" if self.settings.open else "")
        mqtt_tls = None if self._mqtt_tls is None else self._mqtt_tls.context
        await self.front.start(
            self.service,
            [self._mqtt_socket],
            mqtt_tls,
            proxies=self.settings.mqtt.proxies,
            refused=report_proxies("mqtt", self.service.counters),
        )
        report_refusals(self._mqtt_tls, "mqtt", self.service.counters)
        report_refusals(self._http_tls, "http", self.service.counters)
        listeners = [tls for tls in (self._mqtt_tls, self._http_tls) if tls is not None]
        if listeners:
            self._tls_watch = asyncio.get_running_loop().create_task(keep_looking(listeners))
        self._sweeper = asyncio.get_running_loop().create_task(sweep(self.service))
        figures = publish_figures(
            self.front, f"thingctl version {__version__}", self.settings.mqtt.sys_interval
        )
        self._figures = asyncio.get_running_loop().create_task(figures)
        self.rollouts.start()
        self.webhooks.start()
        await self._http.start()
        if self.settings.open:
            _log.warning(
                "OPEN ENROLMENT: whoever reaches the MQTT port is any thing it says; for labs only",
                mqtt=str(self.mqtt_address),
            )
        if fault := self.enrolment.fault:
            _log.warning("there are no bundles for devices", fault=fault)
        _log.info("serving", mqtt=str(self.mqtt_address), http=str(self.http_address))

    async def _start_stores(self) -> None:
        try:
            for store in (self._journal, self._records):
                if isinstance(store, SqliteJournal | SqliteRecords):
                    await store.start()
        except JournalFileError as error:
            raise ConfigurationError(str(error)) from error
        if self._registry_store is not None:
            self._registry_store.start()

    async def stop(self) -> None:
        """Stop serving: operators first, then devices."""
        self.operations.stop()
        await self._http.stop()
        await self.rollouts.stop()
        await self.webhooks.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for task in (self._tls_watch, self._figures):
            if task is not None:
                task.cancel()
        await self.front.stop()
        self._mqtt_socket.close()
        self._http_socket.close()
        if self._records is not None:
            await self._records.stop()
        if isinstance(self._journal, SqliteJournal):
            await self._journal.stop()
        if self._registry_store is not None:
            await self._registry_store.stop()
        if self._audit is not None:
            self._audit.note(Event.STOPPED)
            await asyncio.to_thread(self._audit.stop)
        self.passwords.close()

    def _websocket(self, peer: Peer | None = None, **_: object) -> WebSocket:
        """The protocol of a client that speaks MQTT over WebSocket on the HTTP port."""
        hosts = {f"{host}:{self.http_address.port}" for host in (self.http_address.host, "localhost")}
        origins = AllowedOrigins(
            hosts | self.settings.http.public_hosts, self.settings.mqtt.websocket_origins
        )
        return WebSocket(self.front, origins, peer)

    def _make_webhooks(self) -> Webhooks:
        settings = self.settings.webhooks
        try:
            secret = webhook_secret.read_or_make(self.data_dir)
        except OSError as error:
            raise ConfigurationError(f"data directory {self.data_dir}: {error}") from error
        return Webhooks(
            self.operations,
            WebhookClient(allow_private=settings.allow_private),
            secret,
            {endpoint.url: endpoint.secret.encode() for endpoint in settings.endpoints},
        )

    def _open_journal(self) -> SqliteJournal | NullJournal:
        if self.settings.in_memory:
            return NullJournal()
        try:
            return SqliteJournal(self.data_dir, max_bytes=self.settings.commands.journal_bytes)
        except JournalFileError as error:
            raise ConfigurationError(str(error)) from error

    @property
    def mqtt_url(self) -> str:
        """Where devices reach the broker."""
        scheme = "mqtt" if self._mqtt_tls is None else "mqtts"
        return self.settings.mqtt.public_url or f"{scheme}://{self.mqtt_address}"

    @property
    def http_url(self) -> str:
        """Where operators reach the broker."""
        return f"{'http' if self._http_tls is None else 'https'}://{self.http_address}"

    def _open_tls(self) -> tuple[ServerTls | None, ServerTls | None]:
        mqtt, http = self.settings.mqtt, self.settings.http
        try:
            self._ca = Path(mqtt.tls_ca).read_text("utf-8") if mqtt.tls_ca else ""
            return (
                ServerTls(mqtt.tls_cert, mqtt.tls_key, mqtt.tls_client_ca, alpn=(ALPN,))
                if mqtt.tls_cert
                else None,
                open_http_tls(http),
            )
        except (TlsError, OSError, UnicodeDecodeError, ConfigurationError) as error:
            if isinstance(self._journal, SqliteJournal):
                self._journal.release()
            raise ConfigurationError(str(error)) from error

    def _open_records(self) -> SqliteRecords | None:
        try:
            return open_records(self.settings, self.data_dir)
        except ConfigurationError:
            if isinstance(self._journal, SqliteJournal):
                self._journal.release()
            raise

    def _restore_rollouts(self) -> None:
        count = self.rollouts.restore()
        if count:
            _log.info("commands to many things go on", count=count)

    def _restore_sessions(self) -> None:
        try:
            count = self.front.restore(time.monotonic())
        except (DamagedRecord, JournalFileError) as error:
            text = f"{self.data_dir / RECORDS_FILE}: {error}. Move it away to start without sessions"
            raise ConfigurationError(text) from error
        if count:
            _log.info("sessions restored", count=count)

    def _open_audit(self) -> Audit | None:
        try:
            return open_audit(self.settings, self.data_dir)
        except ConfigurationError:
            if isinstance(self._journal, SqliteJournal):
                self._journal.release()
            raise

    def _open_registry(self) -> RegistryStore | None:
        if self.settings.open and self.settings.in_memory:
            return None
        try:
            store = RegistryStore(self.data_dir, self.things.record)
            count = self.things.restore(store.load())
        except (RegistryError, msgspec.DecodeError) as error:
            if isinstance(self._journal, SqliteJournal):
                self._journal.release()
            raise ConfigurationError(str(error)) from error
        if count:
            _log.info("things known", count=count)
        return store

    async def _password_proven(self, thing: str, password_hash: str) -> None:
        await self.directory.proven(thing, password_hash)

    def _thing_changed(self, kept: Stored, name: str) -> None:
        if self._registry_store is not None:
            self._registry_store.changed(kept, name)

    def _recover(self, journal: SqliteJournal) -> None:
        began = time.monotonic()
        enabled = gc.isenabled()
        gc.disable()  # a million objects that all stay: looking through them again and again is in vain
        try:
            count = self.service.restore(_with_progress(journal.recover(began, time.time())))
        except JournalFileError as error:
            raise ConfigurationError(str(error)) from error
        finally:
            if enabled:
                gc.enable()
        if count:
            _log.info("executions recovered", count=count, seconds=round(time.monotonic() - began, 2))


def _with_progress(executions: Iterable[Execution]) -> Iterator[Execution]:
    for count, execution in enumerate(executions, 1):
        yield execution
        if count % 250_000 == 0:
            _log.info("recovering executions", so_far=count)
