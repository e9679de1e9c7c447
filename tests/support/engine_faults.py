"""Mistakes in the engine, one for each rule of MQTT, which a test puts in and a comparison must find."""

from __future__ import annotations

from collections import deque

from thingctl_broker.mqtt.engine import engine as engine_module
from thingctl_broker.mqtt.engine import subscription_tree
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.recorder import StoreRecorder
from thingctl_broker.mqtt.engine.retained_messages import RetainedMessages
from thingctl_broker.mqtt.engine.session import Session
from thingctl_broker.mqtt.engine.subscription_tree import SharedMatch, SubscriptionTree


def _least_qos(patch):
    patch.setattr(engine_module, "min", max, raising=False)


def _granted_qos(patch):
    patch.setattr(engine_module, "min", lambda _, granted: granted, raising=False)


def _changed_options(**change):
    """Subscriptions lose or gain an option."""

    def seed(patch):
        subscribe = Engine.subscribe
        patch.setattr(
            Engine, "subscribe", lambda engine, s, f, o: subscribe(engine, s, f, o._replace(**change))
        )

    return seed


def _retain_handling(kind):
    def seed(patch):
        send = Engine.send_retained
        changed = {"always": {"retain_handling": 0}, "never": {"retain_handling": 2}}[kind]
        patch.setattr(
            Engine,
            "send_retained",
            lambda engine, s, f, o, now, *, is_new: send(
                engine, s, f, o._replace(**changed), now, is_new=is_new
            ),
        )

    return seed


def _every_subscription_is_new(patch):
    send = Engine.send_retained
    patch.setattr(
        Engine,
        "send_retained",
        lambda engine, s, f, o, now, *, is_new: send(engine, s, f, o, now, is_new=is_new or True),
    )


def _last_comes_first(patch):
    def wait(session, delivery):
        session.queue = deque([delivery, *session.queue])

    patch.setattr(Session, "_wait", wait)


def _fresh_overtakes(patch):
    def deliver(session, delivery, now):
        if session.is_connected and session._may_send():
            session._send_fresh(delivery, now)
        else:
            session._wait(delivery)

    patch.setattr(Session, "_deliver_surely", deliver)


def _repeats_backwards(patch):
    def resume(session, now):
        session._resend = dict(reversed(session.in_flight.items()))
        session.pump(now)

    patch.setattr(Session, "resume", resume)


def _no_dup(patch):
    again = Session._send_again

    def send(session, delivery, now):
        delivery.is_sent = False
        again(session, delivery, now)

    patch.setattr(Session, "_send_again", send)


def _always_dup(patch):
    fresh = Session._send_fresh

    def send(session, delivery, now):
        delivery.is_sent = True
        fresh(session, delivery, now)

    patch.setattr(Session, "_send_fresh", send)


def _nothing_again(patch):
    patch.setattr(Session, "resume", Session.pump)


def _received_twice(patch):
    begin = Engine.begin_exactly_once
    patch.setattr(
        Engine, "begin_exactly_once", lambda engine, s, packet_id: begin(engine, s, packet_id) or True
    )


def _sent_twice(patch):
    def send(session, delivery, now):
        session._write_delivery(delivery, now, session.token)

    patch.setattr(Session, "_send_again", send)


def _no_release_kept(patch):
    patch.setattr(StoreRecorder, "changed", lambda *_: None)


def _received_not_kept(patch):
    patch.setattr(StoreRecorder, "received", lambda *_: None)


def _delivered_stays(patch):
    patch.setattr(StoreRecorder, "delivered", lambda *_: None)


def _retained_not_kept(patch):
    patch.setattr(StoreRecorder, "retained", lambda *_: None)


def _cleared_not_kept(patch):
    patch.setattr(StoreRecorder, "cleared", lambda *_: None)


def _subscriptions_not_kept(patch):
    patch.setattr(Engine, "subscriptions_changed", lambda _engine, _session, acknowledge: acknowledge())


def _no_message_expiry(patch):
    patch.setattr(Session, "_send_fresh", Session._send)


def _expiry_does_not_count_down(patch):
    left = Message.seconds_left

    def seconds_left(message, now):
        found = left(message, now)
        return found and found + (found > 0 and found < 5)

    patch.setattr(Message, "seconds_left", seconds_left)


