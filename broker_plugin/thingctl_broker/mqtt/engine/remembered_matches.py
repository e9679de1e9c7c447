"""What was found for a topic, remembered until a filter changes that could match it. Pure."""

from __future__ import annotations

from sys import getsizeof
from typing import Final, Generic, TypeVar

M = TypeVar("M")

REMEMBERED: Final = 10_000
"""Topics whose matches are remembered; when there are more, all are forgotten."""

REMEMBERED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of these topics and of their matches, about; and of what is known of filters that changed."""

_ENTRY_BYTES: Final = 120

_PREFIX_LEVELS: Final = 3
"""Levels of a filter before its first wildcard that tell which remembered topics it could match."""


class Remembered(Generic[M]):
    """``matches``, which were right in this ``generation``."""

    __slots__ = ("generation", "matches")

    def __init__(self, generation: int, matches: M) -> None:
        self.generation = generation
        self.matches = matches


class RememberedMatches(Generic[M]):
    """Matches by topic. A change of a filter with wildcards begins a new ``generation``."""

    __slots__ = ("_bytes", "_changed", "_changed_bytes", "generation", "topics")

    def __init__(self) -> None:
        self.topics: dict[str, Remembered[M]] = {}
        self.generation = 0
        self._bytes = 0
        self._changed: dict[str, int] = {}  # the latest generation in which a filter with this prefix changed
        self._changed_bytes = 0

    def is_right(self, topic: str, remembered: Remembered[M]) -> bool:
        """Whether what is remembered of a topic still holds."""
        if self._has_changed(topic, remembered.generation):
            return False
        remembered.generation = self.generation
        return True

    def keep(self, topic: str, matches: M, size: int) -> None:
        """Remember what was found for a topic. ``size``: the bytes of the matches."""
        size += getsizeof(topic) + _ENTRY_BYTES
        if len(self.topics) >= REMEMBERED or self._bytes + size > REMEMBERED_BYTES:
            self.topics.clear()
            self._bytes = 0
        self.topics[topic] = Remembered(self.generation, matches)
        self._bytes += size

    def changed(self, topic: str) -> None:
        """A filter without wildcards has changed."""
        self.topics.pop(topic, None)

    def changed_below(self, topic_filter: str) -> None:
        """A filter with wildcards has changed."""
        self.generation += 1
        prefix = _prefix(topic_filter)
        if prefix not in self._changed:
            size = getsizeof(prefix) + _ENTRY_BYTES
            if len(self._changed) >= REMEMBERED or self._changed_bytes + size > REMEMBERED_BYTES:
                self._forget_all()
            self._changed_bytes += size
        self._changed[prefix] = self.generation

    def _forget_all(self) -> None:
        self._changed.clear()
        self.topics.clear()
        self._changed_bytes = self._bytes = 0

    def _has_changed(self, topic: str, since: int) -> bool:
        changed = self._changed
        if changed.get("", 0) > since:
            return True
        at = -1
        for _ in range(_PREFIX_LEVELS):
            at = topic.find("/", at + 1)
            if changed.get(topic if at < 0 else topic[:at], 0) > since:
                return True
            if at < 0:
                return False
        return False


def _prefix(topic_filter: str) -> str:
    levels = []
    for level in topic_filter.split("/", _PREFIX_LEVELS)[:_PREFIX_LEVELS]:
        if level in {"+", "#"}:
            break
        levels.append(level)
    return "/".join(levels)
