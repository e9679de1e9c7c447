"""Which ordinary topics a thing may use: rules with ``{thing}`` in place of its name.

Pure. A rule is a topic filter. A thing may publish, by itself or by its will, to what a
``publish`` rule matches; it may subscribe to a filter when a ``subscribe`` rule covers all
that the filter could match. Everything else is denied; whatever begins with ``$`` always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from thingctl_protocol.topics import is_filter, matches

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

PLACE: Final = "{thing}"
"""Stands for the thing's name in a rule."""

OWN: Final = (f"things/{PLACE}/#",)
"""The default: a thing's own prefix."""


class AclSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Topic filters; ``{thing}`` in them stands for the thing's name."""

    publish: tuple[str, ...] = OWN
    """What things may publish, and have published as their will."""
    subscribe: tuple[str, ...] = OWN
    """What things may subscribe to."""


class UndecidedRights(Exception):
    """Raised instead of an answer that takes time: ask again when ``lookup`` has ended."""

    def __init__(self, lookup: Coroutine[None, None, None]) -> None:
        super().__init__("the rights to a topic are not known yet")
        self.lookup = lookup
        """To be awaited, or closed. It raises nothing."""


class TopicRights(Protocol):
    """What one client may do with ordinary topics. Its methods may raise :class:`UndecidedRights`."""

    def may_publish(self, topic: str) -> bool:
        """Whether it may publish to a topic."""
        ...

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether it may have all that a filter could match."""
        ...


class AllTopics:
    """What a program of the operator's may do: read all, write to all that is ordinary, or both."""

    __slots__ = ("_reads", "_writes")

    def __init__(self, *, reads: bool, writes: bool) -> None:
        self._reads = reads
        self._writes = writes

    def may_publish(self, topic: str) -> bool:
        """Whether it may publish to a topic; never to one that begins with ``$``."""
        return self._writes and not topic.startswith("$")

    def may_subscribe(self, topic_filter: str) -> bool:  # noqa: ARG002 as all rights do
        """Whether it may subscribe: also to what the broker tells of itself."""
        return self._reads


class Acl:
    """What one thing may do with ordinary topics."""

    __slots__ = ("_publish", "_subscribe")

    def __init__(self, settings: AclSettings, thing: str) -> None:
        self._publish = _levels(settings.publish, thing)
        self._subscribe = _levels(settings.subscribe, thing)

    def may_publish(self, topic: str) -> bool:
        """Whether the thing may publish to a topic."""
        if topic.startswith("$"):
            return False
        levels = topic.split("/")
        return any(matches(rule, levels) for rule in self._publish)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether the thing may have all that a filter could match."""
        if topic_filter.startswith("$"):
            return False
        levels = topic_filter.split("/")
        return any(_covers(rule, levels) for rule in self._subscribe)

    def may_receive(self, topic: str) -> bool:
        """Whether a message with that topic may reach the thing."""
        if topic.startswith("$"):
            return False
        levels = topic.split("/")
        return any(matches(rule, levels) for rule in self._subscribe)


def check_rule(rule: str) -> str | None:
    """What is wrong with a rule, in words; None: nothing."""
    filled = rule.replace(PLACE, "thing")
    if not is_filter(filled) or "{" in filled or "}" in filled:
        return f"{rule!r} is no topic filter with {PLACE} in it"
    if filled.startswith("$"):
        return f"{rule!r}: topics that begin with $ are never a thing's"
    return None


def _levels(rules: Iterable[str], thing: str) -> tuple[list[str], ...]:
    # A thing's name has no slash and no wildcard, so it cannot change what a rule says.
    return tuple(rule.replace(PLACE, thing).split("/") for rule in rules)


def _covers(rule: list[str], wanted: list[str]) -> bool:
    """Whether every topic that ``wanted`` matches is matched by ``rule``, too."""
    for i, level in enumerate(rule):
        if level == "#":
            return True
        if i == len(wanted) or wanted[i] == "#" or level not in {"+", wanted[i]}:
            return False
    return len(rule) == len(wanted)
