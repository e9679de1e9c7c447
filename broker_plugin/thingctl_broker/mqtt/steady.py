"""amqtt's subscriptions, that may change while it goes through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

Key = TypeVar("Key")
Value = TypeVar("Value")


class SteadyDict(dict[Key, Value]):
    """Goes through what was there when the going began."""

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
    broker._subscriptions = SteadyDict(broker.subscriptions)  # noqa: SLF001 a contract test holds the name
