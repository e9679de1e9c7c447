"""A client's CONNECT: checked, shown to the authenticator, and kept waiting while that takes its time."""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import structlog

from thingctl_broker.mqtt.protocol.connect import parse_connect
from thingctl_broker.mqtt.protocol.packets import ConnectRefused
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_protocol.topics import Kind, is_topic

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from thingctl_broker.mqtt.auth.authenticator import Identity
    from thingctl_broker.mqtt.protocol.frames import Frame
    from thingctl_broker.mqtt.protocol.packets import Connect
    from thingctl_broker.mqtt.server.client import ServerPort
    from thingctl_broker.mqtt.server.limits import MqttLimits

_log = structlog.get_logger("thingctl.mqtt")


class PendingConnection(Protocol):
    """The connection of a client that is not admitted yet."""

    server: ServerPort
    limits: MqttLimits
    peer: tuple[str, int]

    @property
    def certificate(self) -> tuple[str, ...]:
        """The names in the client's certificate."""
        ...

    def takes_answer(self, connect: Connect, assigned: str) -> bool:
        """Whether the CONNACK that lets the client in is one that it takes."""
        ...

    def admit(self, connect: Connect, admission: Identity, assigned: str) -> None:
        """Let the client in. ``assigned``: the client id that it was given, having none."""
        ...

    def refuse(self, refusal: ConnectRefused, connect: Connect | None) -> None:
        """Turn the client away. ``connect``: its CONNECT, None if that is not known."""
        ...

    def hold_reading(self, *, stop: bool) -> None:
        """Stop reading, or undo one earlier stop."""
        ...

    def read_on(self) -> None:
        """Go on where reading stopped at the CONNECT."""
        ...

    def is_closed(self) -> bool:
        """Whether the connection has ended for this side."""
        ...

    def finish(self) -> None:
        """End the connection when what was written has gone out."""
        ...


class Handshake:
    """From the CONNECT to the connection's ``admit`` or ``refuse``."""

    __slots__ = ("_assigned", "_connection", "_is_held", "_task", "_unread_bytes", "is_last_word")

    def __init__(self, connection: PendingConnection) -> None:
        self._connection = connection
        self.is_last_word = False
        """Whether the client has closed its side since."""
        self._unread_bytes = 0
        self._is_held = False
        self._assigned = ""
        self._task: asyncio.Task[None] | None = None

    def begin(self, frame: Frame) -> bool:
        """Take the CONNECT; return whether it has been decided on. False: it will be, later."""
        connection, connect = self._connection, None
        try:
            connect = parse_connect(frame)
            connect = self._with_will_checked(connect)
            if not connect.client_id:
                self._assigned = f"auto-{uuid4().hex}"  # [MQTT-3.1.3-6]
                connect = connect._replace(client_id=self._assigned)
            connect = connect._replace(certificate=connection.certificate)
            admission = connection.server.gatekeeper.admit(connect, connection.peer)
        except ConnectRefused as refusal:
            connection.refuse(refusal, connect)
            return True
        if not isawaitable(admission):
            if self._is_answerable(connect):
                self._admit(connect, admission)
            return True
        self._task = asyncio.get_running_loop().create_task(self._decide(connect, admission))
        return False

    def leaves_unread(self, count: int) -> bool:
        """Note that ``count`` bytes more must wait; return whether to stop reading now.

        Not with the first of them: a client that is not read from is not seen to go.
        """
        self._unread_bytes += count
        if self._is_held or self._unread_bytes <= self._connection.limits.connect_bytes:
            return False
        self._is_held = True
        return True

    def cancel(self) -> None:
        """The client has gone."""
        if self._task is not None:
            self._task.cancel()

    def _with_will_checked(self, connect: Connect) -> Connect:
        """A will is published as if its client did it, so it needs the same permission."""
        if connect.will is None:
            return connect
        topic, topics = connect.will.topic, self._connection.server.topics
        named = topics.parse(topic)
        if named is not None and named.kind is Kind.PRESENCE:
            return connect._replace(will=None)  # who has gone is seen here: it need not be published
        if topic.startswith("$SYS/"):
            # A bridge's, by default. What the broker says of itself no client may say.
            self._connection.server.note(
                "willDropped", "a will under $SYS is not published", who=connect.client_id, topic=topic[:200]
            )
            return connect._replace(will=None)
        if topic.startswith("$") or topics.owns(topic) or not is_topic(topic):
            raise ConnectRefused(Reason.NOT_AUTHORIZED, f"a will on topic {topic[:80]!a}")
        return connect

    def _is_answerable(self, connect: Connect) -> bool:
        """Whether the client takes its CONNACK; if not, it is turned away [MQTT5-3.1.2-24]."""
        if self._connection.takes_answer(connect, self._assigned):
            return True
        text = "the CONNACK is longer than the Maximum Packet Size"
        self._connection.refuse(ConnectRefused(Reason.PACKET_TOO_LARGE, text), connect)
        return False

    def _admit(self, connect: Connect, admission: Identity) -> None:
        if admission.client_id is not None:
            connect = connect._replace(client_id=admission.client_id)
        self._connection.server.end_predecessor(connect.client_id, self._connection.peer[0])
        self._connection.admit(connect, admission, self._assigned)

    async def _decide(self, connect: Connect, admission: Awaitable[Identity]) -> None:
        connection = self._connection
        try:
            admitted = await admission
        except ConnectRefused as refusal:
            connection.refuse(refusal, connect)
            return
        except Exception:
            # An authentication plugin of the host's: a fault of it must let no client in.
            _log.exception("authentication failed to answer")
            no_answer = ConnectRefused(Reason.SERVER_UNAVAILABLE, "authentication failed to answer")
            connection.refuse(no_answer, connect)
            return
        if connection.is_closed():
            return
        if admitted.stands is not None and not admitted.stands():
            revoked = ConnectRefused(Reason.NOT_AUTHORIZED, "the thing may not connect any more")
            connection.refuse(revoked, connect)
            return
        if not self._is_answerable(connect):
            return
        self._admit(connect, admitted)
        if self._is_held:
            connection.hold_reading(stop=False)
        connection.read_on()
        if self.is_last_word and not connection.is_closed():
            connection.finish()
