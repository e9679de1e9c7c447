"""The MQTT engine: sessions, subscriptions, retained messages, wills, and who gets which message. Pure.

Everything is synchronous and takes the time as an argument, in monotonic seconds. The engine knows no
socket: packets gather in the sessions, and ``totals.dirty`` lists the sessions that have some. Who
may do what was decided before (``mqtt.server``), and command topics never come here.
"""

from __future__ import annotations

from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from thingctl_broker.mqtt.engine.message import Message, last_will
from thingctl_broker.mqtt.engine.recorder import StoreRecorder
from thingctl_broker.mqtt.engine.retained_messages import RetainedMessages
from thingctl_broker.mqtt.engine.session import Session
from thingctl_broker.mqtt.engine.sessions import Sessions
from thingctl_broker.mqtt.engine.store import NullRecords
from thingctl_broker.mqtt.engine.subscription_tree import SharedMatch, SubscriptionTree, is_share
from thingctl_broker.mqtt.engine.totals import Totals
from thingctl_broker.mqtt.protocol.packets import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from thingctl_broker.mqtt.engine.encoder import Encoder
    from thingctl_broker.mqtt.engine.store import RecordStore
    from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
    from thingctl_broker.mqtt.engine.totals import EngineLimits, Outlet, WaitingSession
    from thingctl_broker.mqtt.protocol.packets import Will

ALWAYS: Final = 0
ONLY_NEW: Final = 1
"""Retain Handling: with every SUBSCRIBE, or with a new subscription [MQTT5-3.3.1-9, MQTT5-3.3.1-10]."""


_TURNS: Final = 10_000
"""Shared subscriptions of which is known whose turn it was; when there are more, all begin again."""

_SPARE_TIMERS: Final = 1000
"""Void timers that may lie about, besides as many as there are sessions."""


class _Timer(NamedTuple):
    """Something to do to a session that is away. ``token``: the session's when this was planned."""

    due: float
    order: int
    session: Session
    token: int
    is_will: bool
    """To publish its will; otherwise the session expires."""


