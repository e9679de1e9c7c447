"""What one connection has received: handled, tried again, acknowledged. No gmqtt, no socket.

Messages are handled at the same time, as many as the Receive Maximum lets come, so that they can
be committed together. They are acknowledged in the order in which they came [MQTT5-4.6.0-2], but
for those that could not be handled: these hold up no others, and are tried again until they
are handled or the connection is lost. Then the cluster delivers them again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Final

import structlog

from thingctl_broker.cluster.link_port import PresenceReport, Source
from thingctl_broker.system.backoff import ExponentialBackoff
from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.limits import ANNOUNCEMENT_MAX, PAYLOAD_MAX
from thingctl_protocol.messages import decode_presence
from thingctl_protocol.topics import DEVICE_KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from thingctl_broker.cluster.link_port import InboundPort
    from thingctl_broker.mqtt.protocol.packets5 import Received
    from thingctl_protocol.topics import Topics

RETRY: Final = ExponentialBackoff(first=0.1, longest=10.0)
"""Between two attempts to handle a message."""

LOOSE_MAX: Final = 1000
"""Messages of QoS 0 handled at the same time; no Receive Maximum bounds them. More are dropped."""

TOLD_EVERY: Final = 60.0
"""Seconds between two lines in the log that say the same."""

_MAX: Final = {Kind.RESPONSE: PAYLOAD_MAX, Kind.ACTIONS: ANNOUNCEMENT_MAX, Kind.PRESENCE: PAYLOAD_MAX}

_log = structlog.get_logger("thingctl.link")


class _Message:
    __slots__ = ("done", "overtaken", "packet_id")

    def __init__(self, packet_id: int) -> None:
        self.packet_id = packet_id
        self.done = False
        self.overtaken = False


class LinkInbox:
    """Between one connection and the worker."""

    def __init__(
        self,
        topics: Topics,
        incoming: InboundPort,
        acknowledge: Callable[[int], None],
        *,
        source: Source = Source.LIVE,
    ) -> None:
        """``acknowledge(packet_id)``; ``source``: of announcements that are not marked as retained."""
        self._topics = topics
        self._incoming = incoming
        self._acknowledge = acknowledge
        self._source = source
        self._order: deque[_Message] = deque()
        self._held: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loose = 0
        self._closed = asyncio.Event()
        self._told_at = float("-inf")
        self.heard_at = asyncio.get_running_loop().time()
        """When the last message came (the loop's time)."""
        self.kept_heard_at = self.heard_at
        """When the last one came that the cluster had kept, being retained."""

    @property
    def is_empty(self) -> bool:
        """Whether everything received is handled."""
        return not self._tasks and not self._held

    def close(self) -> None:
        """The connection is gone: nothing is acknowledged or begun any more; what runs may end."""
        self._closed.set()

    def take(self, received: Received) -> None:
        """A message has come."""
        self.heard_at = asyncio.get_running_loop().time()
        if received.retain:
            self.kept_heard_at = self.heard_at
        if received.qos:
            if received.packet_id in self._held:
                return  # sent again, while it is being handled: it gets one acknowledgement
            message = _Message(received.packet_id)
            self._held.add(received.packet_id)
            self._order.append(message)
        elif self._loose >= LOOSE_MAX:
            self._drop("", "tooMany", "more messages of QoS 0 than can be handled")
            return
        else:
            message = _Message(0)
            self._loose += 1
        handle = self._handler(received)
        if handle is None:
            self._handled(message)
            return
        task = asyncio.get_running_loop().create_task(self._handle(message, handle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _handler(self, received: Received) -> Callable[[], Coroutine[None, None, None]] | None:
        """How to handle a message; None: it means nothing here, which is told."""
        incoming, payload = self._incoming, received.payload
        topic = self._topics.parse(received.topic)
        if topic is None or topic.kind not in DEVICE_KINDS:
            self._drop("", "unknownTopic", f"not a topic of things: {received.topic[:200]!a}")
            return None
        thing, kind, execution_id = topic
        if len(payload) > _MAX[kind]:
            self._drop(thing, "tooLarge", f"{len(payload)} bytes on {kind}; at most {_MAX[kind]} are allowed")
        elif kind is Kind.RESPONSE and execution_id is not None:
            return lambda: incoming.responded(thing, execution_id, payload)
        elif kind is Kind.ACTIONS:
            source = Source.RETAINED if received.retain else self._source
            return lambda: incoming.announced(thing, payload, source)
        else:
            try:
                said = decode_presence(payload)
            except ProtocolError as error:
                self._drop(thing, "badPresence", f"{error.text} (at {error.pointer or 'the whole'})")
                return None
            presence = PresenceReport(thing, said.online, said.client_id, said.at)
            return lambda: incoming.present(presence)
        return None

    async def _handle(self, message: _Message, handle: Callable[[], Coroutine[None, None, None]]) -> None:
        for failures in count(1):
            try:
                await handle()
            except Exception as error:  # whatever it is, the message must not be lost for it
                self._failed(message, error)
            else:
                self._handled(message)
                return
            try:
                async with asyncio.timeout(RETRY.delay(failures)):
                    await self._closed.wait()
                    return
            except TimeoutError:
                pass

    def _failed(self, message: _Message, error: Exception) -> None:
        message.overtaken = True
        self._advance()
        now = asyncio.get_running_loop().time()
        if now >= self._told_at + TOLD_EVERY:
            self._told_at = now
            _log.warning(
                "a message could not be handled; it is kept and tried again",
                error=str(error) or type(error).__name__,
            )

    def _handled(self, message: _Message) -> None:
        message.done = True
        if not message.packet_id:
            self._loose -= 1
        elif message.overtaken:
            self._answer(message)
        else:
            self._advance()

    def _advance(self) -> None:
        order = self._order
        while order and (order[0].done or order[0].overtaken):
            message = order.popleft()
            if not message.overtaken:
                self._answer(message)

    def _answer(self, message: _Message) -> None:
        self._held.discard(message.packet_id)
        if not self._closed.is_set():
            self._acknowledge(message.packet_id)

    def _drop(self, thing: str, reason: str, text: str) -> None:
        try:
            self._incoming.dropped(thing, reason, text)
        except Exception:  # counting what is dropped must not stop the link
            _log.exception("a dropped message was not counted")
