"""What the server tells a host that it runs in: its clients, their subscriptions and their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.message import Message


class ServerEvents(Protocol):
    """Hears of the server's clients. Its methods return without delay and raise nothing."""

    def client_connected(self, client_id: str, username: str | None) -> None:
        """A client has been admitted."""
        ...

    def client_disconnected(self, client_id: str) -> None:
        """The connection of a client has ended."""
        ...

    def subscribed(self, client_id: str, topic_filter: str, qos: int) -> None:
        """A client has been granted an ordinary filter at ``qos``."""
        ...

    def unsubscribed(self, client_id: str, topic_filter: str) -> None:
        """A client has taken an ordinary subscription back."""
        ...

    def message_received(self, client_id: str, message: Message) -> None:
        """A client has published an ordinary message, or its will has been: after all checks."""
        ...
