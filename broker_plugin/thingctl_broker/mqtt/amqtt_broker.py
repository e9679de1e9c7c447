"""What the front needs of amqtt's Broker, and one thing that it does to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Broker(Protocol):
    """What the front needs of amqtt's Broker."""

    @property
    def sessions(self) -> dict[str, Any]:
        """Sessions by client id."""
        ...

    @property
    def subscriptions(self) -> dict[str, Any]:
        """Who subscribes, by filter."""
        ...

    @property
    def retained_messages(self) -> dict[str, Any]:
        """Retained messages by topic."""
        ...

    def external_connected(self, reader: Any, writer: Any, listener_name: str) -> Awaitable[None]:
        """Handle a connection until it ends."""
        ...


def drop_session(broker: Broker, client_id: str) -> None:
    """Take a session away from amqtt, with all that it has subscribed to; nobody is connected with it."""
    broker.sessions.pop(client_id, None)
    deserted = []
    for topic_filter, subscribers in broker.subscriptions.items():
        for i, (session, _) in enumerate(subscribers):
            if session.client_id == client_id:
                del subscribers[i]
                break
        if not subscribers:
            deserted.append(topic_filter)
    for topic_filter in deserted:
        del broker.subscriptions[topic_filter]
