"""Messages between clients of amqtt's own listeners and clients of our server. Each crosses once.

From amqtt come its clients' messages (after amqtt's checks), their wills, and what plugins say by
amqtt's in-process API. To amqtt go our clients' messages. A message that has crossed never crosses back:
what is put into amqtt here goes around the place where amqtt's messages are taken, and what is put
into our server is no message of a client.

The command namespace stays ours, and ``$SYS`` of each side stays there.

A retained message is kept on one side: where it was published last. A client of amqtt's that
subscribes gets those of our side from here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from thingctl_broker.mqtt.amqtt.stuck_clients import StuckClients
from thingctl_protocol.topics import is_topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqtt.session import ApplicationMessage, Session

    from thingctl_broker.mqtt.amqtt.plugin_events import FaultNote
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_protocol.topics import Topics

WAITING: Final = 10_000
"""Messages that wait for amqtt."""

WAITING_BYTES: Final = 16 * 1024 * 1024
"""Bytes of their topics and payloads."""

BACKLOG: Final = 500
"""Messages and deliveries that amqtt has not finished, at which it gets no more."""

BACKLOG_BYTES: Final = 16 * 1024 * 1024
"""The same in bytes, if each was as large as the largest."""

_RETRY: Final = 0.005
"""Seconds between two looks at amqtt's backlog: amqtt has no event for it."""

_TOPIC_BYTES: Final = 0xFFFF