def _retained_never_expires(patch):
    match = RetainedMessages.match
    patch.setattr(RetainedMessages, "match", lambda kept, f, _now: match(kept, f, 0))
    patch.setattr(RetainedMessages, "expire", lambda _kept, _now: [])


def _session_never_expires(patch):
    plan = Engine._plan
    patch.setattr(
        Engine,
        "_plan",
        lambda engine, due, s, *, is_will: plan(engine, due, s, is_will=True) if is_will else None,
    )


def _session_expires_early(patch):
    plan = Engine._plan
    patch.setattr(
        Engine, "_plan", lambda engine, due, s, *, is_will: plan(engine, due - 4, s, is_will=is_will)
    )


def _token_stays(patch):
    """What was planned for the time away happens although the client is back."""
    attach = Session.attach

    def attached(session, *arguments):
        token = session.token
        attach(session, *arguments)
        session.token = token

    patch.setattr(Session, "attach", attached)


def _will_not_cancelled_on_return(patch):
    connect = Engine.connect

    def connected(engine, client_id, *, now, **named):
        session = engine.sessions.get(client_id)
        if session is not None:
            engine._publish_will(session, now)
        return connect(engine, client_id, now=now, **named)

    patch.setattr(Engine, "connect", connected)


def _will_without_delay(patch):
    disconnect = Engine.disconnect

    def disconnected(engine, session, now, **named):
        if session.will is not None:
            session.will = session.will._replace(delay=0)
        return disconnect(engine, session, now, **named)

    patch.setattr(Engine, "disconnect", disconnected)


def _will_after_a_proper_end(patch):
    disconnect = Engine.disconnect
    patch.setattr(
        Engine,
        "disconnect",
        lambda engine, s, now, *, publishes_will: disconnect(
            engine, s, now, publishes_will=publishes_will or True
        ),
    )


def _no_will_at_the_sessions_end(patch):
    end = Engine.end

    def ended(engine, session, now):
        session.will = None
        end(engine, session, now)

    patch.setattr(Engine, "end", ended)


def _clean_start_keeps(patch):
    connect = Engine.connect

    def connected(engine, client_id, *, clean, **named):
        return connect(engine, client_id, clean=clean and False, **named)

    patch.setattr(Engine, "connect", connected)


def _a_copy_for_each_filter(patch):
    def merge(found):
        return tuple(
            subscription_tree._match_of(s, (options,))
            for entry in found
            for s, options in entry.subscribers.items()
        )

    patch.setattr(subscription_tree, "_merge", merge)


def _first_of_overlapping(patch):
    match_of = subscription_tree._match_of
    patch.setattr(subscription_tree, "_match_of", lambda s, options: match_of(s, options[:1]))


def _share_for_all(patch):
    shared = Engine._deliver_shared

    def deliver(engine, match, message, now):
        return sum(shared(engine, alone(match, member), message, now) for member in match.members)

    def alone(match, member):
        one = SharedMatch(match.share)
        one.subscribers[member[0]] = member[1]
        return one

    patch.setattr(Engine, "_deliver_shared", deliver)


def _share_for_those_away(patch):
    def deliver(_engine, match, message, now):
        session, options = match.members[0]
        qos = min(message.qos, options.qos)
        ids = (options.subscription_id,) if options.subscription_id else ()
        session.deliver(message, qos, now, retain=message.retain and options.retain_as_published, ids=ids)
        return 1

    patch.setattr(Engine, "_deliver_shared", deliver)


class _NeverHidden(str):
    __slots__ = ()

    def startswith(self, *_):
        return False


def _dollar_topics_match(patch):
    walk = subscription_tree._walk
    patch.setattr(subscription_tree, "_walk", lambda root, topic: walk(root, _NeverHidden(topic)))


def _dollar_topics_are_retained_for_all(patch):
    walk = RetainedMessages._walk

    def walked(kept, names):
        found = walk(kept, names)
        hidden = [m for m in kept._messages.values() if names == ["#"] and m.topic[0] == "$"]
        return found + hidden

    patch.setattr(RetainedMessages, "_walk", walked)


def _subscribing_again_changes_nothing(patch):
    subscribe = Engine.subscribe

    def subscribed(engine, session, topic_filter, options):
        options = session.subscriptions.get(topic_filter, options)
        return subscribe(engine, session, topic_filter, options)

    patch.setattr(Engine, "subscribe", subscribed)


