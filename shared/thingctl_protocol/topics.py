"""The one module that knows topic strings, both ways.

>>> topics = Topics()
>>> topics.request("thermostat-001", "0193")
'$emqx/commands/things/thermostat-001/executions/0193/request'
>>> topics.parse("$emqx/commands/things/thermostat-001/executions/0193/response")
Topic(thing='thermostat-001', kind=<Kind.RESPONSE: 'response'>, execution_id='0193')
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from thingctl_protocol.errors import ProtocolError
from thingctl_protocol.identifiers import is_id, is_thing_name

DEFAULT_ROOT: Final = "$emqx/commands"


class Kind(StrEnum):
    """What a command topic carries: its last level."""

    REQUEST = "request"
    RESPONSE = "response"
    CANCEL = "cancel"
    ACTIONS = "actions"
    TIME = "time"
    PRESENCE = "presence"


EXECUTION_KINDS: Final = frozenset({Kind.REQUEST, Kind.RESPONSE, Kind.CANCEL})
"""Kinds whose topic names an execution."""

DEVICE_KINDS: Final = frozenset({Kind.RESPONSE, Kind.ACTIONS, Kind.PRESENCE})
"""Kinds that a device publishes; the others are the broker's."""


_RESPONSE_END: Final = f"/{Kind.RESPONSE}".encode()


_PLAIN: Final = {
    f"/executions/+/{kind}" if kind in EXECUTION_KINDS else f"/{kind}": frozenset({kind}) for kind in Kind
}
"""Behind a thing's own prefix: the filters that cover one kind, and what they cover."""


class Topic(NamedTuple):
    """A command topic taken apart. ``execution_id`` is None for those that name no execution."""

    thing: str
    kind: Kind
    execution_id: str | None = None


class ThingTopics:
    """What stands around the id of an execution in the topics of one thing, as it stands on the wire.

    For code that reads or writes a topic with every message: nothing but the id changes.
    """

    __slots__ = ("_before", "response_end", "response_start")

    def __init__(self, executions: str) -> None:
        """``executions``: all before the id, such as ``$emqx/commands/things/t/executions/``."""
        self._before = self.response_start = executions.encode()
        self.response_end = _RESPONSE_END

    def request(self, execution_id: str) -> bytes:
        """As :meth:`Topics.request`, encoded.

        >>> Topics().of_thing("t").request("0193")
        b'$emqx/commands/things/t/executions/0193/request'
        """
        return b"%b%b/request" % (self._before, execution_id.encode())


