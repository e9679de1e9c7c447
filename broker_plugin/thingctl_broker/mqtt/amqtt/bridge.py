"""amqtt behind the front: one of these for each connection that needs it.

Most devices only take commands and never trouble amqtt. The first packet that is
amqtt's to handle opens this: amqtt is handed the CONNECT (which the front has already
answered), then every such packet, whole, through its public external-listener API.

What comes back is looked at packet by packet, because the two share one connection:

- amqtt's CONNACK is swallowed, the client has had one;
- a packet identifier that the front uses is exchanged (``exchange``);
- a SUBACK for a SUBSCRIBE of which the front took some filters is merged;
- what amqtt sends before its message loop runs is what it has kept: of that, retained
  messages that nobody asked for are dropped, and kept ones lose their RETAIN flag.

Until amqtt's message loop runs it loses a DISCONNECT, or the end of the connection, and
keeps the session as a zombie. So an UNSUBSCRIBE of nothing goes ahead as a probe, and
everything but acknowledgements is held until its UNSUBACK shows that the loop runs.
And so it is after every UNSUBSCRIBE: amqtt would take a SUBSCRIBE behind it first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import structlog
from amqtt.errors import AMQTTError

from thingctl_broker.mqtt.amqtt.packet_id_map import PacketIdMap
from thingctl_broker.mqtt.amqtt.streams import Inlet, Outlet
from thingctl_broker.mqtt.protocol.packets import (
    PacketType,
    encode_connect,
    encode_puback,
    encode_pubcomp,
    encode_pubrec,
    encode_suback,
    encode_subscribe,
    encode_unsubscribe,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from thingctl_broker.mqtt.protocol.packets import Connect

LISTENER: Final = "default"
"""The amqtt listener, of type ``external``, that connections are handed to."""

_PROBE: Final = encode_unsubscribe(0xFFFF, ["thingctl/ready"])

handed_over: ContextVar[bool] = ContextVar("handed_over", default=False)
"""Set in the task that runs amqtt for a connection of the front, and so in those that it starts.

