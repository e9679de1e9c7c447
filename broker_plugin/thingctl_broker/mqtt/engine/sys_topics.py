"""What the broker publishes of itself under ``$SYS/broker/``, by the names of mosquitto 2. Pure.

Exporters and dashboards made for mosquitto read these topics. Mosquitto's heap sizes are not among
them: Python has no such figure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = "$SYS/broker/"

VERSION: Final = f"{ROOT}version"
UPTIME: Final = f"{ROOT}uptime"

COUNTS: Final = {
    "bytes_received": ("bytes/received",),
    "bytes_sent": ("bytes/sent",),
    "clients_connected": ("clients/connected", "clients/active"),
    "clients_disconnected": ("clients/disconnected", "clients/inactive"),
    "clients_expired": ("clients/expired",),
    "clients_maximum": ("clients/maximum",),
    "clients_total": ("clients/total",),
    "inflight": ("messages/inflight",),
    "messages_received": ("messages/received",),
    "messages_sent": ("messages/sent",),
    "publish_bytes_received": ("publish/bytes/received",),
    "publish_bytes_sent": ("publish/bytes/sent",),
    "publish_dropped": ("publish/messages/dropped",),
    "publish_received": ("publish/messages/received",),
    "publish_sent": ("publish/messages/sent",),
    "retained": ("retained messages/count",),
    "shared_subscriptions": ("shared_subscriptions/count",),
    "stored": ("store/messages/count", "messages/stored"),
    "stored_bytes": ("store/messages/bytes",),
    "subscriptions": ("subscriptions/count",),
}
"""The topics of each figure, below ``$SYS/broker/``: the name of mosquitto, then its older one."""

LOADS: Final = {
    "bytes_received": "load/bytes/received",
    "bytes_sent": "load/bytes/sent",
    "connects": "load/connections",
    "messages_received": "load/messages/received",
    "messages_sent": "load/messages/sent",
    "publish_dropped": "load/publish/dropped",
    "publish_received": "load/publish/received",
    "publish_sent": "load/publish/sent",
    "sockets": "load/sockets",
}
"""The figures of which averages are published, per minute over the last 1, 5 and 15 minutes.

``connects``: CONNECT packets received; ``sockets``: connections opened; both since the start.
"""

MINUTES: Final = (1, 5, 15)


class SysTopics:
    """Turns the figures of a server into messages."""

    def __init__(self, version: str) -> None:
        """``version``: the name and version of the broker."""
        self._version = version
        self._published: dict[str, bytes] = {}
        self._previous: Mapping[str, float] | None = None
        self._previous_at = 0.0
        self._loads: dict[str, float] = {}

    def update(self, figures: Mapping[str, float], now: float) -> list[tuple[str, bytes]]:
        """Return the topics whose payload has changed since the last update, with it; at first all.

        ``figures``: totals since the start and present counts, by the names in ``COUNTS`` and ``LOADS``,
        and ``uptime`` in seconds. A figure that is missing has no topic. ``now``: monotonic seconds.
        """
        messages = dict(self._messages(figures, now))
        changed = [item for item in messages.items() if self._published.get(item[0]) != item[1]]
        self._published.update(changed)
        self._previous, self._previous_at = dict(figures), now
        return changed

    def _messages(self, figures: Mapping[str, float], now: float) -> Iterator[tuple[str, bytes]]:
        yield VERSION, self._version.encode()
        if "uptime" in figures:
            yield UPTIME, b"%d seconds" % figures["uptime"]
        for name, topics in COUNTS.items():
            if name in figures:
                payload = b"%d" % figures[name]
                for topic in topics:
                    yield ROOT + topic, payload
        yield from self._load_messages(figures, now - self._previous_at)

    def _load_messages(self, figures: Mapping[str, float], elapsed: float) -> Iterator[tuple[str, bytes]]:
        """Move the averages on by ``elapsed`` seconds. The first update has nothing to compare with: 0."""
        for name, below in LOADS.items():
            if name not in figures:
                continue
            rate = 0.0
            if self._previous is not None and elapsed > 0:
                rate = (figures[name] - self._previous.get(name, 0)) * 60 / elapsed
            for minutes in MINUTES:
                topic = f"{ROOT}{below}/{minutes}min"
                load = self._loads.get(topic, 0.0)
                if self._previous is not None:
                    load = rate + math.exp(-max(elapsed, 0.0) / (60 * minutes)) * (load - rate)
                self._loads[topic] = load
                yield topic, b"%.2f" % load