class Topics:
    """Formats and parses the topics under one root (``topicRoot``)."""

    __slots__ = ("_things", "root")

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        """``root`` has no wildcard and no empty level; raises :class:`ProtocolError` otherwise."""
        if not all(root.split("/")) or any(c in root for c in "+#\0") or not root.isprintable():
            raise ProtocolError(f"{root!r} cannot be a topic root: no empty level, no + or #")
        self.root = root
        self._things = f"{root}/things/"

    def request(self, thing: str, execution_id: str) -> str:
        """Where the broker publishes a request."""
        return f"{self._things}{thing}/executions/{execution_id}/request"

    def response(self, thing: str, execution_id: str) -> str:
        """Where the device publishes its responses to one execution."""
        return f"{self._things}{thing}/executions/{execution_id}/response"

    def cancel(self, thing: str, execution_id: str) -> str:
        """Where the broker asks the device to stop one execution."""
        return f"{self._things}{thing}/executions/{execution_id}/cancel"

    def actions(self, thing: str) -> str:
        """Where the device announces what it can do (retained)."""
        return f"{self._things}{thing}/actions"

    def time(self, thing: str) -> str:
        """Where the broker tells the device its time."""
        return f"{self._things}{thing}/time"

    def presence(self, thing: str) -> str:
        """Where it is said that a thing has come or gone, by itself or by the cluster."""
        return f"{self._things}{thing}/presence"

    def of_thing(self, thing: str) -> ThingTopics:
        """The topics of one thing's executions, ready for the wire."""
        return ThingTopics(f"{self._things}{thing}/executions/")

    def request_filter(self, thing: str) -> str:
        """What a device subscribes to for its requests."""
        return self.request(thing, "+")

    def cancel_filter(self, thing: str) -> str:
        """What a device subscribes to for cancels."""
        return self.cancel(thing, "+")

    def every(self, kind: Kind) -> str:
        """The filter that covers one kind for all things."""
        if kind in EXECUTION_KINDS:
            return f"{self._things}+/executions/+/{kind}"
        return f"{self._things}+/{kind}"

    def shared(self, group: str, kind: Kind) -> str:
        """Like :meth:`every`, each message going to one member of the group [MQTT 5.0 section 4.8.2].

        >>> Topics("fleet").shared("workers", Kind.ACTIONS)
        '$share/workers/fleet/things/+/actions'
        """
        return f"$share/{group}/{self.every(kind)}"

    def probe(self, client_id: str) -> str:
        """Where a worker of a cluster says something to itself; nothing to a device.

        >>> Topics("fleet").probe("w1")
        'fleet/probe/w1'
        """
        return f"{self.root}/probe/{client_id}"

    def shared_probe(self, client_id: str) -> str:
        """What it subscribes to for that, as a group of one."""
        return f"$share/{client_id}/{self.probe(client_id)}"

    def owns(self, topic: str) -> bool:
        """Whether a topic or filter lies in the command namespace.

        >>> Topics().owns("$emqx/commands/anything"), Topics().owns("$emqx/other")
        (True, False)
        """
        return topic.startswith(self.root) and (len(topic) == len(self.root) or topic[len(self.root)] == "/")

    def is_within(self, topic_filter: str, thing: str) -> bool:
        """Whether a filter can match nothing but topics of this thing."""
        return topic_filter.startswith(f"{self._things}{thing}/")

    def reaches_into(self, topic_filter: str) -> bool:
        """Whether a ``$`` filter from outside the namespace covers topics within it.

        >>> Topics().reaches_into("$emqx/#"), Topics().reaches_into("$SYS/#")
        (True, False)
        """
        root = self.root.split("/")
        for i, level in enumerate(topic_filter.split("/")):
            if level == "#" or i == len(root):
                return topic_filter.startswith("$")
            if level not in {"+", root[i]}:
                return False
        return False

    def parse(self, topic: str) -> Topic | None:
        """Take a topic apart; None when it is not one of ours."""
        if not topic.startswith(self._things):
            return None
        match topic[len(self._things) :].split("/"):
            case [thing, "executions", execution_id, ("request" | "response" | "cancel") as kind]:
                if is_thing_name(thing) and is_id(execution_id):
                    return Topic(thing, Kind(kind), execution_id)
            case [thing, ("actions" | "time" | "presence") as kind]:
                if is_thing_name(thing):
                    return Topic(thing, Kind(kind))
        return None

    def kinds(self, topic_filter: str, thing: str) -> frozenset[Kind]:
        """Which kinds of ``thing``'s topics a subscription filter covers, for every execution.

        >>> sorted(Topics().kinds("$emqx/commands/things/t/executions/+/request", "t"))
        [<Kind.REQUEST: 'request'>]

        A filter that names one execution covers none: it cannot be known in advance.
        Nor does one that is malformed.
        """
        own = f"{self._things}{thing}"
        if topic_filter.startswith(own):  # what most things ask for, each when it connects
            plain = _PLAIN.get(topic_filter[len(own) :])
            if plain is not None:
                return plain
        if not is_filter(topic_filter):
            return frozenset()
        levels = topic_filter.split("/")
        return frozenset(
            kind
            for kind in Kind
            if matches(
                levels,
                # No literal level equals "+", so only a wildcard covers the place of the id.
                (f"{own}/executions/+/{kind}" if kind in EXECUTION_KINDS else f"{own}/{kind}").split("/"),
            )
        )


def matches(filter_levels: list[str], topic_levels: list[str]) -> bool:
    """Whether a filter matches a topic, both given as levels [MQTT-4.7.1-2, MQTT-4.7.1-3].

    A filter whose first level is a wildcard matches no topic that begins with ``$`` [MQTT-4.7.2-1].
    """
    if filter_levels[0] in {"+", "#"} and topic_levels[0].startswith("$"):
        return False
    for i, level in enumerate(filter_levels):
        if level == "#":
            return True
        if i == len(topic_levels) or level not in {"+", topic_levels[i]}:
            return False
    return len(filter_levels) == len(topic_levels)


def is_filter(text: str) -> bool:
    """Whether ``text`` is a well-formed topic filter [MQTT-4.7.1-1 to -3, MQTT-4.7.3-1, -2]."""
    if not text or "\0" in text:
        return False
    levels = text.split("/")
    return all(
        ("#" not in level or (level == "#" and i == len(levels) - 1)) and ("+" not in level or level == "+")
        for i, level in enumerate(levels)
    )


def is_topic(text: str) -> bool:
    """Whether ``text`` is a well-formed topic name [MQTT-3.3.2-2, MQTT-4.7.3-1, -2]."""
    return bool(text) and not any(c in text for c in "+#\0")
