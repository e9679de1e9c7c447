"""What a broker and a worker give their operators alike: the HTTP API, webhooks, bundles and the audit."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from thingctl_broker.app.startup import (
    data_dir_of,
    open_audit,
    open_http_tls,
    open_socket,
    report_proxies,
    report_refusals,
)
from thingctl_broker.audit.log import TOLD
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.http.app import create_app
from thingctl_broker.http.server.server import HttpServer
from thingctl_broker.security.audit_events import Event, note_nothing
from thingctl_broker.security.passwords import Passwords
from thingctl_broker.security.tls import ServerTls, keep_looking
from thingctl_broker.system.addresses import Address, bound_to
from thingctl_broker.things.enrolment import Enrolment
from thingctl_broker.things.service import ThingService
from thingctl_broker.webhooks.client import WebhookClient
from thingctl_broker.webhooks.sender import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.app.config import Settings
    from thingctl_broker.commands.events import Events
    from thingctl_broker.commands.operations import Operations
    from thingctl_broker.rollouts.driver import RolloutDriver
    from thingctl_broker.security.audit_events import Note
    from thingctl_broker.security.token_store import TokenStore
    from thingctl_broker.things.mqtt_clients import MqttClients
    from thingctl_broker.things.service import Expel, Store

_log = structlog.get_logger("thingctl.broker")


class OperatorAccess:
    """The operators' side of one process.

    Its parts come in three steps: the constructor opens files, :meth:`listen` binds the port, and
    :meth:`compose` joins them to what carries out commands.
    """

    def __init__(self, settings: Settings) -> None:
        """Open the certificates and the audit. Raises :class:`~thingctl_broker.errors.ConfigurationError`."""
        self.settings = settings
        self.data_dir = data_dir_of(settings)
        self.tls = open_http_tls(settings.http)
        self.ca = _read_ca(settings.mqtt.tls_ca)
        self.audit = open_audit(settings, self.data_dir)
        self.note: Note = note_nothing if self.audit is None else self.audit.note
        self.passwords = Passwords()
        self._undo = ExitStack()
        self._undo.callback(self.passwords.close)
        if self.audit is not None:
            self._undo.callback(self.audit.stop)
        self._operations: Operations
        self._rollouts: RolloutDriver
        self._http: HttpServer | None = None
        self._tls_watch: asyncio.Task[None] | None = None
        self.enrolment: Enrolment
        self.directory: ThingService
        self.webhooks: Webhooks

    def listen(self) -> None:
        """Bind the port. Raises :class:`~thingctl_broker.errors.ConfigurationError`."""
        self._socket = open_socket("http", self.settings.http.bind)
        self._undo.callback(self._socket.close)
        self.address: Address = bound_to(self._socket)

    @property
    def url(self) -> str:
        """Where operators reach this process."""
        return f"{'http' if self.tls is None else 'https'}://{self.address}"

    def make_enrolment(self, find_url: Callable[[], str], *, presence: bool = False) -> Enrolment:
        """What devices are given. ``find_url``: as for :class:`Enrolment`."""
        self.enrolment = Enrolment(
            find_url,
            ca=self.ca,
            topic_root=self.settings.mqtt.topic_root,
            is_open=self.settings.open,
            presence=presence,
        )
        return self.enrolment

    def compose(
        self,
        operations: Operations,
        rollouts: RolloutDriver,
        tokens: TokenStore,
        *,
        registry: Store | None,
        secret: bytes,
        expel: Expel | None = None,
        websocket: Callable[..., asyncio.Protocol] | None = None,
        connections: Callable[[], int] | None = None,
        clients: MqttClients | None = None,
    ) -> None:
        """Join the HTTP server and the webhooks to what carries out commands.

        ``secret`` signs the post-backs. ``registry`` keeps the records of things, and ``expel`` closes
        their connections. ``websocket``, ``connections`` and ``clients`` are those of the MQTT server.
        """
        settings = self.settings
        self._operations, self._rollouts = operations, rollouts
        self.directory = ThingService(
            operations, self.passwords, registry, expel, self.note, enrolment=self.enrolment
        )
        self.webhooks = Webhooks(
            operations,
            WebhookClient(allow_private=settings.webhooks.allow_private),
            secret,
            {endpoint.url: endpoint.secret.encode() for endpoint in settings.webhooks.endpoints},
        )
        self._http = HttpServer(
            create_app(
                operations,
                rollouts,
                tokens,
                self.directory,
                self.note,
                connections=connections,
                clients=clients,
                rate=settings.http.rate,
                public_url=settings.http.public_url,
                ttl_max=settings.commands.ttl_max,
            ),
            self._socket,
            websocket,
            None if self.tls is None else self.tls.context,
            proxies=settings.http.proxies,
            refused=report_proxies("http", operations.counters),
        )

    def begin_audit(self, events: Events, detail: str) -> None:
        """Write down the start, and from here on what becomes of executions."""
        if self.audit is not None:
            events.subscribe(self.audit.on_change, TOLD)
            self.audit.note(Event.STARTED, detail=detail)

    async def start(self, *listeners: ServerTls | None) -> None:
        """Serve operators. ``listeners``: further certificates to reload when their files change."""
        assert self._http is not None, "compose comes first"
        report_refusals(self.tls, "http", self._operations.counters)
        watched = [tls for tls in (self.tls, *listeners) if tls is not None]
        if watched:
            self._tls_watch = asyncio.get_running_loop().create_task(keep_looking(watched))
        self._rollouts.start()
        self.webhooks.start()
        await self._http.start()
        if fault := self.enrolment.fault:
            _log.warning("there are no bundles for devices", fault=fault)

    async def stop(self) -> None:
        """Answer no operator any more, and send nothing for one; what is accepted goes on being kept."""
        if self._http is None:
            return
        self._operations.stop()
        await self._http.stop()
        await self._rollouts.stop()
        await self.webhooks.stop()
        if self._tls_watch is not None:
            self._tls_watch.cancel()

    async def close(self) -> None:
        """Write down the end, and give back what is open."""
        if self.audit is not None:
            self.audit.note(Event.STOPPED)
        await asyncio.to_thread(self.abandon)

    def abandon(self) -> None:
        """Give back what is open, and write down nothing."""
        self._undo.close()


def _read_ca(path: str) -> str:
    try:
        return Path(path).read_text("utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(error)) from error
