"""amqtt's subscriptions, that may change while it goes through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

Key = TypeVar("Key")
Value = TypeVar("Value")


class SnapshotDict(dict[Key, Value]):
    """Iterates over a snapshot, so the dict may change during iteration."""

    def __iter__(self) -> Iterator[Key]:
        """The keys as they are now."""
        return iter(tuple(super().keys()))

    def items(self) -> tuple[tuple[Key, Value], ...]:  # type: ignore[override] # no view: that is the point
        """The items as they are now."""
        return tuple(super().items())


def steady_subscriptions(broker: Any) -> None:
    """Let clients subscribe while amqtt goes through the filters for another.

    It awaits in between: for a client that connects when there are retained messages, and
    for every message when there are topic plugins. Then "dictionary changed size during
    iteration" would end that client, or cost the message the rest of its receivers.
    """
    broker._subscriptions = SnapshotDict(broker.subscriptions)  # noqa: SLF001 a contract test holds the name


class AmqttBroker(Protocol):
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


def drop_session(broker: AmqttBroker, client_id: str) -> None:
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
