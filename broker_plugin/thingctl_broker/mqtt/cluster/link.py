"""How a worker reaches things over an MQTT 5 cluster: ``cluster.link_ports.ThingLink``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.cluster.link_port import LinkDown, Source
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.cluster.dialer import LinkDialer, wait_after
from thingctl_broker.mqtt.cluster.session import LinkSession
from thingctl_broker.mqtt.cluster.share_probe import is_shared
from thingctl_broker.mqtt.protocol.reason_codes import SESSION_TAKEN_OVER, RequestRefused
from thingctl_protocol.messages import EMPTY_OBJECT, encode_time
from thingctl_protocol.topics import DEVICE_KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.cluster.link_port import Handed, InboundPort
    from thingctl_broker.mqtt.cluster.settings import LinkSettings
    from thingctl_protocol.topics import Topics

CANCEL_EXPIRY: Final = 60.0
"""Seconds that the cluster keeps a cancel for a thing that is away and has a kept session."""

STEADY_AFTER: Final = 10.0
"""Seconds after which a connection counts as a good one; one lost sooner is a failure, too."""

LOST_TOO_OFTEN: Final = 3
"""Connections in a row that were lost sooner than :data:`STEADY_AFTER`: another client has this id?"""

STOP_WITHIN: Final = 10.0
"""Seconds for what was received to be handled when the worker stops."""

CAUGHT_UP_AFTER: Final = 2.0
"""Seconds without a message after which the cluster has sent all announcements that it had kept."""

_log = structlog.get_logger("thingctl.link")


class ClusterLink:
    """One worker's link. ``settings`` have passed ``check_link``."""

    def __init__(self, settings: LinkSettings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self._filters = [topics.shared(settings.group, kind) for kind in sorted(DEVICE_KINDS)]
        self._dialer = LinkDialer(settings)
        self._incoming: InboundPort | None = None
        self._on_state: Callable[[bool], None] = lambda _: None
        self._session: LinkSession | None = None
        self._runner: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection, and the subscriptions are granted."""
        return self._session is not None

    async def start(self, incoming: InboundPort, on_state: Callable[[bool], None]) -> None:
        """Connect and subscribe, and connect again whenever the connection is lost.

        Returns at the first success. Raises :class:`~thingctl_broker.errors.ConfigurationError` when
        every address refuses for good: password, ACL, a broker without MQTT 5.
        """
        self._incoming, self._on_state = incoming, on_state
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runner = asyncio.get_running_loop().create_task(self._run(incoming, first))
        try:
            await asyncio.wait({first, self._runner}, return_when=asyncio.FIRST_COMPLETED)
            await (first if first.done() else self._runner)
        except BaseException:
            await self._stop_running()
            raise

    async def stop(self) -> bool:
        """Let go: what was received is handled and acknowledged, then the session ends.

        False: it could not be ended (no connection, or the worker's store was down); the cluster
        keeps it, for another worker to adopt.
        """
        await self._stop_running()
        session = self._session
        if session is None:
            return False
        try:
            return await session.finish(self._filters, STOP_WITHIN)
        except LinkDown as error:
            _log.warning("the session could not be ended; it is kept for others", reason=str(error))
            return False
        finally:
            self._set(None)

    async def publish_request(
        self, thing: str, execution_id: str, payload: bytes, expires_in: float
    ) -> Handed:
        """Publish a request (QoS 1, forgotten after ``expires_in`` seconds); return at its PUBACK.

        Raises :class:`LinkDown` when the connection is away or is lost on the way, and when the
        cluster refuses to take the request.
        """
        return await self._up().outbox.put(self._topics.request(thing, execution_id), payload, expires_in)

    def publish_cancel(self, thing: str, execution_id: str) -> None:
        """Ask the thing to stop, if it listens. Raises :class:`LinkDown`."""
        self._up().outbox.post(self._topics.cancel(thing, execution_id), EMPTY_OBJECT, CANCEL_EXPIRY)

    def publish_time(self, thing: str, at: float) -> None:
        """Tell a thing the time (QoS 0). Does nothing without a connection."""
        if self._session is not None and not self._session.connection.lost.done():
            self._session.connection.publish(self._topics.time(thing), encode_time(at), qos=0)

    async def adopt(self, client_id: str) -> None:
        """Take over the session of a worker that has died: handle what was queued for it, then end it.

        Its shared subscriptions go first: nothing new is routed to it. Returns when nothing
        more came and the session is gone; what one announcement in it says may be old, and is
        :attr:`Source.RETAINED`. Raises :class:`LinkDown`: the session is still kept then.
        """
        assert self._incoming is not None, "a link that has not been started adopts no other"
        try:
            session = await LinkSession.open(
                self._dialer, client_id, self._topics, self._incoming, source=Source.RETAINED
            )
        except RequestRefused as refused:
            raise LinkDown(f"{client_id} cannot be adopted: {refused.text}") from None
        if not session.connection.session_present:
            await session.connection.end(session=True)
            return
        await session.finish(self._filters)
        _log.info("adopted the session of a worker that has gone", clientId=client_id)

    async def catch_up(self) -> None:
        """Hear all announcements that the cluster has kept, once, as :attr:`Source.RETAINED`.

        A shared subscription is sent none of them [MQTT 5.0 section 4.8.2], so what was announced
        while the group had no session at all is heard in no other way. Returns when all have
        come; raises :class:`LinkDown`.
        """
        session = self._up()
        topic_filter = [self._topics.every(Kind.ACTIONS)]
        try:
            await session.connection.subscribe(topic_filter)
            await session.all_kept(CAUGHT_UP_AFTER)
            await session.connection.unsubscribe(topic_filter)
        except RequestRefused as refused:
            raise LinkDown(refused.text) from None

    # -- inside

    def _up(self) -> LinkSession:
        if self._session is None:
            raise LinkDown("there is no connection to the MQTT cluster")
        return self._session

    async def _run(self, incoming: InboundPort, first: asyncio.Future[None]) -> None:
        failures = 0
        while True:
            try:
                session = await self._attach(incoming)
            except Exception as error:
                refused = (
                    error
                    if isinstance(error, RequestRefused)
                    else RequestRefused(f"{type(error).__name__}: {error}")
                )
                if (
                    refused is not error
                ):  # a fault of ours, perhaps; a worker must not be deaf for ever for it
                    _log.exception("connecting to the cluster failed")
                if refused.for_good and not first.done():
                    first.set_exception(ConfigurationError(f"link: {refused.text}"))
                    return
                failures += 1
                wait = wait_after(failures, for_good=refused.for_good)
                tell = _log.error if refused.for_good else _log.warning
                tell("not connected to the cluster", reason=refused.text, retryIn=round(wait, 1))
                await asyncio.sleep(wait)
                continue
            self._set(session)
            since = asyncio.get_running_loop().time()
            if not first.done():
                first.set_result(None)
                if self._topics.root.startswith("$"):
                    self._prober = asyncio.get_running_loop().create_task(self._probe())
            _log.info("connected to the cluster", clientId=self._settings.client_id)
            reason = await asyncio.shield(session.connection.lost)
            self._set(None)
            _log.warning("the connection to the cluster was lost", reason=reason)
            taken_over = session.connection.reason == SESSION_TAKEN_OVER
            if taken_over:
                _log.error(
                    "another client came with this worker's client id: does another worker have the same "
                    "name, or was this one taken for dead?",
                    clientId=self._settings.client_id,
                )
            failures = 0 if asyncio.get_running_loop().time() >= since + STEADY_AFTER else failures + 1
            if failures == LOST_TOO_OFTEN and not taken_over:  # not every broker says why it drops a client
                _log.error(
                    "the connection is lost again and again as soon as it is made: does another worker have "
                    "the same name?",
                    clientId=self._settings.client_id,
                )
            await asyncio.sleep(wait_after(failures + 1, for_good=taken_over))

    async def _attach(self, incoming: InboundPort) -> LinkSession:
        session = await LinkSession.open(self._dialer, self._settings.client_id, self._topics, incoming)
        try:
            await session.connection.subscribe(self._filters)
            if session.connection.session_present:  # a catching up that broke off
                await session.connection.unsubscribe([self._topics.every(Kind.ACTIONS)])
        except BaseException:
            session.connection.abort("not subscribed")
            raise
        return session

    async def _probe(self) -> None:
        """Warn if this cluster is one that shares no topics which begin with ``$``."""
        if await is_shared(self._dialer, self._settings.client_id, self._topics) is False:
            _log.warning(
                "no response will ever be heard: what is published under the topic root does not reach "
                "shared subscriptions. mosquitto shares no topic that begins with $: set mqtt.topic_root of "
                "the workers, and topic_root of the agents, to one that does not",
                topicRoot=self._topics.root,
            )

    async def _stop_running(self) -> None:
        running = [task for task in (self._runner, self._prober) if task is not None]
        self._runner = self._prober = None
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _set(self, session: LinkSession | None) -> None:
        was, self._session = self._session, session
        if (was is None) != (session is None):
            try:
                self._on_state(session is not None)
            except Exception:  # the link goes on, whatever its owner makes of it
                _log.exception("a change of the link was not taken note of")
