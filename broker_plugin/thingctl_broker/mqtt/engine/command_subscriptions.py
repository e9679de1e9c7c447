"""What one client has subscribed to in the command namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from thingctl_protocol.topics import DEVICE_KINDS, Kind

if TYPE_CHECKING:
    from thingctl_protocol.topics import Topics


class Granted(NamedTuple):
    """A command subscription: what it covers, and at which QoS."""

    kinds: frozenset[Kind]
    qos: int


class CommandSubscriptions:
    """Command subscriptions by filter, and the QoS at which each kind is published for them."""

    __slots__ = ("_by_filter", "qos")

    def __init__(self) -> None:
        self._by_filter: dict[str, Granted] = {}
        self.qos: dict[Kind, int] = {}
        """For each kind that is subscribed to: the highest QoS granted [section 3.3.5]."""

    def __len__(self) -> int:
        return len(self._by_filter)

    def __contains__(self, topic_filter: str) -> bool:
        return topic_filter in self._by_filter

    def grant(self, topic_filter: str, qos: int, *, topics: Topics, thing: str) -> int | None:
        """Add a filter and return the QoS it got; None: it covers nothing that is the broker's to send."""
        if not topics.is_within(topic_filter, thing):
            return None
        kinds = topics.kinds(topic_filter, thing) - DEVICE_KINDS
        if not kinds:
            return None
        granted = min(qos, 1)
        self._by_filter[topic_filter] = Granted(kinds, granted)
        return granted

    @property
    def filters(self) -> list[str]:
        """All of them, in the order in which they came."""
        return list(self._by_filter)

    def by_filter(self) -> dict[str, int]:
        """The QoS granted for each filter."""
        return {topic_filter: granted.qos for topic_filter, granted in self._by_filter.items()}

    def observe(self, topic_filter: str) -> int:
        """Add a filter of an observer and return the QoS it got, which is 0."""
        self._by_filter[topic_filter] = Granted(frozenset(), 0)
        return 0

    def remove(self, topic_filter: str) -> bool:
        """Take a filter back; return whether it was there."""
        return self._by_filter.pop(topic_filter, None) is not None

    def sum_up(self) -> None:
        """Bring ``qos`` up to date, after one packet's worth of changes."""
        self.qos = {}
        for granted in self._by_filter.values():
            for kind in granted.kinds:
                self.qos[kind] = max(granted.qos, self.qos.get(kind, 0))
