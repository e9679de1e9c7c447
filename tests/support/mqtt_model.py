"""What MQTT 3.1.1 and 5 deliver, in plain dicts and lists, without bounds, bytes or sockets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count, product
from typing import NamedTuple

NEVER = 0xFFFF_FFFF


class Options(NamedTuple):
    """What a client asks for with a filter."""

    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    subscription_id: int = 0


class Published(NamedTuple):
    """A message. ``expires_at``: None: never."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    publisher: str
    expires_at: float | None = None


class LastWill(NamedTuple):
    """A will. ``delay``: seconds after the connection's end."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay: int


class Copy(NamedTuple):
    """A message as one client gets it."""

    client_id: str
    qos: int
    retain: bool
    ids: tuple[int, ...]


@dataclass(eq=False)
class Exchange:
    """A QoS 1 or 2 message on its way to a client. ``packet_id``: 0 until the client has seen one."""

    message: Published
    copy: Copy
    order: int
    packet_id: int = 0
    is_sent: bool = False
    is_released: bool = False


class Packet(NamedTuple):
    """What a client gets next. ``kind``: the QoS of a PUBLISH, or "PUBREL"."""

    kind: int | str
    exchange: Exchange | None
    message: Published
    retain: bool = False
    dup: bool = False
    ids: tuple[int, ...] = ()


@dataclass(eq=False)
class ModelSession:
    """A session."""

    client_id: str
    version: int = 4
    expiry: int = 0
    window: int = 20
    is_connected: bool = False
    ends_at: float | None = None
    will: LastWill | None = None
    will_at: float | None = None
    subscriptions: dict[str, Options] = field(default_factory=dict)
    queue: list[Exchange] = field(default_factory=list)
    in_flight: list[Exchange] = field(default_factory=list)
    to_repeat: list[Exchange] = field(default_factory=list)
    received: set[int] = field(default_factory=set)
    packets: list[Packet] = field(default_factory=list)


def fits(topic_filter: str, topic: str) -> bool:
    """Whether a filter without a share matches a topic."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    return _fit(topic_filter.split("/"), topic.split("/"))


def _fit(wanted: list[str], levels: list[str]) -> bool:
    if wanted == ["#"]:
        return True
    if not wanted or not levels:
        return not wanted and not levels
    return wanted[0] in {"+", levels[0]} and _fit(wanted[1:], levels[1:])


