"""amqtt as the host of our server: its plugins hear of our clients, its own clients share our messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from amqtt.broker import RetainedApplicationMessage
from amqtt.events import BrokerEvents
from amqtt.session import IncomingApplicationMessage

from thingctl_broker.mqtt.amqtt.client_session import ClientSession
from thingctl_broker.mqtt.amqtt.exchange import MessageExchange
from thingctl_broker.mqtt.amqtt.plugin_events import PluginEvents

if TYPE_CHECKING:
    from amqtt.session import ApplicationMessage

    from thingctl_broker.mqtt.amqtt.exchange import HostedServer
    from thingctl_broker.mqtt.amqtt.plugin_events import FaultNote
    from thingctl_broker.mqtt.engine.message import Message

_log = structlog.get_logger("thingctl.broker")


class AmqttHost:
    """Hears of our clients (``ServerEvents``) for amqtt, and of amqtt's clients for our server.

    With no listener of amqtt's open and no plugin that listens, the server does not call it at all.
    """

    def __init__(
        self, broker: Any, plugin: object, server: HostedServer, *, largest: int, note: FaultNote
    ) -> None:
        """``plugin``: ours among amqtt's. ``largest``: bytes of a message that may come from amqtt."""
        self._broker = broker
        self._server = server
        self._plugins = [other for other in broker.plugins_manager.plugins if other is not plugin]
        self._events = PluginEvents(self._plugins, note)
        self._exchange = MessageExchange(broker, server, largest, note)
        self._hears_messages = self._events.listens(
            BrokerEvents.MESSAGE_RECEIVED, BrokerEvents.MESSAGE_BROADCAST, BrokerEvents.RETAINED_MESSAGE
        )
        self._carries = False
        self._usernames: dict[str, str | None] = {}

    def start(self) -> None:
        """Begin. Our server serves by now."""
        listeners = [name for name, server in self._broker._servers.items() if server.instance is not None]  # noqa: SLF001 a contract test holds the name
        if listeners:
            _log.info(
                "amqtt's own listeners share ordinary messages with ours; commands go by ours only",
                listeners=listeners,
            )
        self._exchange.start()
        self._events.start()
        if self._events.listens():
            self._join()
        if listeners or self._broker.sessions:
            self._carry_on()

    async def stop(self) -> None:
        """End."""
        if self in self._server.events:
            self._server.events.remove(self)
        await self._events.stop()
        await self._exchange.stop()

    def _join(self) -> None:
        if self not in self._server.events:
            self._server.events.append(self)

    def _carry_on(self) -> None:
        self._carries = True
        self._join()

    # What our server tells.

    def client_connected(self, client_id: str, username: str | None) -> None:
        """One of our clients has been admitted."""
        if self._events.listens(BrokerEvents.CLIENT_CONNECTED, BrokerEvents.CLIENT_DISCONNECTED):
            self._usernames[client_id] = username
            self._fire_client(BrokerEvents.CLIENT_CONNECTED, client_id, username)

    def client_disconnected(self, client_id: str) -> None:
        """The connection of one of our clients has ended."""
        if self._events.listens(BrokerEvents.CLIENT_CONNECTED, BrokerEvents.CLIENT_DISCONNECTED):
            username = self._usernames.pop(client_id, None)
            self._fire_client(BrokerEvents.CLIENT_DISCONNECTED, client_id, username)

    def subscribed(self, client_id: str, topic_filter: str, qos: int) -> None:
        """One of our clients has been granted an ordinary filter."""
        self._events.fire(
            BrokerEvents.CLIENT_SUBSCRIBED,
            lambda: {"client_id": client_id, "topic": topic_filter, "qos": qos},
            len(topic_filter),
        )

    def unsubscribed(self, client_id: str, topic_filter: str) -> None:
        """One of our clients has taken an ordinary subscription back."""
        self._events.fire(
            BrokerEvents.CLIENT_UNSUBSCRIBED,
            lambda: {"client_id": client_id, "topic": topic_filter},
            len(topic_filter),
        )

    def message_received(self, client_id: str, message: Message) -> None:
        """One of our clients has published an ordinary message."""
        if self._carries:
            self._exchange.carry(message)
        if self._hears_messages:
            self._fire_message(client_id, message)

    def _fire_client(self, event: BrokerEvents, client_id: str, username: str | None) -> None:
        is_connected = event is BrokerEvents.CLIENT_CONNECTED
        self._events.fire(
            event,
            lambda: {
                "client_id": client_id,
                "client_session": ClientSession(client_id, username, is_connected=is_connected),
            },
        )

    def _fire_message(self, client_id: str, message: Message) -> None:
        size = len(message.topic) + len(message.payload)
        for event in (BrokerEvents.MESSAGE_RECEIVED, BrokerEvents.MESSAGE_BROADCAST):
            self._events.fire(
                event, lambda: {"client_id": client_id, "message": _application_message(message)}, size
            )
        if message.retain:
            self._events.fire(
                BrokerEvents.RETAINED_MESSAGE,
                lambda: {"client_id": None, "retained_message": _retained_message(client_id, message)},
                size,
            )

    # What amqtt tells.

    def amqtt_client_connected(self) -> None:
        """A client has come in by amqtt: our clients' messages are for it, too, from now on."""
        self._carry_on()

    async def amqtt_client_subscribed(self, client_id: str, topic_filter: str, qos: int) -> None:
        """A client of amqtt's has subscribed."""
        await self._exchange.send_retained(client_id, topic_filter, qos)

    def amqtt_message(self, message: ApplicationMessage) -> None:
        """A client of amqtt's has published, and amqtt distributes it."""
        self._exchange.take(message)

    def amqtt_retained(self, client_id: str | None, message: Any) -> None:
        """Amqtt has retained a message. ``client_id``: the client that it waits for; None: a topic's."""
        if client_id is None and self._exchange.take_retained(message):
            self._carry_on()  # the latest of ours has to displace it


def _application_message(message: Message) -> IncomingApplicationMessage:
    carried = IncomingApplicationMessage(None, message.topic, message.qos, message.payload, message.retain)
    carried.publish_packet = carried.build_publish_packet()
    return carried


def _retained_message(client_id: str, message: Message) -> RetainedApplicationMessage:
    source = ClientSession(client_id, None)
    return RetainedApplicationMessage(source, message.topic, message.payload, message.qos)
