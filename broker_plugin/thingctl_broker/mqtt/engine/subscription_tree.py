"""Who subscribes to what: exact filters in a dict, wildcards in a tree. Pure.

A look costs the topic's levels, never the number of filters, and what was found is remembered by topic
until a filter changes that could match it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

S = TypeVar("S")

REMEMBERED: Final = 10_000
"""Topics whose matches are remembered; when there are more, all are forgotten."""

REMEMBERED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of these topics and of their matches, about."""

_MATCH_BYTES: Final = 100

_SHARE: Final = "$share/"

_PREFIX_LEVELS: Final = 3
"""Levels of a filter before its first wildcard that tell which remembered topics it could match."""


class SubscriptionOptions(NamedTuple):
    """What a client asked for with a filter [MQTT5 section 3.8.3.1]. ``subscription_id``: 0 for none."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    subscription_id: int = 0


class Match(NamedTuple, Generic[S]):
    """A subscriber and how it gets a message, whatever the number of its filters that match.

    ``qos``: the highest of them. ``own``: how it gets a message of its own; None: not at all.
    ``is_own_other``: whether that differs.
    """

    subscriber: S
    qos: int
    subscription_ids: tuple[int, ...] = ()
    retain_as_published: bool = False
    is_own_other: bool = False
    own: Match[S] | None = None


class SharedMatch(NamedTuple, Generic[S]):
    """A shared subscription: one of ``members`` gets the message. ``share``: its group and filter."""

    share: str
    members: tuple[tuple[S, SubscriptionOptions], ...]


_Subscribers: TypeAlias = dict[S, SubscriptionOptions]


class _Filter(Generic[S]):
    """Who has one filter: each for itself, and as groups."""

    __slots__ = ("groups", "subscribers")

    def __init__(self) -> None:
        self.subscribers: _Subscribers[S] = {}
        self.groups: dict[str, _Subscribers[S]] | None = None


class _Node(Generic[S]):
    """A level of wildcard filters: those that end here, and those that go on."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[S]] = {}  # "+" among them
        self.here: _Filter[S] | None = None
        self.rest: _Filter[S] | None = None
        """Of the filter that goes on with ``#``, which matches this level too [MQTT-4.7.1-2]."""


class _Remembered(Generic[S]):
    __slots__ = ("generation", "matches")

    def __init__(self, generation: int, matches: tuple[Match[S] | SharedMatch[S], ...]) -> None:
        self.generation = generation
        self.matches = matches


class SubscriptionTree(Generic[S]):
    """Subscriptions by filter and subscriber. Filters are well-formed."""

    def __init__(self) -> None:
        self._exact: dict[str, _Filter[S]] = {}
        self._root: _Node[S] = _Node()
        self._count = 0
        self._remembered: dict[str, _Remembered[S]] = {}
        self._remembered_bytes = 0
        self._generation = 0
        self._changed: dict[str, int] = {}  # the latest generation in which a filter with this prefix changed

    def __len__(self) -> int:
        return self._count

    def add(
        self, topic_filter: str, subscriber: S, options: SubscriptionOptions
    ) -> SubscriptionOptions | None:
        """Subscribe, and return what that replaces [MQTT-3.8.4-3]."""
        group, plain = split_share(topic_filter)
        found = self._find_or_make(plain)
        subscribers = found.subscribers
        if group:
            if found.groups is None:
                found.groups = {}
            subscribers = found.groups.setdefault(group, {})
        replaced = subscribers.get(subscriber)
        subscribers[subscriber] = options
        if replaced is None:
            self._count += 1
        if replaced != options:
            self._forget(plain)
        return replaced

    def remove(self, topic_filter: str, subscriber: S) -> bool:
        """Unsubscribe; return whether there was such a subscription."""
        group, plain = split_share(topic_filter)
        path = self._path(plain)
        found = self._exact.get(plain) if path is None else _ending(path, plain)
        if found is None:
            return False
        subscribers = (found.groups or {}).get(group, {}) if group else found.subscribers
        if subscribers.pop(subscriber, None) is None:
            return False
        self._count -= 1
        if group and not subscribers and found.groups is not None:
            del found.groups[group]
        if not found.subscribers and not found.groups:
            if path is None:
                del self._exact[plain]
            else:
                _prune(path, plain)
        self._forget(plain)
        return True

    def match(self, topic: str) -> tuple[Match[S] | SharedMatch[S], ...]:
        """Who gets a message to ``topic``: each subscriber once, and each group."""
        remembered = self._remembered.get(topic)
        if remembered is not None:
            if remembered.generation == self._generation:
                return remembered.matches
            if not self._has_changed(topic, remembered.generation):
                remembered.generation = self._generation
                return remembered.matches
        matches = self._look(topic)
        size = len(topic) + _MATCH_BYTES * (1 + len(matches))
        if len(self._remembered) >= REMEMBERED or self._remembered_bytes + size > REMEMBERED_BYTES:
            self._remembered.clear()
            self._remembered_bytes = 0
        self._remembered[topic] = _Remembered(self._generation, matches)
        self._remembered_bytes += size
        return matches

    # What is remembered.

    def _forget(self, topic_filter: str) -> None:
        """A filter has changed."""
        if not _is_wild(topic_filter):
            self._remembered.pop(topic_filter, None)
            return
        self._generation += 1
        if len(self._changed) >= REMEMBERED:
            self._changed.clear()
            self._remembered.clear()
            self._remembered_bytes = 0
        prefix = []
        for level in topic_filter.split("/", _PREFIX_LEVELS)[:_PREFIX_LEVELS]:
            if level in {"+", "#"}:
                break
            prefix.append(level)
        self._changed["/".join(prefix)] = self._generation

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

    # The filters.

    def _find_or_make(self, topic_filter: str) -> _Filter[S]:
        if not _is_wild(topic_filter):
            found = self._exact.get(topic_filter)
            if found is None:
                found = self._exact[topic_filter] = _Filter()
            return found
        node, levels = self._root, topic_filter.split("/")
        ends_with_rest = levels[-1] == "#"
        for level in levels[:-1] if ends_with_rest else levels:
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        if ends_with_rest:
            if node.rest is None:
                node.rest = _Filter()
            return node.rest
        if node.here is None:
            node.here = _Filter()
        return node.here

    def _path(self, topic_filter: str) -> list[tuple[_Node[S], str]] | None:
        """The nodes of a filter with wildcards, each with its level; None: it has none, or is not there."""
        if not _is_wild(topic_filter):
            return None
        node, levels = self._root, topic_filter.split("/")
        path = [(node, "")]
        for level in levels[:-1] if levels[-1] == "#" else levels:
            child = node.children.get(level)
            if child is None:
                return []
            node = child
            path.append((node, level))
        return path

    def _look(self, topic: str) -> tuple[Match[S] | SharedMatch[S], ...]:
        exact = self._exact.get(topic)
        found = [] if exact is None else [exact]
        found.extend(_walk(self._root, topic))
        if not found:
            return ()
        if len(found) == 1 and found[0].groups is None:
            return tuple(_match_of(s, (options,)) for s, options in found[0].subscribers.items())
        return _merge(found)

    def __iter__(self) -> Iterator[tuple[str, S, SubscriptionOptions]]:
        for topic_filter, found in self._exact.items():
            yield from _entries(topic_filter, found)
        nodes = [(self._root, "")]
        while nodes:
            node, prefix = nodes.pop()
            if node.here is not None:
                yield from _entries(prefix[:-1], node.here)
            if node.rest is not None:
                yield from _entries(prefix + "#", node.rest)
            nodes.extend((child, f"{prefix}{level}/") for level, child in node.children.items())


