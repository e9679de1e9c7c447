"""The only module that speaks gmqtt.

A :class:`LinkConnection` lives from one attempt to connect until that connection is lost, with a
gmqtt client of its own: gmqtt keeps packet identifiers, unacknowledged publishes and replies
across its own reconnects, and would send them over a later connection. Here none can be: a
late acknowledgement goes to a closed socket. Reconnecting is the link's business.

What gmqtt does not do for us is done by instance attributes on its packet handler: the reason
code of a PUBACK, and a PUBLISH whose properties are never decoded. A contract test pins each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from gmqtt import Client, Subscription
from gmqtt.mqtt.handler import MQTTConnectError

from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.packets5 import parse_publish
from thingctl_broker.mqtt.protocol.reason_codes import FAILURE, RequestRefused, is_for_good, words

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from thingctl_broker.mqtt.protocol.packets5 import Received
    from thingctl_protocol.mqtt_url import MqttUrl

ANSWER_WITHIN: Final = 10.0
"""Seconds for each of: TCP, TLS and CONNACK together; a SUBACK; an UNSUBACK."""

PACKET_MAX: Final = 1024 * 1024
"""Bytes. The cluster keeps larger packets to itself [MQTT5-3.1.2-25]; EMQX takes in none that is larger."""

IDENTIFIERS: Final = 0xFFFF
_SILENCE: Final = 1.75
"""A connection is given up after this many times its keep-alive without a byte; gmqtt pings after one."""

_MQTT_5: Final = 5
_QUIET: Final = logging.getLogger("thingctl.gmqtt")  # what there is to say is said here, once
_QUIET.setLevel(logging.CRITICAL)
logging.getLogger("gmqtt").setLevel(logging.CRITICAL)

_log = structlog.get_logger("thingctl.link")


class Login(NamedTuple):
    """Who connects, and how. Times in seconds."""

    client_id: str
    username: str
    password: str
    keep_alive: int
    session_expiry: int
    receive_maximum: int


class LinkConnection:
    """One connection to the cluster."""

    def __init__(
        self,
        login: Login,
        on_message: Callable[[Received], None],
        on_acknowledged: Callable[[int, int], None],
    ) -> None:
        """``on_acknowledged(packet_id, reason_code)``: PUBACK of a publish with QoS 1."""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the connection is gone, with the reason as a sentence."""
        self.session_present = False
        """Whether the cluster had kept a session of this client."""
        self.window = 0
        """How many publishes the cluster wants to have unacknowledged at most."""
        self.reason = 0
        """The reason code of the cluster's DISCONNECT, if it sent one."""
        self._login = login
        self._on_message = on_message
        self._on_acknowledged = on_acknowledged
        self._answers: dict[int, asyncio.Future[Sequence[int]]] = {}
        self._unsent = bytearray()
        self._watch: asyncio.TimerHandle | None = None
        self._client = Client(
            login.client_id,
            clean_session=False,
            optimistic_acknowledgement=False,
            persistent_storage=_KeepsNothing(),
            logger=_QUIET,
            session_expiry_interval=login.session_expiry,
            receive_maximum=login.receive_maximum,
            maximum_packet_size=PACKET_MAX,
        )
        if login.username:
            self._client.set_auth_credentials(login.username, login.password or None)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_subscribe = self._answered
        self._client.on_unsubscribe = self._answered
        handler = self._handler = self._client._package_handler  # noqa: SLF001 - see above
        self._puback = handler._handle_puback_packet  # noqa: SLF001
        handler._handle_puback_packet = self._on_puback  # noqa: SLF001
        handler._handle_publish_packet = self._on_publish  # noqa: SLF001
        handler._reconnect_callback = _stay_away  # noqa: SLF001

    async def open(self, endpoint: MqttUrl, tls: ssl.SSLContext | None) -> None:
        """Connect. Raises :class:`RequestRefused`, OSError, ssl.SSLError; it is of no use then."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._connect(endpoint, tls)
            self._look_at_connack()
        except TimeoutError:
            self.abort("the cluster did not answer in time")
            raise RequestRefused(f"no CONNACK within {ANSWER_WITHIN:.0f} s") from None
        except BaseException:
            self.abort("not connected")
            raise
        self._watch_silence()

    async def _connect(self, endpoint: MqttUrl, tls: ssl.SSLContext | None) -> None:
        connecting = asyncio.ensure_future(
            self._client.connect(
                endpoint.host, endpoint.port, ssl=tls or False, keepalive=self._login.keep_alive
            )
        )
        try:
            # gmqtt waits for a CONNACK even when the connection is gone.
            await asyncio.wait({connecting, self.lost}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting
                return
        except MQTTConnectError as error:
            code = error._code  # noqa: SLF001 - it tells it in no other way but as text
            raise RequestRefused(
                f"the cluster refuses the connection: {words(code)}", for_good=is_for_good(code)
            ) from None
        finally:
            connecting.cancel()
        if self._client._connection_state.protocol_version != _MQTT_5:  # noqa: SLF001 - gmqtt steps down by itself
            raise RequestRefused(
                "this broker speaks MQTT 3.1.1 only; workers need MQTT 5: shared subscriptions, expiry",
                for_good=True,
            )
        raise RequestRefused("the connection was closed before CONNACK: is that an MQTT 5 broker?")

    def _look_at_connack(self) -> None:
        # The properties that gmqtt hands on_connect are ours laid over the cluster's.
        said = {name: values[0] for name, values in self._handler._connack_properties.items()}  # noqa: SLF001
        for name, what in (
            ("shared_subscription_available", "shared subscriptions"),
            ("wildcard_subscription_available", "wildcard subscriptions"),
            ("max_qos", "QoS 1"),
        ):
            if not said.get(name, 1):
                raise RequestRefused(
                    f"this cluster is set to have no {what}, which workers need", for_good=True
                )
        expiry = said.get("session_expiry_interval", self._login.session_expiry)
        if expiry < self._login.session_expiry:
            _log.warning("the cluster keeps sessions shorter than asked for", seconds=expiry)
        self.window = said.get("receive_maximum", IDENTIFIERS)
        # gmqtt takes it for the highest identifier, too, and raises when they run out. The window is kept
        # by who publishes; identifiers are for SUBSCRIBE as well [MQTT 5.0 section 4.9].
        self._handler.id_generator._max = IDENTIFIERS  # noqa: SLF001

    # -- what is sent

    def publish(self, topic: str, payload: bytes, *, qos: int, expires_in: int | None = None) -> int:
        """Publish; return the packet identifier, 0 at QoS 0. ``expires_in``: seconds."""
        # Kept nowhere: what is lost is published again by its sender.
        packet_id: int = self._handler.id_generator.next_id() if qos else 0
        packet = CODEC_5.encode_publish(
            topic.encode(), payload, qos=qos, packet_id=packet_id, message_expiry=expires_in
        )
        self._write(packet)
        return packet_id

    def acknowledge(self, packet_id: int) -> None:
        """Send PUBACK; nothing when the connection is gone."""
        if not self.lost.done():
            self._write(CODEC_5.encode_puback(packet_id))

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe with QoS 1; raises :class:`RequestRefused` unless all are granted."""
        self._flush()
        packet_id = self._client.subscribe([Subscription(topic_filter, qos=1) for topic_filter in filters])
        for topic_filter, code in zip(filters, await self._answer(packet_id, "SUBACK"), strict=False):
            if code >= FAILURE:
                raise RequestRefused(
                    f"the cluster refuses the subscription to {topic_filter}: {words(code)}. Its ACL must "
                    f"let the user {self._login.username!r} subscribe to it",
                    for_good=is_for_good(code),
                )

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe; raises :class:`RequestRefused` when that is not answered."""
        self._flush()
        # As bytes: gmqtt counts the characters of a str, not its bytes.
        packet_id = self._client.unsubscribe([topic_filter.encode() for topic_filter in filters])
        await self._answer(packet_id, "UNSUBACK")

    async def end(self, *, session: bool) -> None:
        """Say DISCONNECT and close. ``session``: and end the session, too."""
        self._flush()
        properties = {"session_expiry_interval": 0} if session else {}
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._client.disconnect(**properties)
        except (OSError, TimeoutError):
            pass
        self.abort("closed")

    def abort(self, reason: str) -> None:
        """Close without a word."""
        if self._watch is not None:
            self._watch.cancel()
        connection = self._client._connection  # noqa: SLF001
        if connection is not None:
            timer = connection._keep_connection_callback  # noqa: SLF001
            if timer is not None:
                timer.cancel()
            connection._transport.abort()  # noqa: SLF001
        self._lose(reason)

    def _write(self, packet: bytes) -> None:
        # One system call for all that is written in one turn of the loop; gmqtt makes one for each packet.
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += packet

    def _flush(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, bytearray()
            if not self.lost.done():
                self._client._connection.send_package(unsent)  # noqa: SLF001

    # -- what comes

    def _connected(self, _client: Any, flags: int, _code: int, _properties: dict[str, Any]) -> None:
        self.session_present = bool(flags & 1)

    def _disconnected(self, _client: Any, packet: object) -> None:
        if isinstance(packet, bytes) and packet:
            self.reason = packet[0]
            self.abort(f"the cluster ended the connection: {words(packet[0])}")
        else:
            self.abort("the connection was lost")

    def _lose(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(RequestRefused(reason))
        self._answers.clear()

    def _on_publish(self, first: int, body: bytes) -> None:
        try:
            self._on_message(parse_publish(first, body))
        except ValueError as error:
            self.abort(f"the cluster sent {error}")
        except Exception:  # gmqtt would swallow it, and the message would never be acknowledged
            _log.exception("a message was not handled")
            self.abort("a message was not handled")

    def _on_puback(self, first: int, body: bytes) -> None:
        self._puback(first, body)  # frees the identifier
        # Without a reason code it is a success [MQTT 5.0 section 3.4.2.1].
        self._on_acknowledged(int.from_bytes(body[:2]), body[2] if len(body) > 2 else 0)

    async def _answer(self, packet_id: int, what: str) -> Sequence[int]:
        if self.lost.done():
            raise RequestRefused(self.lost.result())
        answer: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self._answers[packet_id] = answer
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await answer
        except TimeoutError:
            raise RequestRefused(f"no {what} within {ANSWER_WITHIN:.0f} s") from None
        finally:
            self._answers.pop(packet_id, None)

    def _answered(self, _client: Any, packet_id: int, codes: Sequence[int], *_: object) -> None:
        answer = self._answers.get(packet_id)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def _watch_silence(self) -> None:
        # gmqtt closes a silent connection, but waits for what is unsent to leave: for many minutes.
        silence = time.monotonic() - self._client._connection._last_data_in  # noqa: SLF001
        if silence > self._login.keep_alive * _SILENCE:
            self.abort(f"nothing was heard from the cluster for {silence:.0f} s")
        else:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(self._login.keep_alive / 4, self._watch_silence)


class _KeepsNothing:
    """In place of gmqtt's store of what is unacknowledged: nothing is ever sent again behind our back."""

    is_empty = True

    def push_message(self, mid: int, raw_package: bytes) -> None:
        """Keep nothing."""

    def remove_message_by_mid(self, mid: int) -> None:
        """There is none."""

    async def wait_empty(self) -> None:
        """It is."""

    def clear(self) -> None:
        """It is."""

    def get_all(self) -> list[tuple[int, bytes]]:
        """None."""
        return []


async def _stay_away(*, delay: bool = False) -> None:
    """In place of gmqtt's reconnect."""