class HostedServer(Protocol):
    """What is needed of our server."""

    @property
    def events(self) -> list[Any]:
        """Those that hear of its clients: each is a ``ServerEvents``."""
        ...

    @property
    def topics(self) -> Topics:
        """The topics of commands."""
        ...

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, publisher: str = ""
    ) -> None:
        """Publish a message to our clients, and retain it if asked to. No event comes of it."""
        ...

    def retain(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        """Retain a message, or with an empty payload clear it, and deliver it to no one."""
        ...

    def retained(self, topic_filter: str) -> Iterable[Message]:
        """Return the retained messages that match a filter."""
        ...


class _Outgoing(NamedTuple):
    topic: str
    payload: bytes
    qos: int | None
    """None: what each subscription was granted."""

    @property
    def size(self) -> int:
        return len(self.topic) + len(self.payload)


class MessageExchange:
    """Carries messages both ways."""

    def __init__(self, broker: Any, server: HostedServer, largest: int, note: FaultNote) -> None:
        """``broker``: amqtt's. ``largest``: bytes of the largest message that comes from amqtt."""
        self._broker = broker
        self._server = server
        self._largest = largest
        self._note = note
        self._broadcast = broker._broadcast_message  # noqa: SLF001 a contract test holds the name
        self._stuck = StuckClients(broker)
        self._waiting: deque[_Outgoing] = deque()
        self._bytes = 0
        self._largest_handed = 1
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to carry. What amqtt has retained by now is retained on our side too."""
        self._broker._broadcast_message = self._tap  # noqa: SLF001 a contract test holds the name
        self._worker = asyncio.get_running_loop().create_task(self._work())
        for topic, message in tuple(self._broker.retained_messages.items()):
            if self._crosses(topic, message.data) and not tuple(self._server.retained(topic)):
                self._server.retain(topic, bytes(message.data), qos=message.qos or 0)

    async def stop(self) -> None:
        """End it. What still waits for amqtt is dropped."""
        self._broker._broadcast_message = self._broadcast  # noqa: SLF001 a contract test holds the name
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    # From amqtt.

    def take(self, message: ApplicationMessage) -> None:
        """A client of amqtt's has published a message, and amqtt distributes it."""
        retain = message.publish_packet is not None and message.publish_packet.retain_flag
        self._publish(message.topic, message.data, message.qos or 0, retain=retain)

    def take_retained(self, message: Any) -> bool:
        """Amqtt has retained a plugin's message, or cleared it; return whether it has crossed.

        One of a client is none of these: it comes by ``take``.
        """
        if message.source_session is not None or not self._crosses(message.topic, message.data):
            return False
        self._server.retain(message.topic, bytes(message.data or b""), qos=message.qos or 0)
        return True

    async def send_retained(self, client_id: str, topic_filter: str, qos: int) -> None:
        """A client of amqtt's has subscribed: send it what our side has retained."""
        _, handler = self._broker.sessions.get(client_id, (None, None))
        if handler is None:
            return
        theirs = self._broker.retained_messages
        deliveries = [
            handler.mqtt_publish(message.topic, message.payload, min(qos, message.qos), retain=True)
            for message in self._server.retained(topic_filter)
            if message.topic not in theirs and self._is_shared(message.topic)
        ]
        await asyncio.gather(*deliveries, return_exceptions=True)  # the client may go

    async def _tap(
        self,
        session: Session | None,
        topic: str | None,
        data: bytes | bytearray | None,
        force_qos: int | None = None,
    ) -> None:
        """Stand in for amqtt's own: every message that amqtt distributes comes by here.

        Of a client's message the QoS is not known here, so ``take`` gets it. A will comes with its QoS.
        """
        if session is None:
            self._publish(topic, data, 2 if force_qos is None else force_qos)
        elif force_qos is not None:
            self._publish(topic, data, force_qos, retain=bool(session.will_retain))
        await self._broadcast(session, topic, data, force_qos)

    def _publish(self, topic: Any, data: Any, qos: int, *, retain: bool = False) -> None:
        if self._crosses(topic, data):
            self._server.publish(topic, bytes(data or b""), qos=qos, retain=retain)

    def _crosses(self, topic: Any, data: Any) -> bool:
        """Whether a message of amqtt's comes to our side. A plugin may give anything."""
        if not (isinstance(topic, str) and isinstance(data, bytes | bytearray | None) and is_topic(topic)):
            return False
        if not self._is_shared(topic):
            return False
        size = len(topic.encode(errors="replace"))
        if size > _TOPIC_BYTES or size + len(data or b"") > self._largest:
            text = "a message from amqtt's side is larger than limits.packet_bytes: our clients do not get it"
            self._note("amqttTooLarge", text, who=topic[:200])
            return False
        return True

    def _is_shared(self, topic: str) -> bool:
        return not (topic.startswith("$SYS/") or self._server.topics.owns(topic))

    # To amqtt.

    def carry(self, message: Message) -> None:
        """Give a message of one of our clients to amqtt's subscribers."""
        topic = message.topic
        if not self._is_shared(topic):
            return
        if message.retain:
            self._broker.retained_messages.pop(topic, None)  # the latest is on our side now
        if not self._broker.subscriptions:
            return
        # amqtt delivers at the QoS of the subscription unless it is given one.
        outgoing = _Outgoing(topic, message.payload, None if message.qos else 0)
        if len(self._waiting) >= WAITING or self._bytes + outgoing.size > WAITING_BYTES:
            text = "amqtt's own clients do not keep up: they lose a message of ours"
            self._note("amqttBehind", text, topic=topic[:200])
            return
        self._waiting.append(outgoing)
        self._bytes += outgoing.size
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._until_amqtt_follows()
                outgoing = self._waiting.popleft()
                self._bytes -= outgoing.size
                self._largest_handed = max(self._largest_handed, outgoing.size)
                await self._broadcast(None, *outgoing)

    async def _until_amqtt_follows(self) -> None:
        while self._is_behind():
            for client_id in self._stuck.abort(asyncio.get_running_loop().time()):
                text = (
                    "a client of amqtt's own does not read, and holds up the others: its connection is ended"
                )
                self._note("amqttStuck", text, who=client_id)
            await asyncio.sleep(_RETRY)
        self._stuck.forget()

    def _is_behind(self) -> bool:
        """Whether amqtt has as much to do as it may have. It bounds nothing itself."""
        most = max(1, min(BACKLOG, BACKLOG_BYTES // self._largest_handed))
        waiting: int = self._broker._broadcast_queue.qsize()  # noqa: SLF001 a contract test holds the name
        deliveries = self._broker._tasks_queue  # noqa: SLF001 a contract test holds the name
        if waiting + len(deliveries) < most:
            return False
        return waiting + sum(not delivery.done() for delivery in deliveries) >= most
