"""What is on its way to one client: packets for its socket, messages in flight, and those that wait. Pure.

While the client has a connection, packets gather in ``outgoing``, and whatever holds the socket takes them
from there. The bytes of everything that waits are counted, for the client and in all: in the queue, in
flight, and encoded for the socket.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.engine.delivery import MessageDelivery
from thingctl_broker.mqtt.engine.encoder import PlainEncoder
from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from collections.abc import Sized

    from thingctl_broker.mqtt.engine.encoder import Encoder
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_broker.mqtt.engine.recording import Recorder
    from thingctl_broker.mqtt.engine.totals import Outlet, Totals

LAST_PACKET_ID: Final = 0x7FFF
"""The engine's highest packet identifier; those above are the command path's."""

WINDOW: Final = 20
"""Messages in flight to a client of MQTT 3, which cannot say how many it takes."""

BACKLOG_BYTES: Final = 256 * 1024
"""Encoded bytes that wait for the socket, from which on messages stay in the queue, unencoded."""


class Outbox:
    """One client's. It outlives a connection, but for what was encoded for that."""

    __slots__ = (
        "_last_id",
        "_others",
        "_recorder",
        "_resend",
        "_totals",
        "client_id",
        "encoder",
        "expiry",
        "in_flight",
        "is_connected",
        "is_dirty",
        "is_recorded",
        "number",
        "outgoing",
        "outgoing_bytes",
        "outlet",
        "queue",
        "queued_bytes",
        "token",
        "window",
    )

    def __init__(self, client_id: str, totals: Totals, recorder: Recorder) -> None:
        self.client_id = client_id
        self._totals = totals
        self._recorder = recorder
        self.number = 0
        """Its key in the store."""
        self.is_recorded = False
        self.is_connected = False
        self.outlet: Outlet | None = None
        """Who takes its packets to the client."""
        self.expiry = 0
        """Seconds that it outlives its connection; ``NEVER``: for ever."""
        self.token = 0
        """Changes with each connection: what was planned for an earlier one is void."""
        self.queue: deque[MessageDelivery] | tuple[()] = ()  # most clients never need one, of 760 bytes
        self.in_flight: dict[int, MessageDelivery] = {}
        self._resend: dict[int, MessageDelivery] = {}
        self._others: Sized | None = None
        self._last_id = 0
        self.queued_bytes = 0
        """Bytes of the queue and of what is in flight."""
        self.outgoing: list[bytes] = []
        self.outgoing_bytes = 0
        self.is_dirty = False
        self.window = WINDOW
        self.encoder: Encoder = PlainEncoder()

    # The connection.

    def attach(
        self, encoder: Encoder, window: int, outlet: Outlet | None = None, others: Sized | None = None
    ) -> None:
        """A client has connected. ``window``: messages that it takes before it acknowledges one.

        ``others``: those that do not come from here, but count too.
        """
        self._others = others
        self.outlet = outlet
        self.is_connected = True
        self.token += 1
        self.encoder = encoder
        self.window = window

    def resume(self, now: float) -> None:
        """Send what the client has not acknowledged again, and then what waits [MQTT-4.4.0-1]."""
        self._resend = dict(self.in_flight)
        self.pump(now)

    def detach(self) -> None:
        """The connection has ended: what was encoded for it is void."""
        self.is_connected = False
        self.outlet = None
        self.token += 1
        self._totals.waiting_bytes -= self.outgoing_bytes
        self.outgoing.clear()
        self.outgoing_bytes = 0
        self._resend.clear()

    def discard(self) -> None:
        """The session has ended."""
        self._totals.waiting_bytes -= self.queued_bytes + self.outgoing_bytes
        for delivery in (*self.in_flight.values(), *self.queue):
            self._recorder.delivered(delivery)
        self.queue = ()
        self.in_flight.clear()
        self.outgoing.clear()
        self.queued_bytes = self.outgoing_bytes = 0

    def restore(self, delivery: MessageDelivery) -> None:
        """Take up a delivery that the store has kept, in the order of the store."""
        if delivery.packet_id:
            delivery.is_sent = True
            self.in_flight[delivery.packet_id] = delivery
        else:
            self._wait(delivery)
        self.queued_bytes += delivery.size
        self._totals.waiting_bytes += delivery.size

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the client."""
        return self.queued_bytes + self.outgoing_bytes

    # Packets for the client.

    def write(self, packet: bytes) -> None:
        """Give the client a packet."""
        self.outgoing.append(packet)
        size = len(packet)
        self.outgoing_bytes += size
        totals = self._totals
        totals.waiting_bytes += size
        if not self.is_dirty:
            self.is_dirty = True
            if not totals.dirty:
                totals.wake()
            totals.dirty.append(self)

    def take_outgoing(self, most: int) -> bytes:
        """Up to ``most`` bytes of packets for the socket, but at least one packet; empty: there are none."""
        outgoing = self.outgoing
        if self.outgoing_bytes <= most:
            taken = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
            outgoing.clear()
        else:
            count, size = 0, 0
            for packet in outgoing:
                if count and size + len(packet) > most:
                    break
                count += 1
                size += len(packet)
            taken = b"".join(outgoing[:count])
            del outgoing[:count]
        self.outgoing_bytes -= len(taken)
        self._totals.waiting_bytes -= len(taken)
        return taken

    def deliver(
        self, message: Message, qos: int, now: float, *, retain: bool = False, ids: tuple[int, ...] = ()
    ) -> None:
        """Give the client a message at ``qos``, or keep it for the client."""
        if qos:
            self._deliver_surely(MessageDelivery(message, qos, retain, ids), now)
        elif self.is_connected:
            totals = self._totals
            waiting = self.queued_bytes + self.outgoing_bytes + message.size
            if waiting > totals.limits.client_bytes >> 1:
                totals.slow.append(self)
                if waiting > totals.limits.client_bytes:
                    totals.drop("slowReader", self.client_id, message.topic)
                    return
            if totals.waiting_bytes > totals.common_bytes and waiting > totals.share:
                totals.drop("totalBytes", self.client_id, message.topic)
                return
            packet = self.encoder.unacknowledged(message, now, retain=retain, ids=ids)
            if packet:
                totals.sent += 1
                self.write(packet)

    def _deliver_surely(self, delivery: MessageDelivery, now: float) -> None:
        if not (self.is_connected or self.expiry):
            return
        if not self._has_room(delivery, now):
            return
        self.queued_bytes += delivery.size
        self._totals.waiting_bytes += delivery.size
        if self.is_recorded:
            self._recorder.queued(self.number, delivery)
        if self.is_connected and not self.queue and not self._resend and self._may_send():
            self._send_fresh(delivery, now)
        else:
            self._wait(delivery)

    def _wait(self, delivery: MessageDelivery) -> None:
        if isinstance(self.queue, tuple):
            self.queue = deque()
        self.queue.append(delivery)

    def _has_room(self, delivery: MessageDelivery, now: float) -> bool:
        """Make room for a message; what has waited for the longest leaves, but nothing that is in flight."""
        totals = self._totals
        limits = totals.limits
        most = limits.client_bytes - self.outgoing_bytes - delivery.size
        if (
            self.is_connected
            and self.queued_bytes <= most >> 1
            and totals.waiting_bytes <= totals.common_bytes
        ):
            return True  # most of the time
        if self.queued_bytes > most >> 1 and self.is_connected:
            totals.slow.append(self)
        if (
            totals.waiting_bytes > totals.common_bytes
            and self.queued_bytes + self.outgoing_bytes + delivery.size > totals.share
        ):
            totals.drop("totalBytes", self.client_id, delivery.message.topic)
            return False
        if self.queue and self._is_over(most):
            self._drop_expired(now)
        while self.queue and self._is_over(most):
            self._drop("queueFull", self.queue.popleft())
        if self.queued_bytes > most:
            totals.drop("queueFull", self.client_id, delivery.message.topic)
            return False
        return True

    def _is_over(self, most: int) -> bool:
        """Whether more than ``most`` bytes wait, or while the client is away, one message too many."""
        if self.queued_bytes > most:
            return True
        messages = len(self.queue) + len(self.in_flight)
        return not self.is_connected and messages >= self._totals.limits.away_messages

    def _drop_expired(self, now: float) -> None:
        expired = {d for d in self.queue if (left := d.message.seconds_left(now)) is not None and left <= 0}
        if expired:
            self.queue = deque(d for d in self.queue if d not in expired)
        for delivery in expired:
            self._drop("expired", delivery)

    def pump(self, now: float) -> None:
        """Send what waits, as far as the client takes more; the socket's backlog holds it back, too."""
        while self._resend and self._may_send():
            self._send_again(self._resend.pop(next(iter(self._resend))), now)
        while self.queue and self._may_send():
            self._send_fresh(self.queue.popleft(), now)

    @property
    def unacknowledged(self) -> int:
        """Messages that were sent on this connection and are in flight."""
        return len(self.in_flight) - len(self._resend)

    @property
    def has_backlog(self) -> bool:
        """Whether anything waits that could be sent once the socket has taken more."""
        return bool(self.queue or self._resend)

    def _may_send(self) -> bool:
        if self.outgoing_bytes >= BACKLOG_BYTES:
            return False
        sent = len(self.in_flight) - len(self._resend)
        return sent < self.window if self._others is None else sent + len(self._others) < self.window

    def _send_fresh(self, delivery: MessageDelivery, now: float) -> None:
        """Send a message unless it has expired."""
        left = delivery.message.seconds_left(now)
        if left is not None and left <= 0:
            self._drop("expired", delivery)
        else:
            self._send(delivery, now)

    def _send(self, delivery: MessageDelivery, now: float) -> None:
        if not delivery.packet_id:
            delivery.packet_id = self._free_id()
        self.in_flight[delivery.packet_id] = delivery
        if delivery.qos == 2 and self.is_recorded:
            # After a crash the client would take it for another message under another identifier.
            token = self.token
            self._recorder.changed(delivery)
            self._recorder.then(lambda: self._write_delivery(delivery, now, token))
        else:
            self._write_delivery(delivery, now, self.token)

    def _write_delivery(self, delivery: MessageDelivery, now: float, token: int) -> None:
        if token != self.token or delivery.packet_id not in self.in_flight:
            return
        packet = self.encoder.acknowledged(delivery, now)
        if not packet:  # longer than the client takes: as if it had been sent [MQTT5-3.1.2-25]
            self._totals.drop("packetSize", self.client_id, delivery.message.topic)
            self._complete(delivery, now)
            return
        delivery.is_sent = True
        self._totals.sent += 1
        self.write(packet)

    def _send_again(self, delivery: MessageDelivery, now: float) -> None:
        """Send a message again, or its PUBREL; at QoS 2 when what was recorded of it before is kept."""
        token = self.token
        if delivery.released:
            send = partial(self._write_pubrel, delivery.packet_id, token)
        else:
            send = partial(self._write_delivery, delivery, now, token)
        if delivery.qos == 2 and self.is_recorded:
            self._recorder.then(send)
        else:
            send()

    def _free_id(self) -> int:
        packet_id = self._last_id % LAST_PACKET_ID + 1
        while packet_id in self.in_flight:
            packet_id = packet_id % LAST_PACKET_ID + 1
        self._last_id = packet_id
        return packet_id

    # Answers of the client.

    def on_puback(self, packet_id: int, now: float) -> bool:
        """The client has a QoS 1 message; return whether one was in flight under that identifier."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None or delivery.qos != 1:
            return False
        self._complete(delivery, now)
        return True

    def on_pubrec(self, packet_id: int, reason: int, now: float) -> None:
        """The client has a QoS 2 message, or refuses it (``reason`` from 0x80 on)."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None or delivery.qos != 2:
            self.write(self.encoder.codec.encode_pubrel(packet_id, Reason.PACKET_IDENTIFIER_NOT_FOUND))
        elif reason >= Reason.UNSPECIFIED_ERROR:
            self._complete(delivery, now)
        elif delivery.released:
            self.write(self.encoder.codec.encode_pubrel(packet_id))
        else:
            delivery.released = True
            if self.is_recorded:
                token = self.token
                self._recorder.changed(delivery)
                self._recorder.then(lambda: self._write_pubrel(packet_id, token))
            else:
                self.write(self.encoder.codec.encode_pubrel(packet_id))

    def _write_pubrel(self, packet_id: int, token: int) -> None:
        if token == self.token:
            self.write(self.encoder.codec.encode_pubrel(packet_id))

    def on_pubcomp(self, packet_id: int, now: float) -> None:
        """A QoS 2 message is complete."""
        delivery = self.in_flight.get(packet_id)
        if delivery is not None and delivery.released:
            self._complete(delivery, now)

    def _complete(self, delivery: MessageDelivery, now: float) -> None:
        del self.in_flight[delivery.packet_id]
        if self._resend:
            self._resend.pop(delivery.packet_id, None)
        self._finish(delivery)
        if self.queue or self._resend:
            self.pump(now)

    def _drop(self, reason: str, delivery: MessageDelivery) -> None:
        self._totals.drop(reason, self.client_id, delivery.message.topic)
        self._finish(delivery)

    def _finish(self, delivery: MessageDelivery) -> None:
        self.queued_bytes -= delivery.size
        self._totals.waiting_bytes -= delivery.size
        if delivery.key:
            self._recorder.delivered(delivery)