def plain(topic_filter: str) -> str:
    """A filter without its share."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


class Model:
    """All sessions, subscriptions and retained messages.

    ``copies`` of a call: the copies that the engine made, in its order. Where the standard leaves a choice
    (the member of a share, the order of retained messages), the model follows them.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, ModelSession] = {}
        self.retained: dict[str, Published] = {}
        self._order = count()

    # Connections.

    def connect(
        self, client_id, *, version, clean, expiry, window, will, now
    ) -> tuple[bool, list[Published]]:
        """Connect; return whether the session was there, and the wills to publish before."""
        session, wills = self.sessions.get(client_id), []
        if session is not None and clean:
            wills = self._end(session)
            session = None
        is_present = session is not None
        session = self.sessions.setdefault(client_id, ModelSession(client_id))
        session.version, session.expiry, session.window, session.will = version, expiry, window, will
        session.is_connected, session.ends_at, session.will_at = True, None, None
        session.to_repeat = list(session.in_flight)
        return is_present, [self._will(client_id, will, now) for will in wills]

    def disconnect(self, client_id, *, publishes_will, now) -> list[Published]:
        """End a connection; return the will to publish, if any."""
        session, wills = self.sessions[client_id], []
        session.is_connected = False
        session.to_repeat, session.packets = [], []
        if not publishes_will:
            session.will = None
        if session.will and session.will.delay and session.expiry:
            session.will_at = now + session.will.delay
        elif session.will:
            wills, session.will = [session.will], None
        if not session.expiry:
            self._end(session)
        elif session.expiry != NEVER:
            session.ends_at = now + session.expiry
        return [self._will(client_id, will, now) for will in wills]

    def tick(self, now) -> list[Published]:
        """End what is over; return the wills to publish."""
        wills = []
        due = [(s.will_at, 0, s) for s in self.sessions.values() if s.will_at is not None]
        due += [(s.ends_at, 1, s) for s in self.sessions.values() if s.ends_at is not None]
        for at, is_end, session in sorted(due, key=lambda entry: entry[:2]):
            if at <= now:
                found = self._end(session) if is_end else [session.will]
                session.will, session.will_at = None, None
                wills += [self._will(session.client_id, will, now) for will in found if will]
        return wills

    def restart(self, now) -> None:
        """Begin again with what is kept; what was sent at QoS 1 is sent as if for the first time."""
        for session in list(self.sessions.values()):
            session.will = session.will_at = None
            if session.is_connected:
                self.disconnect(session.client_id, publishes_will=False, now=now)
            again = [e for e in session.in_flight if e.copy.qos == 1]
            for exchange in again:
                exchange.is_sent, exchange.packet_id = False, 0
            session.queue = sorted(again + session.queue, key=lambda e: e.order)
            session.in_flight = sorted(set(session.in_flight) - set(again), key=lambda e: e.order)

    def _end(self, session: ModelSession) -> list[LastWill]:
        del self.sessions[session.client_id]
        return [session.will] if session.will else []

    @staticmethod
    def _will(client_id, will, now) -> Published:
        del now  # the wills of the test never expire
        return Published(will.topic, will.payload, will.qos, will.retain, client_id)

    # Subscriptions.

    def subscribe(self, client_id, topic_filter, options, now) -> list[tuple[Published, Copy]]:
        """Subscribe; return the retained messages that the client gets."""
        session = self.sessions[client_id]
        is_new = topic_filter not in session.subscriptions
        session.subscriptions[topic_filter] = options
        handling = options.retain_handling
        if topic_filter.startswith("$share/") or handling == 2 or (handling == 1 and not is_new):
            return []
        ids = (options.subscription_id,) if options.subscription_id else ()
        return [
            (message, Copy(client_id, min(message.qos, options.qos), True, ids))
            for topic, message in self.retained.items()
            if fits(topic_filter, topic) and not _is_over(message, now)
        ]

    def unsubscribe(self, client_id, topic_filter) -> bool:
        """Unsubscribe; return whether there was a subscription."""
        return self.sessions[client_id].subscriptions.pop(topic_filter, None) is not None

    # Messages.

    def retain(self, message: Published) -> None:
        """Keep a message that says so."""
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)

    def kept(self, now) -> dict[str, bytes]:
        """The payloads of what is retained, by topic."""
        return {t: m.payload for t, m in self.retained.items() if not _is_over(m, now)}

    def choices(self, message: Published) -> list[Counter[Copy]]:
        """The copies that a message may be delivered as: one of these."""
        ordinary, shares = [], {}
        for session in self.sessions.values():
            found = []
            for topic_filter, options in session.subscriptions.items():
                if not fits(plain(topic_filter), message.topic):
                    continue
                if topic_filter.startswith("$share/"):
                    copy = _copy(session, [options], message)
                    shares.setdefault(topic_filter, []).append((session, copy))
                elif not (options.no_local and message.publisher == session.client_id):
                    found.append(options)
            if found:
                ordinary.append(_copy(session, found, message))
        members = [[c for s, c in each if s.is_connected] or [c for _, c in each] for each in shares.values()]
        return [Counter([*ordinary, *picked]) for picked in product(*members)]

    def deliver(self, message: Published, copy: Copy, now) -> None:
        """A copy goes to its client, or waits for it."""
        session = self.sessions[copy.client_id]
        if copy.qos:
            session.queue.append(Exchange(message, copy, next(self._order)))
            self.go_on(session, now)
        elif session.is_connected:
            session.packets.append(Packet(0, None, message, copy.retain, ids=copy.ids))

    def go_on(self, session: ModelSession, now) -> None:
        """Send again, and then what waits, as far as the client takes more."""
        while self._may_send(session) and session.to_repeat:
            self._send(session, session.to_repeat.pop(0))
        while self._may_send(session) and session.queue:
            exchange = session.queue.pop(0)
            if not _is_over(exchange.message, now):
                session.in_flight.append(exchange)
                self._send(session, exchange)

    @staticmethod
    def _may_send(session: ModelSession) -> bool:
        sent = len(session.in_flight) - len(session.to_repeat)
        return session.is_connected and sent < session.window

    @staticmethod
    def _send(session: ModelSession, exchange: Exchange) -> None:
        copy, message = exchange.copy, exchange.message
        if exchange.is_released:
            session.packets.append(Packet("PUBREL", exchange, message))
        else:
            packet = Packet(copy.qos, exchange, message, copy.retain, exchange.is_sent, copy.ids)
            session.packets.append(packet)
        exchange.is_sent = True

    # Answers of clients.

    def waiting_for(self, client_id) -> list[Exchange]:
        """What the client has got on this connection and not completed."""
        session = self.sessions[client_id]
        return [e for e in session.in_flight if e not in session.to_repeat]

    def complete(self, client_id, exchange, now) -> None:
        """PUBACK, PUBCOMP, or a PUBREC that refuses."""
        session = self.sessions[client_id]
        session.in_flight.remove(exchange)
        self.go_on(session, now)

    def take(self, client_id, exchange) -> None:
        """PUBREC: the client has the message."""
        exchange.is_released = True
        packet = Packet("PUBREL", exchange, exchange.message)
        self.sessions[client_id].packets.append(packet)


def _copy(session: ModelSession, found: list[Options], message: Published) -> Copy:
    return Copy(
        session.client_id,
        min(message.qos, max(o.qos for o in found)),
        message.retain and any(o.retain_as_published for o in found),
        tuple(sorted(o.subscription_id for o in found if o.subscription_id)),
    )


def _is_over(message: Published, now) -> bool:
    return message.expires_at is not None and message.expires_at <= now