By address it could not be told: amqtt goes on with a kept session under the address that
the client had when the session began, and asks about a client that may have just gone.
"""

CLIENT_BACKLOG: Final = 500
"""Messages of one client that wait in amqtt to be handled, at which no more are read from it."""

BROKER_BACKLOG: Final = 2000
"""Messages of all clients that wait in amqtt to be distributed, at which no more are read from any."""

_ENCODE_ANSWER: Final = {
    PacketType.PUBACK: encode_puback,
    PacketType.PUBREC: encode_pubrec,
    PacketType.PUBCOMP: encode_pubcomp,
}

_log = structlog.get_logger("thingctl.front")


class AmqttBridge:
    """amqtt's side of one connection."""

    def __init__(
        self,
        *,
        broker: Any,
        connect: Connect,
        peer: tuple[str, int],
        write: Callable[[bytes], None],
        drain: Callable[[], Any],
        close: Callable[[str], None],
        set_full: Callable[[bool], None],
        taken_ids: Container[int],
        bound_kept: Callable[[Any], None],
    ) -> None:
        """``taken_ids``: packet identifiers that the front has in flight to the client.

        ``bound_kept(session)`` bounds what amqtt keeps for the client while it is away.
        """
        self._bound_kept = bound_kept
        self._broker = broker
        self._connect = connect
        self._write = write
        self._close = close
        self._connected = False
        self._runs = False  # whether amqtt's message loop does
        self._waits = True  # for an UNSUBACK, until which amqtt gets nothing more
        self._held: deque[bytes] = deque()
        self._gone = False
        self._left = False
        self._in_flight = PacketIdMap(taken_ids)
        self._qos2: set[int] = set()  # in flight from the client, not released yet
        # Of a kept session, by identifier. None: amqtt waits for the release; otherwise it waits for amqtt.
        self._recovering: dict[int, bytes | None] = {}
        self._filters: set[str] | None = None
        # Both are answered in the order in which they went in.
        self._subscribing: deque[list[int | None]] = deque()
        self._unsubscribing: deque[list[str]] = deque()
        self._inlet = Inlet(set_full, self._is_behind, self._is_idle)
        self._inlet.feed(encode_connect(_for_amqtt(connect)))
        self._inlet.feed(_PROBE)
        outlet = Outlet(peer, self._from_amqtt, drain, lambda: close("amqtt closed the connection"))
        self.task = asyncio.get_running_loop().create_task(self._run(outlet))
        """Ends when amqtt has done with the connection."""

    @property
    def qos2_held(self) -> int:
        """QoS 2 messages that the client has not released."""
        return len(self._qos2)

    def feed(self, packet: bytes) -> None:
        """Hand amqtt a packet from the client."""
        if self._waits:
            self._held.append(packet)
        else:
            self._pass_on(packet)

    def feed_qos2(self, packet: bytes, packet_id: int) -> None:
        """Hand amqtt a QoS 2 PUBLISH, unless its kept session has it already [MQTT-4.3.3-2]."""
        if not self._recovers(packet_id):
            self._qos2.add(packet_id)
            self.feed(packet)

    def feed_pubrel(self, packet: bytes, packet_id: int) -> bool:
        """Hand amqtt a PUBREL, unless it knows nothing of it: then it would not answer."""
        if packet_id in self._qos2:
            self._qos2.remove(packet_id)
            self.feed(packet)
        elif not self._recovers(packet_id):
            return False
        elif packet_id in self._recovering:
            self._inlet.feed(packet)
        else:
            self._recovering[packet_id] = packet
        return True

    def feed_answer(self, kind: PacketType, packet_id: int) -> None:
        """Hand amqtt a PUBACK, PUBREC or PUBCOMP: its own identifier put back in."""
        original = self._in_flight.answered(packet_id, ends=kind is not PacketType.PUBREC)
        if original is not None:
            self._inlet.feed(_ENCODE_ANSWER[kind](original))

    def may_subscribe(self, topic_filter: str, limit: int) -> bool:
        """Whether the client may have this filter, having ``limit`` at most; if so, it counts from now on."""
        filters = self._own_filters()
        if topic_filter not in filters:
            if len(filters) >= limit:
                return False
            filters.add(topic_filter)
        return True

    def subscribe(self, packet_id: int, theirs: list[tuple[str, int]], codes: list[int | None]) -> None:
        """Hand amqtt a SUBSCRIBE for ``theirs``; its codes fill the gaps of ``codes``."""
        self._subscribing.append(codes)
        self.feed(encode_subscribe(packet_id, theirs))

    def unsubscribe(self, packet_id: int, filters: list[str]) -> bool:
        """Hand amqtt an UNSUBSCRIBE, whose UNSUBACK serves for all; False: it would be for nothing."""
        own = self._own_filters()
        leaving = [topic_filter for topic_filter in dict.fromkeys(filters) if topic_filter in own]
        if not leaving:
            return False
        own.difference_update(leaving)
        self._unsubscribing.append(leaving)
        self.feed(encode_unsubscribe(packet_id, leaving))
        return True

    def feed_eof(self) -> None:
        """The client has gone."""
        self._gone = not self._left
        if self._gone and not self._waits:
            self._inlet.feed_eof()

    def disconnect(self, packet: bytes) -> None:
        """The client has said goodbye: amqtt forgets its will [MQTT-3.14.4-3].

        The end of the connection is not told after it: amqtt would drop the DISCONNECT,
        which it has read but not handled yet. It ends the session by itself.
        """
        self._left = True
        self.feed(packet)

    def is_taken(self, packet_id: int) -> bool:
        """Whether amqtt has that identifier on the wire."""
        return packet_id in self._in_flight

    async def _run(self, outlet: Outlet) -> None:
        handed_over.set(True)
        try:
            await self._broker.external_connected(self._inlet, outlet, LISTENER)
        except (AMQTTError, OSError) as error:
            _log.info("amqtt ended a connection", error=str(error))
        except Exception:
            # Nothing a client does may take the broker down; that it happened must be seen.
            _log.exception("amqtt failed on a connection")
        finally:
            session = self._session()
            if session is not None and session.transitions.state == "connected":
                session.transitions.disconnect()  # it would be a zombie, and its successor deaf
            with suppress(RuntimeError):  # the loop is closing
                self._close("amqtt has ended the session")

    def _session(self) -> Any:
        """Amqtt's session of this client; it has one at most, as the front lets in one at a time."""
        return self._broker.sessions.get(self._connect.client_id, (None, None))[0]

    def _is_behind(self) -> bool:
        if self._broker._broadcast_queue.qsize() > BROKER_BACKLOG:  # noqa: SLF001 a contract test holds it
            return True
        session = self._session()
        return session is not None and session.delivered_message_queue.qsize() > CLIENT_BACKLOG

    def _is_idle(self) -> bool:
        session = self._session()
        return session is None or session.delivered_message_queue.empty()

    def _recovers(self, packet_id: int) -> bool:
        """Whether amqtt takes up an exchange of its kept session, before its message loop runs."""
        if self._runs:
            return False
        session = self._session()
        return session is not None and packet_id in session.inflight_in

    def _own_filters(self) -> set[str]:
        """What the client subscribes to; for a kept session, looked up in amqtt when it first matters."""
        if self._filters is None:
            client_id = self._connect.client_id
            self._filters = {
                topic_filter
                for topic_filter, subscribers in self._broker.subscriptions.items()
                if not self._connect.clean_session
                and any(session.client_id == client_id for session, _ in subscribers)
            }
        return self._filters

    # What amqtt sends.

    def _from_amqtt(self, packet: bytes) -> None:
        match packet[0] >> 4:
            case PacketType.PUBLISH:
                packet = self._published(packet)
            case PacketType.PUBREL:
                packet = self._with_wire_id(packet)
            case PacketType.PUBREC if not self._runs:
                packet = self._recovered(packet)
            case PacketType.SUBACK:
                packet = self._merged(packet)
            case PacketType.CONNACK if not self._connected:
                self._on_connack(packet)
                return
            case PacketType.UNSUBACK:
                packet = self._unsubscribed(packet)
        if packet:
            self._write(packet)

    def _on_connack(self, packet: bytes) -> None:
        self._connected = True
        if packet[3]:
            self._close(f"amqtt refused the connection (code {packet[3]})")
            return
        will, session = self._connect.will, self._session()
        if session is not None and not self._connect.clean_session:
            self._bound_kept(session)
        if will is not None and session is not None:
            # What amqtt cannot read from a CONNECT, or leaves as it was in a kept session.
            session.will_message = will.payload
            session.will_retain = will.retain

    def _recovered(self, packet: bytes) -> bytes:
        packet_id = int.from_bytes(packet[2:4], "big")
        release = self._recovering.get(packet_id)
        if release is None:
            self._recovering[packet_id] = None
            return packet
        self._inlet.feed(release)
        return b""

    def _pass_on(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == PacketType.DISCONNECT:
            self._inlet.feed_last(packet)
        else:
            self._inlet.feed(packet)
            self._waits = kind == PacketType.UNSUBSCRIBE

    def _go_on(self) -> None:
        self._waits = False
        while self._held and not self._waits:
            self._pass_on(self._held.popleft())
        if self._gone and not self._waits:
            self._inlet.feed_eof()

    def _unsubscribed(self, packet: bytes) -> bytes:
        if self._runs:
            self._forget_filters()
        else:
            self._runs, packet = True, b""  # the answer to the probe
        self._go_on()
        return packet

    def _merged(self, packet: bytes) -> bytes:
        codes = self._subscribing.popleft() if self._subscribing else []
        start = _body_start(packet)
        theirs = iter(packet[start + 2 :])
        merged = [next(theirs, 0x80) if code is None else code for code in codes]
        return encode_suback(int.from_bytes(packet[start : start + 2], "big"), merged)

    def _forget_filters(self) -> None:
        """Amqtt would match every message against the filters that nobody subscribes to any more."""
        subscriptions = self._broker.subscriptions
        for topic_filter in self._unsubscribing.popleft() if self._unsubscribing else ():
            if subscriptions.get(topic_filter) == []:
                del subscriptions[topic_filter]

    def _published(self, packet: bytes) -> bytes:
        first = packet[0]
        if not self._runs and first & 1:
            if not first & 0x06:
                return b""  # it matches somebody's subscription, not this client's
            packet = bytes([first & 0xFE]) + packet[1:]  # [MQTT-3.3.1-9]
        return self._with_free_id(packet) if first & 0x06 else packet

    def _with_free_id(self, packet: bytes) -> bytes:
        start = _body_start(packet)
        at = start + 2 + int.from_bytes(packet[start : start + 2], "big")
        packet_id = int.from_bytes(packet[at : at + 2], "big")
        wire_id = self._in_flight.sent(packet_id)
        if wire_id is None:
            self._close("acknowledges nothing")
            return b""
        return packet if wire_id == packet_id else packet[:at] + wire_id.to_bytes(2, "big") + packet[at + 2 :]

    def _with_wire_id(self, packet: bytes) -> bytes:
        wire_id = self._in_flight.released(int.from_bytes(packet[2:4], "big"))
        return packet[:2] + wire_id.to_bytes(2, "big")


def _for_amqtt(connect: Connect) -> Connect:
    """The CONNECT as amqtt is to see it.

    Keep-alive is the front's to enforce, and amqtt's timer would lose bytes. A will
    without a payload amqtt would refuse: it gets one until the CONNACK.
    """
    will = connect.will
    if will is not None and not will.payload:
        will = will._replace(payload=b"\0")
    return connect._replace(keep_alive=0, will=will)


def _body_start(packet: bytes) -> int:
    at = 1
    while packet[at] & 0x80:
        at += 1
    return at + 1