def _unsubscribing_changes_nothing(patch):
    patch.setattr(SubscriptionTree, "remove", lambda *_: True)


def _what_is_remembered_stays(patch):
    patch.setattr(SubscriptionTree, "_forget", lambda *_: None)


def _any_window(patch):
    patch.setattr(Session, "_may_send", lambda _: True)


def _window_counts_what_is_repeated_twice(patch):
    patch.setattr(Session, "_may_send", lambda session: len(session.in_flight) < session.window)


def _window_ends_at_pubrec(patch):
    on_pubrec = Session.on_pubrec

    def may_send(session):
        waiting = {*session._resend, *(i for i, d in session.in_flight.items() if d.released)}
        return len(session.in_flight) - len(waiting) < session.window

    def taken(session, packet_id, reason, now):
        on_pubrec(session, packet_id, reason, now)
        session.pump(now)

    patch.setattr(Session, "_may_send", may_send)
    patch.setattr(Session, "on_pubrec", taken)


def _qos_0_waits(patch):
    deliver = Session.deliver

    def delivered(session, message, qos, now, **named):
        deliver(session, message, qos if session.is_connected else max(qos, 1), now, **named)

    patch.setattr(Session, "deliver", delivered)


def _an_empty_message_is_retained(patch):
    patch.setattr(Engine, "retain", lambda engine, message: engine.retained.set(message))


FAULTS = {
    "minimum QoS: the higher one": _least_qos,
    "minimum QoS: the granted one": _granted_qos,
    "no-local: never": _changed_options(no_local=False),
    "no-local: always": _changed_options(no_local=True),
    "retain as published: never": _changed_options(retain_as_published=False),
    "retain as published: always": _changed_options(retain_as_published=True),
    "retain handling: always": _retain_handling("always"),
    "retain handling: never": _retain_handling("never"),
    "retain handling: each is new": _every_subscription_is_new,
    "retained: an empty message stays": _an_empty_message_is_retained,
    "subscription identifiers: none": _changed_options(subscription_id=0),
    "order: the last first": _last_comes_first,
    "order: a fresh one overtakes": _fresh_overtakes,
    "order: repeats backwards": _repeats_backwards,
    "DUP: never": _no_dup,
    "DUP: always": _always_dup,
    "repeats: none": _nothing_again,
    "QoS 2: received twice": _received_twice,
    "QoS 2: sent again after PUBREC": _sent_twice,
    "QoS 0: waits for a client that is away": _qos_0_waits,
    "records: no identifier, no release": _no_release_kept,
    "records: what came is forgotten": _received_not_kept,
    "records: what was delivered stays": _delivered_stays,
    "records: subscriptions are forgotten": _subscriptions_not_kept,
    "records: retained messages are forgotten": _retained_not_kept,
    "records: cleared messages return": _cleared_not_kept,
    "message expiry: none": _no_message_expiry,
    "message expiry: the time left is wrong": _expiry_does_not_count_down,
    "message expiry: not of retained ones": _retained_never_expires,
    "session expiry: never": _session_never_expires,
    "session expiry: early": _session_expires_early,
    "session expiry: although the client is back": _token_stays,
    "clean start: keeps the session": _clean_start_keeps,
    "will: not cancelled on return": _will_not_cancelled_on_return,
    "will: without its delay": _will_without_delay,
    "will: after a proper end": _will_after_a_proper_end,
    "will: not at the session's end": _no_will_at_the_sessions_end,
    "overlap: a copy for each filter": _a_copy_for_each_filter,
    "overlap: the first filter alone": _first_of_overlapping,
    "share: all members": _share_for_all,
    "share: a member that is away": _share_for_those_away,
    "$-rule: wildcards match": _dollar_topics_match,
    "$-rule: of retained messages": _dollar_topics_are_retained_for_all,
    "subscribing again: changes nothing": _subscribing_again_changes_nothing,
    "unsubscribing: changes nothing": _unsubscribing_changes_nothing,
    "the tree remembers what has changed": _what_is_remembered_stays,
    "window: none": _any_window,
    "window: counts what is to be repeated": _window_counts_what_is_repeated_twice,
    "window: ends at PUBREC": _window_ends_at_pubrec,
}
"""Mistakes by the rule that they break; each takes a ``pytest.MonkeyPatch``."""
