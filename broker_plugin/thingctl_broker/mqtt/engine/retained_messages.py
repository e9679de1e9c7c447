"""Retained messages: by topic, and in a tree of levels for filters with wildcards. Pure."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.engine import sys_topics

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.message import Message


_SPARE_TIMES: Final = 1000
"""Times of messages that were replaced, which may lie about besides two for each message."""


_FREE_LEVELS: Final = 10
_LEVEL_BYTES: Final = 250
"""What a level of a topic beyond the free ones counts for: an object and its dict."""


class _Level:
    __slots__ = ("children", "message")

    def __init__(self) -> None:
        self.children: dict[str, _Level] = {}
        self.message: Message | None = None


class RetainedMessages:
    """At most ``most`` messages of ``most_bytes`` together, the levels of long topics among them.

    The broker's own figures (``sys_topics``) count for nothing: they are few, and no client publishes there.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._messages: dict[str, Message] = {}
        self._root = _Level()
        self._expiring: list[tuple[float, str]] = []
        self._figures = 0
        self.bytes = 0
        """What they count for, together."""

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, topic: object) -> bool:
        return topic in self._messages

    def set(self, message: Message) -> bool:
        """Retain a message instead of the one under its topic; False: there is no room for it."""
        topic = message.topic
        replaced = self._messages.get(topic)
        size = self.bytes + _size(message) - (0 if replaced is None else _size(replaced))
        is_figure = _is_figure(topic)
        if not is_figure and (size > self._most_bytes or (replaced is None and self._is_full())):
            return False
        self.bytes = size
        self._figures += is_figure and replaced is None
        self._messages[topic] = message
        level = self._root
        for name in topic.split("/"):
            child = level.children.get(name)
            if child is None:
                child = level.children[name] = _Level()
            level = child
        level.message = message
        if message.expires_at is not None:
            self._plan(message.expires_at, topic)
        return True

    def _is_full(self) -> bool:
        return len(self._messages) - self._figures >= self._most

    def _plan(self, expires_at: float, topic: str) -> None:
        if len(self._expiring) > 2 * len(self._messages) + _SPARE_TIMES:
            self._expiring = [
                (message.expires_at, message.topic)
                for message in self._messages.values()
                if message.expires_at is not None and message.topic != topic
            ]
            heapify(self._expiring)
        heappush(self._expiring, (expires_at, topic))

    def clear(self, topic: str) -> bool:
        """Retain nothing under a topic any more; return whether something was."""
        message = self._messages.pop(topic, None)
        if message is None:
            return False
        self.bytes -= _size(message)
        self._figures -= _is_figure(topic)
        path = [self._root]
        names = topic.split("/")
        for name in names:
            path.append(path[-1].children[name])
        path[-1].message = None
        for i in range(len(names), 0, -1):
            if path[i].children or path[i].message is not None:
                break
            del path[i - 1].children[names[i - 1]]
        return True

    def match(self, topic_filter: str, now: float) -> list[Message]:
        """The messages whose topics a well-formed filter matches, without those that have expired."""
        if "+" not in topic_filter and "#" not in topic_filter:
            message = self._messages.get(topic_filter)
            found = [] if message is None else [message]
        else:
            found = self._walk(topic_filter.split("/"))
        return [m for m in found if m.expires_at is None or m.expires_at > now]

    def expire(self, now: float) -> list[str]:
        """Forget what has expired; return its topics."""
        expired = []
        while self._expiring and self._expiring[0][0] <= now:
            _, topic = heappop(self._expiring)
            message = self._messages.get(topic)
            if message is not None and message.expires_at is not None and message.expires_at <= now:
                self.clear(topic)
                expired.append(topic)
        return expired

    def _walk(self, names: list[str]) -> list[Message]:
        levels = [self._root]
        is_first = True
        for name in names:
            if name == "#":
                return _below(levels, is_first=is_first)
            if name == "+":
                levels = [
                    child
                    for level in levels
                    for key, child in level.children.items()
                    if not (is_first and key.startswith("$"))  # [MQTT-4.7.2-1]
                ]
            else:
                levels = [level.children[name] for level in levels if name in level.children]
            is_first = False
        return [level.message for level in levels if level.message is not None]


def _is_figure(topic: str) -> bool:
    return topic.startswith(sys_topics.ROOT)


def _size(message: Message) -> int:
    if _is_figure(message.topic):
        return 0
    return message.size + _LEVEL_BYTES * max(0, message.topic.count("/") - _FREE_LEVELS)


def _below(levels: list[_Level], *, is_first: bool) -> list[Message]:
    found = []
    while levels:
        level = levels.pop()
        if level.message is not None:
            found.append(level.message)
        levels.extend(
            child for key, child in level.children.items() if not (is_first and key.startswith("$"))
        )
        is_first = False
    return found
