"""Who subscribes to what: exact filters in a dict, wildcards in a tree. Pure.

A look costs the topic's levels, never the number of filters, and what was found is remembered by topic
until a filter changes that could match it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

from thingctl_broker.mqtt.engine.remembered_matches import RememberedMatches

if TYPE_CHECKING:
    from collections.abc import Iterator

S = TypeVar("S")

_MATCH_BYTES: Final = 120
_ID_BYTES: Final = 8

_SHARE: Final = "$share/"


class SubscriptionOptions(NamedTuple):
    """What a client asked for with a filter [MQTT5 section 3.8.3.1]. ``subscription_id``: 0 for none."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    subscription_id: int = 0

    @property
    def subscription_ids(self) -> tuple[int, ...]:
        """As a message has them that comes for this filter alone."""
        return (self.subscription_id,) if self.subscription_id else ()


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


_Subscribers: TypeAlias = dict[S, SubscriptionOptions]


class SharedMatch(Generic[S]):
    """A shared subscription: one of its members gets the message. ``share``: its group and filter.

    There is one of it, whatever the number of topics for which it is remembered, and it is up to date.
    """

    __slots__ = ("_members", "share", "subscribers")

    def __init__(self, share: str) -> None:
        self.share = share
        self.subscribers: _Subscribers[S] = {}
        self._members: tuple[tuple[S, SubscriptionOptions], ...] | None = None

    @property
    def members(self) -> tuple[tuple[S, SubscriptionOptions], ...]:
        """Its subscribers, in the order in which they came; of one that has ended, the last."""
        if self._members is None:
            self._members = tuple(self.subscribers.items())
        return self._members

    def changed(self) -> None:
        """Its subscribers have changed."""
        if self.subscribers:
            self._members = None


class _Filter(Generic[S]):
    """Who has one filter: each for itself, and as groups."""

    __slots__ = ("groups", "subscribers")

    def __init__(self) -> None:
        self.subscribers: _Subscribers[S] = {}
        self.groups: dict[str, SharedMatch[S]] | None = None


class _Node(Generic[S]):
    """A level of wildcard filters: those that end here, and those that go on."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[S]] = {}  # "+" among them
        self.here: _Filter[S] | None = None
        self.rest: _Filter[S] | None = None
        """Of the filter that goes on with ``#``, which matches this level too [MQTT-4.7.1-2]."""


class SubscriptionTree(Generic[S]):
    """Subscriptions by filter and subscriber. Filters are well-formed."""

    def __init__(self) -> None:
        self._exact: dict[str, _Filter[S]] = {}
        self._root: _Node[S] = _Node()
        self._count = 0
        self._remembered: RememberedMatches[tuple[Match[S] | SharedMatch[S], ...]] = RememberedMatches()

    def __len__(self) -> int:
        return self._count

    def add(
        self, topic_filter: str, subscriber: S, options: SubscriptionOptions
    ) -> SubscriptionOptions | None:
        """Subscribe, and return what that replaces [MQTT-3.8.4-3]."""
        group, plain = split_share(topic_filter)
        found = self._find_or_make(plain)
        if group:
            replaced = self._join(found, plain, group, subscriber, options)
        else:
            replaced = found.subscribers.get(subscriber)
            found.subscribers[subscriber] = options
            if replaced != options:
                self._forget(plain)
        if replaced is None:
            self._count += 1
        return replaced

    def _join(
        self, found: _Filter[S], plain: str, group: str, subscriber: S, options: SubscriptionOptions
    ) -> SubscriptionOptions | None:
        if found.groups is None:
            found.groups = {}
        shared = found.groups.get(group)
        if shared is None:
            shared = found.groups[group] = SharedMatch(f"{group}/{id(found)}")
            self._forget(plain)
        replaced = shared.subscribers.get(subscriber)
        shared.subscribers[subscriber] = options
        shared.changed()
        return replaced

    def remove(self, topic_filter: str, subscriber: S) -> bool:
        """Unsubscribe; return whether there was such a subscription."""
        group, plain = split_share(topic_filter)
        path = self._path(plain)
        found = self._exact.get(plain) if path is None else _ending(path, plain)
        if found is None:
            return False
        if group:
            was_there = self._leave(found, plain, group, subscriber)
        else:
            was_there = found.subscribers.pop(subscriber, None) is not None
            if was_there:
                self._forget(plain)
        if not was_there:
            return False
        self._count -= 1
        if not found.subscribers and not found.groups:
            if path is None:
                del self._exact[plain]
            else:
                _prune(path, plain)
        return True

    def _leave(self, found: _Filter[S], plain: str, group: str, subscriber: S) -> bool:
        shared = (found.groups or {}).get(group)
        if found.groups is None or shared is None or subscriber not in shared.subscribers:
            return False
        if len(shared.subscribers) == 1:
            _ = shared.members  # for a delivery that has it in hand
            del found.groups[group]
            self._forget(plain)
        del shared.subscribers[subscriber]
        shared.changed()
        return True

    def match(self, topic: str) -> tuple[Match[S] | SharedMatch[S], ...]:
        """Who gets a message to ``topic``: each subscriber once, and each group."""
        memory = self._remembered
        remembered = memory.topics.get(topic)
        if remembered is not None and (
            remembered.generation == memory.generation or memory.is_right(topic, remembered)
        ):
            return remembered.matches
        matches = self._look(topic)
        memory.keep(topic, matches, sum(map(_bytes, matches)))
        return matches

    def _forget(self, topic_filter: str) -> None:
        """A filter has changed."""
        if _is_wild(topic_filter):
            self._remembered.changed_below(topic_filter)
        else:
            self._remembered.changed(topic_filter)

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
        if entry.groups is not None:
            shared.extend(entry.groups.values())
    matches: list[Match[S] | SharedMatch[S]] = [
        _match_of(subscriber, tuple(options)) for subscriber, options in each.items()
    ]
    return tuple(matches + shared)


def _bytes(match: Match[S] | SharedMatch[S]) -> int:
    """What it takes to remember a match."""
    if isinstance(match, SharedMatch):
        return _ID_BYTES
    size = _MATCH_BYTES + _ID_BYTES * len(match.subscription_ids)
    return size if match.own is None else size + _MATCH_BYTES + _ID_BYTES * len(match.own.subscription_ids)


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
    for group, shared in (found.groups or {}).items():
        for subscriber, options in shared.subscribers.items():
            yield f"{_SHARE}{group}/{topic_filter}", subscriber, options
