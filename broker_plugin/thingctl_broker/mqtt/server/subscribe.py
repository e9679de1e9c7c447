"""What a client subscribes to: to its commands, to what all things say, and to ordinary topics."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions, is_share, split_share
from thingctl_broker.mqtt.protocol.frames import MalformedPacket, PacketTooLarge
from thingctl_broker.mqtt.protocol.reason_codes import Reason
from thingctl_broker.security.topic_acl import UndecidedRights
from thingctl_protocol.topics import Kind, is_filter

if TYPE_CHECKING:
    from thingctl_broker.mqtt.auth.authenticator import Identity
    from thingctl_broker.mqtt.engine.session import Session
    from thingctl_broker.mqtt.protocol.frames import Frame
    from thingctl_broker.mqtt.protocol.packets import SubscriptionRequest
    from thingctl_broker.mqtt.server.client import ServerConnection

_LEVELS_MAX: Final = 200
"""Levels of a filter, as in mosquitto: each takes 240 bytes where the filter has wildcards."""

_ANSWER_BYTES: Final = 6
"""Bytes of a SUBACK or UNSUBACK of MQTT 5 at most, besides one for each filter."""


class Subscriber:
    """The subscriptions of one connection, whose client has been let in."""

    __slots__ = ("_acl", "_connection", "_observes", "_server", "_session", "_thing")

    def __init__(self, connection: ServerConnection, session: Session, admission: Identity) -> None:
        self._connection = connection
        self._server = connection.server
        self._session = session
        self._acl = admission.acl
        self._thing = admission.thing
        self._observes = admission.observes

    def subscribe(self, frame: Frame) -> None:
        """Take a SUBSCRIBE [section 3.8]."""
        connection, session, engine = self._connection, self._session, self._server.engine
        self._check_size(frame)
        packet = connection.codec.parse_subscribe(frame, connection.limits.filters)
        self._check_answer(len(packet.filters))
        self._look_rights_up(packet.filters)
        is_time_known = {Kind.TIME, Kind.REQUEST} <= connection.subscriptions.qos.keys()
        codes: list[int] = []
        ordinary: list[tuple[str, SubscriptionOptions, bool]] = []
        for wanted in packet.filters:
            code = self._code(wanted)
            if code is None:
                options = SubscriptionOptions(*wanted[1:], packet.subscription_id)
                is_new = engine.subscribe(session, wanted.topic_filter, options)
                ordinary.append((wanted.topic_filter, options, is_new))
                code = wanted.qos
            codes.append(code)
        suback = connection.codec.encode_suback(packet.packet_id, codes)
        are_commands = len(ordinary) < len(packet.filters)
        granted = partial(self._granted, suback, ordinary, flush=are_commands)
        engine.subscriptions_changed(session, granted)
        if are_commands:
            self._serve(tell_time=not is_time_known)

    def _granted(
        self, suback: bytes, ordinary: list[tuple[str, SubscriptionOptions, bool]], *, flush: bool
    ) -> None:
        """The subscriptions are kept: say so, and send what is retained for them.

        ``flush``: before anything else is written, as requests are.
        """
        connection, session, now = self._connection, self._session, self._server.time()
        if connection.is_closed():
            return
        connection.send(suback)
        for topic_filter, options, is_new in ordinary:
            self._server.engine.send_retained(session, topic_filter, options, now, is_new=is_new)
            for host in self._server.events:
                host.subscribed(session.client_id, topic_filter, options.qos)
        if flush:
            connection.flush()

    def unsubscribe(self, frame: Frame) -> None:
        """Take an UNSUBSCRIBE [section 3.10]."""
        connection = self._connection
        self._check_size(frame)
        packet = connection.codec.parse_unsubscribe(frame, connection.limits.filters)
        self._check_answer(len(packet.filters))
        codes: list[int] = [self._leave(topic_filter) for topic_filter in packet.filters]
        unsuback = connection.codec.encode_unsuback(packet.packet_id, codes)
        self._server.engine.subscriptions_changed(self._session, lambda: connection.send(unsuback))
        self._serve(tell_time=False)

    def resume(self) -> None:
        """Go on with the subscriptions that were kept, without those that the client may no longer have."""
        forbidden = [f for f in self._session.subscriptions if not self._may_keep(split_share(f)[1])]
        for topic_filter in forbidden:
            self._server.engine.unsubscribe(self._session, topic_filter)
            self._refuse(topic_filter)
        if len(self._connection.subscriptions):
            self._serve(tell_time=True)

    def _leave(self, topic_filter: str) -> Reason:
        if self._connection.subscriptions.remove(topic_filter):
            return Reason.SUCCESS
        if not self._server.engine.unsubscribe(self._session, topic_filter):
            return Reason.NO_SUBSCRIPTION_EXISTED
        for host in self._server.events:
            host.unsubscribed(self._session.client_id, topic_filter)
        return Reason.SUCCESS

    def _check_size(self, frame: Frame) -> None:
        limit = self._connection.limits.subscribe_bytes
        if len(frame.packet) > limit:
            raise PacketTooLarge(len(frame.packet), limit)

    def _check_answer(self, filters: int) -> None:
        """Refuse a packet whose answer is longer than the client takes: nothing of it has happened."""
        most = self._connection.packet_bytes
        if most is not None and filters + _ANSWER_BYTES > most:
            text = f"the answer for {filters} filters is longer than the Maximum Packet Size"
            raise MalformedPacket("MQTT5-3.1.2-24", text, Reason.PACKET_TOO_LARGE)

    def _code(self, wanted: SubscriptionRequest) -> int | None:
        """Grant or refuse a filter; None: it is an ordinary one, and granted."""
        topic_filter, topics = wanted.topic_filter, self._server.topics
        _, plain = split_share(topic_filter)
        if not is_filter(plain) or not _is_share_well_formed(topic_filter):
            return Reason.TOPIC_FILTER_INVALID
        if not topics.owns(plain):
            return self._ordinary_code(topic_filter, plain)
        if is_share(topic_filter):
            granted = None  # requests go to one device, and who watches sees everything
        else:
            granted = self._observe(topic_filter) if self._observes else self._grant(topic_filter, wanted.qos)
        if granted is None:
            self._refuse(topic_filter)
            return Reason.NOT_AUTHORIZED
        return granted

    def _ordinary_code(self, topic_filter: str, plain: str) -> int | None:
        connection = self._connection
        if self._server.topics.reaches_into(plain):
            return Reason.NOT_AUTHORIZED  # it would be granted and stay silent
        if not self._may_hear(plain):
            self._refuse(topic_filter)
            return Reason.NOT_AUTHORIZED
        if plain.count("/") >= _LEVELS_MAX:
            connection.offended("subscriptions", "subscribes to a filter of too many levels: refused")
            return Reason.QUOTA_EXCEEDED
        mine = self._session.subscriptions
        if topic_filter not in mine and len(mine) >= connection.limits.other_subscriptions:
            connection.offended("subscriptions", "has too many subscriptions: refused")
            return Reason.QUOTA_EXCEEDED
        return None

    def _grant(self, topic_filter: str, qos: int) -> int | None:
        """Let a thing have its own commands, and nothing else of the namespace."""
        mine, limit = self._connection.subscriptions, self._connection.limits.subscriptions
        if self._thing is None or (topic_filter not in mine and len(mine) >= limit):
            return None
        return mine.grant(topic_filter, qos, topics=self._server.topics, thing=self._thing)

    def _observe(self, topic_filter: str) -> int | None:
        """Let an observer see what a filter matches, at QoS 0: nothing waits for it."""
        connection = self._connection
        mine, limit = connection.subscriptions, connection.limits.observed
        if not self._server.observers.has_room(connection):
            connection.offended("observers", "too many watch already: refused")
            return Reason.QUOTA_EXCEEDED
        if topic_filter not in mine and len(mine) >= limit:
            return None
        return mine.observe(topic_filter)

    def _look_rights_up(self, wanted: list[SubscriptionRequest]) -> None:
        """Have rights that take time decided before anything is granted: the packet is taken again then."""
        if self._acl is not None:
            for topic_filter in (request.topic_filter for request in wanted):
                _, plain = split_share(topic_filter)
                if is_filter(plain) and not self._server.topics.owns(plain):
                    self._acl.may_subscribe(plain)

    def _may_hear(self, topic_filter: str) -> bool:
        """Whether the client may have an ordinary filter. What the broker tells of itself is no thing's."""
        if self._acl is not None:
            return self._acl.may_subscribe(topic_filter)
        return self._thing is None or not topic_filter.startswith("$")

    def _may_keep(self, topic_filter: str) -> bool:
        """Whether the client may still have a filter. Where that takes time, what it was granted stands."""
        try:
            return self._may_hear(topic_filter)
        except UndecidedRights as undecided:
            undecided.lookup.close()
            return True

    def _refuse(self, topic_filter: str) -> None:
        self._server.service.dropped(
            self._thing or self._connection.client_id,
            "forbiddenFilter",
            f"not for this client: {topic_filter[:200]!a}",
        )

    def _serve(self, *, tell_time: bool) -> None:
        """Take the thing's requests from now on, or no longer, or watch, as the subscriptions are."""
        connection, server, thing = self._connection, self._server, self._thing
        if self._observes:
            server.observers.watch(connection, connection.subscriptions.filters)
            return
        connection.subscriptions.sum_up()
        qos = connection.subscriptions.qos
        if connection.is_closed() or Kind.REQUEST not in qos or thing is None:
            server.released(connection)
            return
        if tell_time:
            connection.tell_time(anew=True)
        server.serves(connection)


def _is_share_well_formed(topic_filter: str) -> bool:
    """Whether a shared subscription names its group [MQTT5-4.8.2-1, -2]."""
    group, plain = split_share(topic_filter)
    return not is_share(topic_filter) or bool(group and plain and "+" not in group and "#" not in group)
