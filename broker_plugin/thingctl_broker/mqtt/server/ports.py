"""What a connection needs of the server that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.commands.service import CommandService
    from thingctl_broker.mqtt.auth.authenticator import Authenticator
    from thingctl_broker.mqtt.engine.engine import Engine
    from thingctl_broker.mqtt.engine.message import Message
    from thingctl_broker.mqtt.protocol.packets import Acknowledgement, Connect
    from thingctl_broker.mqtt.server.client import ServerConnection
    from thingctl_broker.mqtt.server.events import ServerEvents
    from thingctl_broker.mqtt.server.limits import MqttLimits
    from thingctl_broker.mqtt.server.traffic_monitors import TrafficMonitors
    from thingctl_protocol.topics import Topics


class ServerPort(Protocol):
    """What a connection needs of :class:`~thingctl_broker.mqtt.server.server.MqttServer`."""

    topics: Topics
    limits: MqttLimits
    gatekeeper: Authenticator
    service: CommandService
    engine: Engine
    observers: TrafficMonitors
    events: list[ServerEvents]
    keep_alive: int
    """Seconds that an MQTT 5 client may have between two packets; 0: as many as it likes."""
    time: Callable[[], float]
    """The loop's monotonic time."""

    @property
    def bytes_received(self) -> int:
        """Of all clients, since the start."""
        ...

    @property
    def bytes_sent(self) -> int:
        """Of all clients, since the start."""
        ...

    def opened(self, connection: ServerConnection) -> bool:
        """A client has opened a connection; False: there is no room for it."""
        ...

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone, or as good as gone."""
        ...

    def end_predecessor(self, client_id: str, host: str) -> None:
        """Close the connection that has this client id [MQTT-3.1.4-2]. ``host``: of the client that comes."""
        ...

    def admitted(self, connection: ServerConnection, connect: Connect, expiry: int) -> bool:
        """A client is in: give it its session of ``expiry`` seconds; return whether there was one."""
        ...

    def serves(self, connection: ServerConnection) -> None:
        """A connection has subscribed to its thing's requests."""
        ...

    def released(self, connection: ServerConnection) -> None:
        """A connection no longer takes its thing's requests."""
        ...

    def published(self, connection: ServerConnection, message: Message) -> None:
        """A client has published an ordinary message: tell the host; hold the client if readers are slow."""
        ...

    def has_caught_up(self, connection: ServerConnection) -> None:
        """A client has read what waited for it: those that it held up are read from again."""
        ...

    def let_publish(self, connection: ServerConnection) -> None:
        """A client has been held for long enough."""
        ...

    def acknowledged(self, thing: str, execution_id: str, answer: Acknowledgement) -> None:
        """A thing has answered a request with a PUBACK."""
        ...

    def seconds_left(self, execution_id: str) -> int | None:
        """Seconds until an execution times out, at least 1; None: it is not known."""
        ...

    def note(self, fault: str, text: str, *, who: str = "", **details: object) -> None:
        """Count a fault, and log it at most once a minute for each client."""
        ...
