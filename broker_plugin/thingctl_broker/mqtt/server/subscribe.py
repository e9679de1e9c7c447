"""What a client subscribes to: to its commands here, to what all things say, and to the rest at amqtt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.frames import PacketTooLarge
from thingctl_broker.mqtt.protocol.packets import SUBSCRIPTION_REFUSED
from thingctl_protocol.topics import Kind, is_filter

if TYPE_CHECKING:
    from thingctl_broker.mqtt.auth.authenticator import Identity
    from thingctl_broker.mqtt.protocol.frames import Frame
    from thingctl_broker.mqtt.server.client import ServerConnection


class Subscriber:
    """The subscriptions of one connection, whose client has been let in."""

    __slots__ = ("_acl", "_connection", "_observes", "_thing")

    def __init__(self, connection: ServerConnection, admission: Identity) -> None:
        self._connection = connection
        self._acl = admission.acl
        self._thing = admission.thing
        self._observes = admission.observes

    def subscribe(self, frame: Frame) -> None:
        """Take a SUBSCRIBE [section 3.8]."""
        connection = self._connection
        self._check_size(frame)
        packet_id, wanted = packets.parse_subscribe(frame, connection.limits.filters)
        told_time = {Kind.TIME, Kind.REQUEST} <= connection.subscriptions.qos.keys()
        codes: list[int | None] = [self._code(topic_filter, qos) for topic_filter, qos in wanted]
        theirs = [want for want, code in zip(wanted, codes, strict=True) if code is None]
        if theirs:
            connection.amqtt().subscribe(packet_id, theirs, codes)
        else:
            connection.write(packets.encode_suback(packet_id, [code for code in codes if code is not None]))
        self._serve(tell_time=not told_time)

    def unsubscribe(self, frame: Frame) -> None:
        """Take an UNSUBSCRIBE [section 3.10]."""
        connection = self._connection
        self._check_size(frame)
        packet_id, filters = packets.parse_unsubscribe(frame, connection.limits.filters)
        owns = connection.front.topics.owns
        theirs = [f for f in filters if not connection.subscriptions.remove(f) and not owns(f)]
        if connection.behind is None or not connection.behind.unsubscribe(packet_id, theirs):
            connection.write(packets.encode_unsuback(packet_id))
        self._serve(tell_time=False)

    def resume(self) -> None:
        """Go on with the subscriptions that were kept."""
        self._serve(tell_time=True)

    def _check_size(self, frame: Frame) -> None:
        limit = self._connection.limits.subscribe_bytes
        if len(frame.packet) > limit:
            raise PacketTooLarge(len(frame.packet), limit)

    def _code(self, topic_filter: str, qos: int) -> int | None:
        """Grant or refuse a filter; None: it is amqtt's."""
        connection = self._connection
        topics = connection.front.topics
        if not is_filter(topic_filter):
            return SUBSCRIPTION_REFUSED
        if not topics.owns(topic_filter):
            if topic_filter.startswith("$share/") or topics.reaches_into(topic_filter):
                return SUBSCRIPTION_REFUSED  # amqtt would grant it and stay silent
            if not self._may_hear(topic_filter):
                self._refuse(topic_filter)
                return SUBSCRIPTION_REFUSED
            if not connection.amqtt().may_subscribe(topic_filter, connection.limits.other_subscriptions):
                connection.offended("subscriptions", "has too many subscriptions: refused")
                return SUBSCRIPTION_REFUSED
            return None
        granted = self._observe(topic_filter) if self._observes else self._grant(topic_filter, qos)
        if granted is None:
            self._refuse(topic_filter)
            return SUBSCRIPTION_REFUSED
        return granted

    def _grant(self, topic_filter: str, qos: int) -> int | None:
        """Let a thing have its own commands, and nothing else of the namespace."""
        mine, limit = self._connection.subscriptions, self._connection.limits.subscriptions
        if self._thing is None or (topic_filter not in mine and len(mine) >= limit):
            return None
        return mine.grant(topic_filter, qos, topics=self._connection.front.topics, thing=self._thing)

    def _observe(self, topic_filter: str) -> int | None:
        """Let an observer see what a filter matches, at QoS 0: nothing waits for it."""
        connection = self._connection
        mine, limit = connection.subscriptions, connection.limits.observed
        if not connection.front.observers.has_room(connection):
            connection.offended("observers", "too many watch already: refused")
            return SUBSCRIPTION_REFUSED
        if topic_filter not in mine and len(mine) >= limit:
            return None
        return mine.observe(topic_filter)

    def _may_hear(self, topic_filter: str) -> bool:
        """Whether the client may have an ordinary filter. What the broker tells of itself is no thing's."""
        if self._acl is not None:
            return self._acl.may_subscribe(topic_filter)
        return self._thing is None or not topic_filter.startswith("$")

    def _refuse(self, topic_filter: str) -> None:
        connection = self._connection
        connection.front.service.dropped(
            self._thing or connection.client_id,
            "forbiddenFilter",
            f"not for this client: {topic_filter[:200]!a}",
        )

    def _serve(self, *, tell_time: bool) -> None:
        """Take the thing's requests from now on, or no longer, or watch, as the subscriptions are."""
        connection = self._connection
        front, thing = connection.front, self._thing
        if self._observes:
            front.observers.watch(connection, connection.subscriptions.filters)
            return
        connection.subscriptions.sum_up()
        qos = connection.subscriptions.qos
        if connection.is_closed() or Kind.REQUEST not in qos or thing is None:
            front.released(connection)
            return
        if tell_time:
            connection.tell_time(anew=True)
        front.serves(connection)