class Engine:
    """All of ordinary MQTT, but for the sockets and the rights."""

    def __init__(self, limits: EngineLimits, store: RecordStore | None = None, wall: float = 0.0) -> None:
        """``store``: None for none. ``wall``: Unix seconds at monotonic 0."""
        self.totals = Totals(limits)
        self.tree: SubscriptionTree[Session] = SubscriptionTree()
        self.retained = RetainedMessages(limits.retained, limits.retained_bytes)
        self.sessions = Sessions(limits.kept_sessions, limits.kept_sessions_per_thing)
        self.recorder = StoreRecorder(NullRecords() if store is None else store, wall)
        self.is_recording = store is not None
        self.will_published: Callable[[Message], None] = _ignore
        """Called with each will that is published."""
        self._timers: list[_Timer] = []
        self._order = count()
        self._turns: dict[str, int] = {}

    # Connections.

    def connect(
        self,
        client_id: str,
        *,
        owner: str | None,
        thing: str | None,
        clean: bool,
        expiry: int,
        will: Will | None,
        encoder: Encoder,
        window: int,
        outlet: Outlet | None = None,
        others: Sized | None = None,
        now: float,
    ) -> tuple[Session, bool]:
        """A client has connected; return its session, and whether it was there already.

        ``expiry``: seconds that the session outlives this connection. An earlier connection of the
        client has been ended before. The caller writes the CONNACK and then calls ``Session.resume``.
        """
        session = self.sessions.get(client_id)
        if session is not None and (clean or session.owner != owner):
            self.end(session, now)
            session = None
        is_present = session is not None
        if session is None:
            session = self.new_session(client_id, owner=owner, thing=thing)
        else:
            self.sessions.come_back(session)
        session.attach(encoder, window, outlet, others)
        session.expiry = expiry
        session.will = will
        self._record(session)
        return session, is_present

    def disconnect(
        self, session: Session, now: float, *, publishes_will: bool, expiry: int | None = None
    ) -> Session | None:
        """A connection has ended; return the session that had to end for this one to stay, if any.

        ``expiry``: what the client changed it to with its DISCONNECT.
        """
        if expiry is not None:
            session.expiry = expiry
        session.leave(now)
        if session.will is not None:
            if not publishes_will:
                session.will = None
            elif session.will.delay and session.expiry:
                self._plan(now + session.will.delay, session, is_will=True)
            elif session.expiry:  # otherwise it is published at the session's end
                self._publish_will(session, now)
        if not session.expiry:
            self.end(session, now)
            return None
        self._record(session)
        return self.go_away(session, now)

    def new_session(self, client_id: str, *, owner: str | None, thing: str | None) -> Session:
        """Begin a session."""
        session = Session(client_id, self.totals, self.recorder, owner=owner, thing=thing)
        self.sessions.add(session)
        self.totals.share_among(len(self.sessions))
        return session

    def go_away(self, session: Session, now: float) -> Session | None:
        """A session has no connection from now on, but stays; return the one that had to end for it."""
        if session.expiry != NEVER:
            self._plan(max(now, session.away_since + session.expiry), session, is_will=False)
        oldest = self.sessions.leave(session)
        if oldest is not None:
            self.totals.counters["sessions.displaced"] += 1
            self.end(oldest, now)
        return oldest

    def end(self, session: Session, now: float) -> None:
        """End a session: no client is connected with it any more."""
        for topic_filter in session.subscriptions:
            self.tree.remove(topic_filter, session)
        session.subscriptions.clear()
        session.end()
        if session.is_recorded:
            self.recorder.ended(session)
        self.sessions.remove(session)
        self.totals.share_among(len(self.sessions))
        session.token += 1
        self._publish_will(session, now)  # of which the session's end is the latest time [MQTT5-3.1.2-8]

    def tick(self, now: float) -> None:
        """Do what is due: wills that were delayed, sessions and retained messages that have expired."""
        while self._timers and self._timers[0].due <= now:
            timer = heappop(self._timers)
            if timer.token != timer.session.token:
                continue
            if timer.is_will:
                self._publish_will(timer.session, now)
            else:
                self.totals.counters["sessions.expired"] += 1
                self.end(timer.session, now)
        for topic in self.retained.expire(now):
            self.recorder.cleared(topic)

    def take_dirty(self) -> list[WaitingSession]:
        """The sessions with packets to write that have not been returned before."""
        dirty, self.totals.dirty = self.totals.dirty, []
        for session in dirty:
            session.is_dirty = False
        return dirty

    def take_slow(self) -> list[WaitingSession]:
        """The connected sessions for which more than half of what may wait has come to wait."""
        slow, self.totals.slow = self.totals.slow, []
        return slow

    def figures(self) -> dict[str, float]:
        """Counts of sessions, subscriptions and messages, by the names in ``sys_topics``."""
        totals, counters = self.totals, self.totals.counters
        return {
            "clients_disconnected": self.sessions.away,
            "clients_expired": counters["sessions.expired"],
            "publish_dropped": sum(n for name, n in counters.items() if name.startswith("dropped.")),
            "publish_received": totals.received,
            "publish_sent": totals.sent,
            "retained": len(self.retained),
            "stored": len(self.retained),
            "stored_bytes": totals.waiting_bytes + self.retained.bytes,
            "subscriptions": len(self.tree),
        }

    def _plan(self, due: float, session: Session, *, is_will: bool) -> None:
        if len(self._timers) > 2 * len(self.sessions) + _SPARE_TIMERS:
            self._timers = [timer for timer in self._timers if timer.token == timer.session.token]
            heapify(self._timers)
        heappush(self._timers, _Timer(due, next(self._order), session, session.token, is_will))

    def _publish_will(self, session: Session, now: float) -> None:
        will, session.will = session.will, None
        if will is not None:
            message = last_will(will, session.client_id, now)
            self.publish(message, now)
            self.will_published(message)

    def _record(self, session: Session) -> None:
        if self.is_recording and (session.expiry or session.is_recorded):
            session.is_recorded = True
            self.recorder.session(session)

    # Subscriptions.

    def subscribe(self, session: Session, topic_filter: str, options: SubscriptionOptions) -> bool:
        """Add a subscription or replace it; return whether it is new."""
        session.subscriptions[topic_filter] = options
        return self.tree.add(topic_filter, session, options) is None

    def send_retained(
        self, session: Session, topic_filter: str, options: SubscriptionOptions, now: float, *, is_new: bool
    ) -> None:
        """Send what is retained for a subscription, after its SUBACK. For shared ones: nothing."""
        handling = options.retain_handling
        if is_share(topic_filter) or not (handling == ALWAYS or (handling == ONLY_NEW and is_new)):
            return
        ids = options.subscription_ids
        for message in self.retained.match(topic_filter, now):
            if options.no_local and message.publisher == session.client_id:
                continue  # [MQTT5-3.8.3-3]
            session.deliver(message, min(message.qos, options.qos), now, retain=True, ids=ids)

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Take a subscription back; return whether it was there."""
        if session.subscriptions.pop(topic_filter, None) is None:
            return False
        self.tree.remove(topic_filter, session)
        return True

    def subscriptions_changed(self, session: Session, acknowledge: Callable[[], None]) -> None:
        """A packet's worth of subscriptions has changed: call ``acknowledge`` when that is kept."""
        if session.is_recorded:
            self.recorder.session(session)
            self.recorder.then(acknowledge)
        else:
            acknowledge()

    # Messages.

    def receive(self, message: Message, acknowledge: Callable[[int], None], now: float) -> None:
        """Publish a QoS 1 message of a client.

        ``acknowledge`` is called with the number of sessions to which the message went, when everything
        that must survive is kept: most of the time right away, for nothing must.
        """
        changes = self.recorder.changes
        receivers = self.publish(message, now)
        if self.recorder.changes == changes:
            acknowledge(receivers)
        else:
            self.recorder.then(partial(acknowledge, receivers))

    def begin_exactly_once(self, session: Session, packet_id: int) -> bool:
        """A QoS 2 message has come from a client; False: it has come before [MQTT-4.3.3-2]."""
        if packet_id in session.received:
            return False
        session.received[packet_id] = None
        if session.is_recorded:
            self.recorder.received(session.number, packet_id)
        return True

    def complete_exactly_once(
        self, session: Session, packet_id: int, acknowledge: Callable[[], None]
    ) -> bool:
        """The client has released a QoS 2 message; return whether it was known.

        ``acknowledge`` is called when that is kept: the identifier means another message from then on.
        """
        if packet_id not in session.received:
            acknowledge()
            return False
        del session.received[packet_id]
        if session.is_recorded:
            self.recorder.released(session.number, packet_id)
            self.recorder.then(acknowledge)
        else:
            acknowledge()
        return True

    def publish(self, message: Message, now: float) -> int:
        """Give a message to all whose subscription matches; return how many that are."""
        self.totals.received += 1
        if message.retain:
            self.retain(message)
        receivers = 0
        matches = self.tree.match(message.topic)
        message.has_record = len(matches) > 1
        for match in matches:
            if isinstance(match, SharedMatch):
                receivers += self._deliver_shared(match, message, now)
                continue
            session = match.subscriber
            if match.is_own_other and session.client_id == message.publisher:
                if match.own is None:  # No Local [MQTT5-3.8.3-3]
                    continue
                match = match.own  # noqa: PLW2901 the same subscriber, by its other filters
            qos = min(message.qos, match.qos)
            receivers += 1
            session.deliver(
                message,
                qos,
                now,
                retain=message.retain and match.retain_as_published,
                ids=match.subscription_ids,
            )
        return receivers

    def _deliver_shared(self, match: SharedMatch[Session], message: Message, now: float) -> int:
        """Give a message to one member of a group: in turn, and to one that is connected if there is any."""
        members = [member for member in match.members if member[0].is_connected] or match.members
        turn = self._turns.get(match.share, 0) + 1
        if len(self._turns) >= _TURNS:
            self._turns.clear()
        self._turns[match.share] = turn
        session, options = members[turn % len(members)]
        retain = message.retain and options.retain_as_published
        qos = min(options.qos, message.qos)
        session.deliver(message, qos, now, retain=retain, ids=options.subscription_ids)
        return 1

    def retain(self, message: Message) -> None:
        """Keep a message for later subscribers; an empty one clears what is kept under its topic."""
        if not message.payload:
            if self.retained.clear(message.topic):
                self.recorder.cleared(message.topic)
        elif self.retained.set(message):
            self.recorder.retained(message)
        else:
            # What is retained until now would pass for the latest.
            self.totals.drop("retained", message.publisher, message.topic)
            if self.retained.clear(message.topic):
                self.recorder.cleared(message.topic)


def _ignore(_: Message) -> None: ...