def split_share(topic_filter: str) -> tuple[str, str]:
    """The group of a shared subscription and its filter; an ordinary one has no group [MQTT5 section 4.8.2].

    >>> split_share("$share/workers/jobs/+"), split_share("jobs/+")
    (('workers', 'jobs/+'), ('', 'jobs/+'))
    """
    if not topic_filter.startswith(_SHARE):
        return "", topic_filter
    group, _, plain = topic_filter[len(_SHARE) :].partition("/")
    return group, plain


def is_share(topic_filter: str) -> bool:
    """Whether a filter is that of a shared subscription."""
    return topic_filter.startswith(_SHARE)


def _is_wild(topic_filter: str) -> bool:
    return "+" in topic_filter or "#" in topic_filter


def _ending(path: list[tuple[_Node[S], str]], topic_filter: str) -> _Filter[S] | None:
    if not path:
        return None
    node = path[-1][0]
    return node.rest if topic_filter.endswith("#") else node.here


def _prune(path: list[tuple[_Node[S], str]], topic_filter: str) -> None:
    """Take the filter at the end of the path away, and every node that then is empty."""
    node = path[-1][0]
    if topic_filter.endswith("#"):
        node.rest = None
    else:
        node.here = None
    for i in range(len(path) - 1, 0, -1):
        node, level = path[i]
        if node.children or node.here is not None or node.rest is not None:
            return
        del path[i - 1][0].children[level]


def _walk(root: _Node[S], topic: str) -> Iterator[_Filter[S]]:
    """The wildcard filters that match."""
    levels = topic.split("/")
    nodes = [root]
    is_hidden = topic.startswith("$")  # from filters that begin with a wildcard [MQTT-4.7.2-1]
    for level in levels:
        further: list[_Node[S]] = []
        for node in nodes:
            if node.rest is not None and not is_hidden:
                yield node.rest
            child = node.children.get(level)
            if child is not None:
                further.append(child)
            child = node.children.get("+")
            if child is not None and not is_hidden:
                further.append(child)
        if not further:
            return
        nodes = further
        is_hidden = False
    for node in nodes:
        if node.here is not None:
            yield node.here
        if node.rest is not None:
            yield node.rest


def _merge(found: list[_Filter[S]]) -> tuple[Match[S] | SharedMatch[S], ...]:
    each: dict[S, list[SubscriptionOptions]] = {}
    shared: list[Match[S] | SharedMatch[S]] = []
    for entry in found:
        for subscriber, options in entry.subscribers.items():
            each.setdefault(subscriber, []).append(options)
        for group, members in (entry.groups or {}).items():
            shared.append(SharedMatch(f"{group}/{id(entry)}", tuple(members.items())))
    matches: list[Match[S] | SharedMatch[S]] = [
        _match_of(subscriber, tuple(options)) for subscriber, options in each.items()
    ]
    return tuple(matches + shared)


def _match_of(subscriber: S, options: tuple[SubscriptionOptions, ...]) -> Match[S]:
    match: Match[S] = Match(
        subscriber,
        max(o.qos for o in options),
        tuple(o.subscription_id for o in options if o.subscription_id),
        any(o.retain_as_published for o in options),
    )
    foreign = tuple(o for o in options if not o.no_local)
    if len(foreign) == len(options):
        return match
    return match._replace(is_own_other=True, own=_match_of(subscriber, foreign) if foreign else None)


def _entries(topic_filter: str, found: _Filter[S]) -> Iterator[tuple[str, S, SubscriptionOptions]]:
    for subscriber, options in found.subscribers.items():
        yield topic_filter, subscriber, options
    for group, members in (found.groups or {}).items():
        for subscriber, options in members.items():
            yield f"{_SHARE}{group}/{topic_filter}", subscriber, options
