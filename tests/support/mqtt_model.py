"""What MQTT 3.1.1 and 5 say that a broker delivers, in plain dicts and lists: no bounds, no windows, no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
from thingctl_broker.mqtt.protocol.packets import Will
from thingctl_protocol.topics import matches


@dataclass
class Item:
    """A message, as one client is to get it. ``state``: "waits", "sent" or "released"."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    ids: tuple[int, ...] = ()
    expires_at: float | None = None
    state: str = "waits"
    dup: bool | None = False
    """None: it cannot be known."""
    packet_id: int = 0

    def packet(self) -> tuple[object, ...]:
        """What goes to the client for it."""
        if self.state == "released":
            return ("PUBREL",)
        return (self.topic, self.payload, self.qos, self.retain, self.ids, self.dup)


@dataclass
class ModelSession:
    """A client's session."""

    version: int
    expiry: float
    connected: bool = True
    subscriptions: dict[str, SubscriptionOptions] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    will: Will | None = None
    will_due: float | None = None
    away_since: float = 0.0
    wrote: list[tuple[object, ...]] = field(default_factory=list)
    """What the broker has written to the client since it was last looked at."""


class MqttModel:
    """The broker. Times are in seconds."""

    def __init__(self) -> None:
        self.sessions: dict[str, ModelSession] = {}
        self.retained: dict[str, Item] = {}

    def connect(
        self, client: str, now: float, *, version: int, expiry: float, clean: bool, will: Will | None
    ) -> bool:
        """Connect; return whether there was a session."""
        old = self.sessions.get(client)
        if old is not None and old.connected:
            self.lose(client, now)
            old = self.sessions.get(client)
        if old is not None and clean:
            self._end(client, now)
            old = None
        session = self.sessions[client] = old or ModelSession(version, expiry)
        session.version, session.expiry, session.connected = version, expiry, True
        session.will, session.will_due = will, None
        session.wrote = []
        for item in list(session.items):
            if item.state == "waits" and item.expires_at is not None and item.expires_at <= now:
                session.items.remove(item)
        for item in session.items:
            if item.state == "sent":
                item.dup = True if item.dup is not None else None
            session.wrote.append(item.packet())
            if item.state == "waits":
                item.state = "sent"
        return old is not None

    def lose(self, client: str, now: float, *, politely: bool = False) -> None:
        """The connection ends; ``politely``: by a DISCONNECT."""
        session = self.sessions[client]
        session.connected, session.away_since, session.wrote = False, now, []
        will = session.will
        if politely:
            session.will = None
        elif will is not None and will.delay and session.expiry:
            session.will_due = now + will.delay
        elif will is not None:
            session.will = None
            self._publish_will(client, will, now)
        if not session.expiry:
            self._end(client, now)

    def _end(self, client: str, now: float) -> None:
        session = self.sessions.pop(client)
        if session.will is not None:
            self._publish_will(client, session.will, now)

    def _publish_will(self, client: str, will: Will, now: float) -> None:
        self.publish(client, will.topic, will.payload, will.qos, now, retain=will.retain)

    def tick(self, now: float) -> None:
        """Time has passed. What is due is done in the order of its times."""
        while True:
            due: list[tuple[float, str, str]] = []
            for client, session in self.sessions.items():
                if session.connected:
                    continue
                if session.will_due is not None and session.will is not None:
                    due.append((session.will_due, client, "will"))
                due.append((session.away_since + session.expiry, client, "end"))
            due = [entry for entry in due if entry[0] <= now]
            if not due:
                break
            _, client, what = min(due)
            if what == "end":
                self._end(client, now)
            else:
                session = self.sessions[client]
                will, session.will, session.will_due = session.will, None, None
                assert will is not None
                self._publish_will(client, will, now)
        for topic in [
            t for t, i in self.retained.items() if i.expires_at is not None and i.expires_at <= now
        ]:
            del self.retained[topic]

    def subscribe(self, client: str, topic_filter: str, options: SubscriptionOptions, now: float) -> None:
        """Subscribe, and get what is retained."""
        session = self.sessions[client]
        is_new = topic_filter not in session.subscriptions
        session.subscriptions[topic_filter] = options
        if options.retain_handling == 2 or (options.retain_handling == 1 and not is_new):
            return
        ids = (options.subscription_id,) if options.subscription_id and session.version == 5 else ()
        for item in self.retained.values():
            if _matches(topic_filter, item.topic) and (item.expires_at is None or item.expires_at > now):
                qos = min(item.qos, options.qos)
                self._give(session, Item(item.topic, item.payload, qos, True, ids, item.expires_at))

    def unsubscribe(self, client: str, topic_filter: str) -> None:
        """Unsubscribe."""
        self.sessions[client].subscriptions.pop(topic_filter, None)

    def publish(
        self,
        publisher: str,
        topic: str,
        payload: bytes,
        qos: int,
        now: float,
        *,
        retain: bool = False,
        expires_at: float | None = None,
    ) -> None:
        """A message comes."""
        if retain and payload:
            self.retained[topic] = Item(topic, payload, qos, True, (), expires_at)
        elif retain:
            self.retained.pop(topic, None)
        for client, session in self.sessions.items():
            found = [
                o
                for f, o in session.subscriptions.items()
                if _matches(f, topic) and not (o.no_local and client == publisher)
            ]
            if not found:
                continue
            ids = tuple(sorted(o.subscription_id for o in found if o.subscription_id))
            kept = retain and any(o.retain_as_published for o in found)
            item = Item(
                topic,
                payload,
                min(qos, max(o.qos for o in found)),
                kept,
                ids if session.version == 5 else (),
                expires_at,
            )
            self._give(session, item)

    def _give(self, session: ModelSession, item: Item) -> None:
        if session.connected:
            session.wrote.append(item.packet())
            item.state = "sent"
        if item.qos and (session.connected or session.expiry):
            session.items.append(item)

    def acknowledge(self, client: str, item: Item) -> None:
        """PUBACK, PUBREC or PUBCOMP, whichever the message needs next."""
        session = self.sessions[client]
        if item.qos == 1 or item.state == "released":
            session.items.remove(item)
        else:
            item.state = "released"
            session.wrote.append(item.packet())

    def restart(self, now: float) -> None:
        """The broker was killed, and has begun again."""
        for client in list(self.sessions):
            session = self.sessions[client]
            if not session.expiry:
                del self.sessions[client]
                continue
            if session.connected:
                session.away_since = now
            session.connected, session.will, session.will_due, session.wrote = False, None, None, []
            for item in session.items:
                if item.state == "sent" and item.qos == 1:
                    item.state, item.dup = "waits", None
                elif item.state == "sent":
                    item.dup = None


def _matches(topic_filter: str, topic: str) -> bool:
    return matches(topic_filter.split("/"), topic.split("/"))
