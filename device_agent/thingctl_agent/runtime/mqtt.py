"""The only module that speaks paho.

A :class:`MqttConnection` lives from one attempt to connect until that connection is lost, with
a paho client of its own: nothing of an earlier connection (queued messages, packet ids,
half-read packets) can reach a later one. MQTT 3.1.1, or 5 where that is set, with a session that the
broker keeps: it has the requests that are published while the device is away.

``open()`` may block and is called from a helper thread; everything else belongs to the
thread of the loop. A no-op ``on_socket_register_write`` keeps paho from writing to the
socket inside ``publish()``; the loop alone writes.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from thingctl_agent.runtime import reasons

if TYPE_CHECKING:
    import ssl

    from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from thingctl_agent.runtime.address import BrokerAddress

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for each of: the TCP connection, the TLS handshake, the broker's CONNACK."""

PACKET_MAX: Final = 1024 * 1024
"""Bytes. No request is as long as this; a packet that is would only fill the memory."""

_SLACK: Final = 0.01
_NEVER: Final = float("inf")
_FAILURE: Final = 0x80
_HEAD: Final = 8
"""Bytes."""


class ConnectionEvents(Protocol):
    """What a connection tells. Called from within :meth:`MqttConnection.serve`."""

    def on_connected(self) -> None:
        """CONNACK, accepted."""

    def on_subscribed(self, *, extras: bool) -> None:
        """SUBACK for the requests; ``extras``: and for all the others."""

    def on_message(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """A message; its PUBACK is sent when this returns."""

    def on_acknowledged(self, receipt: str) -> None:
        """PUBACK of a publish with a receipt."""

    def on_lost(self, reason: str) -> None:
        """The connection is gone, or never was; exactly once."""


class MqttConnection:
    """One connection to the broker."""

    def __init__(
        self, address: BrokerAddress, events: ConnectionEvents, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = address
        self._events = events
        self._receipts: dict[int, str] = {}
        self._subscription: int | None = None
        self._lost = False
        self._connected = False
        self._first = b""
        self._deadline = _NEVER
        self._last_in = self._last_out = 0.0
        client = self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client_id,
            clean_session=None if address.is_mqtt_5 else False,
            protocol=MQTTProtocolVersion.MQTTv5 if address.is_mqtt_5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,  # the loop reconnects, and never with an older MQTT
        )
        client.suppress_exceptions = True  # an exception in a callback would end the loop
        client.connect_timeout = CONNECT_TIMEOUT
        client.max_inflight_messages = 65535  # the outbox keeps the window
        client.max_queued_messages = 65535
        if address.username:
            client.username_pw_set(address.username, address.password or None)
        if tls is not None:
            client.tls_set_context(tls)
        if address.will is not None:
            client.will_set(*address.will, qos=1)
        client.on_socket_open = _no_delay
        client.on_socket_register_write = _nothing
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect

    def open(self) -> None:
        """Resolve, connect, shake hands; blocks. Raises whatever goes wrong.

        A host name may raise UnicodeError, a certificate ValueError: catch Exception.
        """
        host: Any = self._address.host
        if host.isascii():
            host = host.encode()  # a str would be encoded by the idna codec and its 1 MB of Unicode tables
        more = _kept_session() if self._address.is_mqtt_5 else {}
        self._client.connect(host, self._address.port, self._address.keepalive, **more)

    def begin(self, now: float) -> None:
        """The loop takes the connection over; CONNACK has to come in time."""
        self._deadline = now + CONNECT_TIMEOUT
        self._last_in = self._last_out = now

    def fileno(self) -> int:
        """The socket to wait for; -1 when there is none any more."""
        sock = self._client.socket()
        return -1 if sock is None else sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to wait for the socket to become writable, too."""
        return self._client.want_write()

    @property
    def next_due(self) -> float:
        """When :meth:`serve` must be called at the latest (seconds since boot)."""
        return self._deadline

    def serve(self, now: float, *, readable: bool) -> None:
        """Read, write and keep alive, as far as there is something to do."""
        client = self._client
        if readable:
            self._look()
            client.loop_read()
            self._last_in = now
            while not self._lost and getattr(client.socket(), "pending", int)():
                client.loop_read()  # decrypted already: the socket will not say so
            if self._lost:
                return
            if client._in_packet["remaining_length"] > PACKET_MAX:  # noqa: SLF001 - nothing public bounds it
                self._lose(f"the broker sent a packet of more than {PACKET_MAX} bytes")
                return
        self._write(now)
        self._keep_alive(now)
        if client.socket() is None:
            self._lose(self._closed("the connection was closed"))

    def subscribe(self, filters: list[tuple[str, int]]) -> None:
        """Subscribe to all topics in one packet; the first reason code belongs to the request topic."""
        _, self._subscription = self._client.subscribe(filters)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, receipt: str | None = None
    ) -> None:
        """Publish with QoS 1; ``receipt`` comes back when it is acknowledged."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if receipt is not None:
            self._receipts[info.mid] = receipt

    def close(self) -> None:
        """Say DISCONNECT, as far as the socket takes it, and close."""
        self._lost = True
        self._client.disconnect()
        self._client.loop_write()
        self.drop()

    def drop(self) -> None:
        """Close without a word. No event follows."""
        self._lost = True
        sock = self._client.socket()
        if sock is not None:
            sock.close()  # type: ignore[no-untyped-call,unused-ignore]

    # -- inside

    def _look(self) -> None:
        """Remember how the answer to CONNECT begins: another protocol's begins otherwise."""
        sock = self._client.socket()
        if not self._connected and not self._first and type(sock) is socket.socket:
            with contextlib.suppress(OSError):
                self._first = sock.recv(_HEAD, socket.MSG_PEEK)

    def _write(self, now: float) -> None:
        if self._client.want_write():
            self._last_out = now
            self._client.loop_write()

    def _keep_alive(self, now: float) -> None:
        if not self._connected:
            if now >= self._deadline:
                self._lose(reasons.silent(self._address))
            return
        if now >= self._deadline:
            self._client.loop_misc()  # sends PINGREQ, or closes when PINGRESP is overdue
            self._client.loop_write()
            self._last_in = self._last_out = now
        self._deadline = min(self._last_in, self._last_out) + self._client.keepalive + _SLACK

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self.drop()
            self._events.on_lost(reason)

    def _on_connect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._lose(reasons.refused(str(reason), self._address))
            return
        self._connected = True
        self._events.on_connected()

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: Any,
        mid: int,
        granted: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if mid != self._subscription or self._lost:
            return
        if not granted or granted[0].value >= _FAILURE:
            self._lose("the broker refused the subscription to requests: may this thing subscribe to them?")
            return
        self._events.on_subscribed(extras=all(code.value < _FAILURE for code in granted))

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._events.on_message(topic, bytes(message.payload), retain=message.retain)

    def _on_publish(
        self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:  # of MQTT 5 only; on the next connection it is published again
            self._lose(f"the broker refused a message: {reason}")
            return
        receipt = self._receipts.pop(mid, None)
        if receipt is not None:
            self._events.on_acknowledged(receipt)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._lose(self._closed(f"the connection was lost: {reason}"))

    def _closed(self, reason: str) -> str:
        return reason if self._connected else reasons.unanswered(self._first, self._address)


def _kept_session() -> dict[str, Any]:
    """What an MQTT 5 client says to have its session kept for ever, as one of 3.1.1 has it."""
    from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415 - only where it is needed
    from paho.mqtt.properties import Properties  # noqa: PLC0415 - the same

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call,unused-ignore]
    properties.SessionExpiryInterval = 0xFFFF_FFFF
    return {"clean_start": False, "properties": properties}


def _no_delay(_client: Client, _userdata: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _nothing(_client: Client, _userdata: Any, _sock: Any) -> None:
    """Keeps paho from writing on its own."""
