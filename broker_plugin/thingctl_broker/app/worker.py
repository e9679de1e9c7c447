"""One worker put together: ``thingctl serve --link … --store …``."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.app.operator_access import OperatorAccess
from thingctl_broker.app.startup import data_dir_of
from thingctl_broker.cluster.clock import StoreClock
from thingctl_broker.cluster.dispatcher import ClusterDispatcher
from thingctl_broker.cluster.inbound import InboundMessages
from thingctl_broker.cluster.link_port import LinkDown
from thingctl_broker.cluster.maintenance import ALIVE_SECONDS, Maintenance
from thingctl_broker.cluster.operations import ClusterOperations
from thingctl_broker.cluster.reachability import Reachability
from thingctl_broker.cluster.registry_replica import RegistryReplica
from thingctl_broker.cluster.rollouts import ClusterRollouts
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.cluster.token_replica import KIND as TOKEN_KIND
from thingctl_broker.cluster.token_replica import SharedTokens
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.cluster.link import ClusterLink
from thingctl_broker.security.token_file import keep_admin_token
from thingctl_broker.security.tokens import CredentialsError
from thingctl_broker.storage.postgres.schema import SchemaError
from thingctl_broker.storage.postgres.settings import shown
from thingctl_broker.storage.postgres.store import PostgresStore
from thingctl_broker.system.clock import SystemClock
from thingctl_broker.things.enrolment import worker_url
from thingctl_broker.webhooks import secret as webhook_secret
from thingctl_protocol.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from thingctl_broker.app.config import Settings
    from thingctl_broker.system.addresses import Address

RELOAD_SECONDS: Final = 1.0
"""Between two tries to load the things again."""

_log = structlog.get_logger("thingctl.cluster")


class Worker:
    """Everything of one worker. Building it binds the port and opens the audit file."""

    def __init__(self, settings: Settings) -> None:
        """Raises :class:`~thingctl_broker.errors.ConfigurationError`."""
        assert settings.link is not None
        assert settings.store is not None
        self.settings = settings
        self.data_dir = data_dir_of(settings)
        self.name = settings.link.client_id
        """The MQTT client id, which no other worker has."""
        self.store_name = shown(settings.store.url)
        """The database, without its password."""
        self._access = OperatorAccess(settings)
        try:
            self._access.listen()
        except ConfigurationError:
            self._access.abandon()
            raise
        self.http_address: Address = self._access.address
        self.http_url = self._access.url
        self._clock = clock = StoreClock(SystemClock())
        self._store = PostgresStore(settings.store, tell_all=bool(settings.webhooks.endpoints))
        executions, documents = self._store.executions, self._store.documents
        self._mirror = RegistryReplica(
            documents, is_heard=lambda: self._store.connected, enrols=settings.open
        )
        self.things = self._mirror.things
        self.tokens = SharedTokens(documents, os.environ.get("THINGCTL_ADMIN_TOKEN"), clock.unix)
        self._link = ClusterLink(settings.link, Topics(settings.mqtt.topic_root))
        reach = Reachability(self.things)
        self.operations = ClusterOperations(
            clock=clock,
            store=executions,
            link=self._link,
            mirror=self._mirror,
            reach=reach,
            settings=settings.service,
            queue_max=settings.commands.queue,
        )
        requests = ClusterDispatcher(executions, self._link, reach, clock, self.operations.changed_here)
        self.operations.requests = self._requests = requests
        self._incoming = InboundMessages(
            operations=self.operations,
            store=executions,
            mirror=self._mirror,
            link=self._link,
            reach=reach,
            requests=requests,
        )
        self._rollouts = ClusterRollouts(self.operations, executions, self._store.rollouts, self.name)
        self._sweeper = Maintenance(
            operations=self.operations,
            store=executions,
            workers=self._store.workers,
            mirror=self._mirror,
            link=self._link,
            requests=requests,
            clock=clock,
            client_id=self.name,
            keep=settings.commands.keep,
        )
        public_url, link_url = settings.mqtt.public_url, settings.link.urls[0]
        self.enrolment = self._access.make_enrolment(lambda: worker_url(public_url, link_url), presence=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def mqtt_url(self) -> str:
        """Where devices reach the cluster."""
        assert self.settings.link is not None
        return self.settings.mqtt.public_url or self.settings.link.urls[0]

    async def start(self) -> None:
        """Begin to serve. Raises :class:`~thingctl_broker.errors.ConfigurationError`."""
        try:
            await self._store.start(self)
            alone = await self._store.workers.count() == 0
            things = await self._mirror.load()
            await self.tokens.load()
            if self.tokens.new_admin_token is not None:
                keep_admin_token(self.data_dir, self.tokens.new_admin_token)
            await self._store.executions.tidy(self.settings.commands.keep)
            self._access.compose(
                self.operations,
                self._rollouts,
                self.tokens,
                registry=self._mirror,
                secret=await self._read_webhook_secret(),
            )
            await self._clock.follow(self._store.workers.alive(self.name, ALIVE_SECONDS))
        except (StoreDown, SchemaError) as error:
            raise ConfigurationError(f"store {self.store_name}: {error}") from error
        except CredentialsError as error:
            raise ConfigurationError(error.text) from error
        if things:
            _log.info("things known", count=things)
        self._access.begin_audit(self.operations.events, self.name)
        # Operators are served while the cluster is still away: what they send waits.
        linking = asyncio.get_running_loop().create_task(
            self._link.start(self._incoming, self._link_changed), name="link"
        )
        await asyncio.sleep(0)
        self._sweeper.start()
        await self._access.start()
        try:
            await linking
        finally:
            linking.cancel()
        if alone:
            self._spawn(self._catch_up())
        if self.settings.open:
            _log.warning("OPEN ENROLMENT: whatever speaks on a thing's topics becomes known; for labs only")
        _log.info("serving", worker=self.name, http=str(self.http_address), store=self.store_name)

    async def stop(self) -> None:
        """Stop serving: operators first, then the cluster; what is left to do others will."""
        self._stopping = True
        await self._access.stop()
        await self._sweeper.stop()
        await self._requests.stop()
        ended = await self._link.stop()
        await self._requests.stop()  # what the last messages have set going
        if ended:
            try:
                await self._store.workers.gone(self.name)
            except StoreDown:
                _log.warning("the store is away: another worker will look for this one's session")
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._mirror.stop()
        await self._store.stop()
        await self._access.close()

    # What the store tells.

    def changed(self, execution_ids: Sequence[str], ended: Sequence[str]) -> None:
        """Executions have changed."""
        self.operations.changed(execution_ids, ended)

    def document_changed(self, kind: str, name: str) -> None:
        """A record is another one now, or gone."""
        if kind == TOKEN_KIND:
            self._spawn(self._load_tokens())
        else:
            self._mirror.document_changed(kind, name)

    def rollout_changed(self, command_id: str) -> None:
        """A rollout was added or moved."""
        self._rollouts.rollout_changed(command_id)

    def missed(self) -> None:
        """Changes may have gone unheard: everything is looked at again."""
        self.operations.missed()
        self._mirror.outdated()
        self._spawn(self._load_again())

    # How it is done.

    async def _read_webhook_secret(self) -> bytes:
        """What posts are signed with, the same at every worker: made by the first one."""
        secret = secrets.token_urlsafe(32).encode()
        await self._store.documents.put([(*webhook_secret.RECORD, secret)], new=True)
        return await self._store.documents.find(*webhook_secret.RECORD) or secret

    def _link_changed(self, connected: bool) -> None:
        if connected:
            self._sweeper.linked()
        elif not self._stopping:
            _log.warning("the MQTT cluster is away: commands wait")

    async def _catch_up(self) -> None:
        """Nobody of the group has listened: hear what things have announced meanwhile."""
        try:
            await self._link.catch_up()
        except LinkDown as error:
            _log.warning("what things have announced could not be heard again", fault=str(error))

    async def _load_tokens(self) -> None:
        if not await self.tokens.look_again(at_once=True):
            self.missed()

    async def _load_again(self) -> None:
        while True:
            try:
                await self._mirror.load()
                await self.tokens.load()
            except Exception as error:  # nothing would be accepted any more if this task ended
                _log.warning("the things cannot be loaded again yet", fault=str(error))
                await asyncio.sleep(RELOAD_SECONDS)
            else:
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
