"""Clock, back-off, slots, outbox, progress, extras: rules of a page or less each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingctl_agent.core.backoff import AT_WORK_LONGEST, LONGEST, SHORT_MANY, STABLE_AFTER, Backoff
from thingctl_agent.core.clock import DRIFT_MAX, BrokerClock
from thingctl_agent.core.history import Accepted, Entry
from thingctl_agent.core.optional_features import ANNOUNCEMENT, TOPICS, Extras
from thingctl_agent.core.outbox import ResponseOutbox
from thingctl_agent.core.progress import INTERVAL, Reporter
from thingctl_agent.core.recovery import settle
from thingctl_agent.core.slots import Slots
from thingctl_agent.errors import RegistrationError
from thingctl_agent.handlers.policy import ActionRate, Policy, make_policy
from thingctl_protocol.limits import TTL_DEFAULT
from thingctl_protocol.messages import BrokerTime

# -- clock


def test_the_age_is_told_by_broker_time_and_the_monotonic_clock():
    clock = BrokerClock()
    assert clock.age(1000, 50, lambda: None) is None
    assert clock.age(1000, 50, lambda: 1007.0) == 7
    clock.broker_says(BrokerTime(2000), 100)
    assert clock.knows_broker_time
    assert clock.age(2000, 160, lambda: pytest.fail("nobody asks the wall clock now")) == 60


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_age_grows_as_time_passes(said, at, later):
    clock = BrokerClock()
    clock.broker_says(BrokerTime(said), at)
    assert clock.age(said, at + later, lambda: None) == pytest.approx(later, abs=1e-3)


def test_a_broker_whose_clock_is_set_back_is_followed_and_a_late_message_is_not():
    clock = BrokerClock()
    clock.broker_says(BrokerTime(5000, steady=10), 100)
    clock.broker_says(BrokerTime(5020, steady=30), 150)  # 30 s under way
    assert clock.age(5000, 150, lambda: None) == pytest.approx(50 - DRIFT_MAX * 50)
    clock.broker_says(BrokerTime(1470, steady=80), 170)  # set back by an hour
    assert clock.age(1470, 170, lambda: None) == 0


def test_a_device_whose_clock_drifts_is_corrected_with_every_message():
    for rate in (0.95, 0.99, 1.01, 1.05):
        clock = BrokerClock()
        for real in range(0, 24 * 3600, 600):
            clock.broker_says(BrokerTime(1e9 + real, steady=float(real)), real * rate)
            assert clock.age(1e9 + real, real * rate, lambda: None) == pytest.approx(0, abs=1e-3)


def test_a_new_connection_may_lead_to_another_brokers_steady_clock():
    clock = BrokerClock()
    clock.broker_says(BrokerTime(5000, steady=1e6), 100)
    clock.connected()
    assert clock.age(5000, 110, lambda: None) == 10, "the time is known until the new broker says its own"
    clock.broker_says(BrokerTime(5020, steady=7), 120)
    assert clock.age(5000, 120, lambda: None) == 20


# -- back-off


def test_the_ceiling_doubles_up_to_half_a_ttl_and_the_wait_is_drawn_below_it():
    ceilings = []
    backoff = Backoff(lambda low, high: ceilings.append((low, high)) or high)
    waits = [backoff.failed(float(i)) for i in range(12)]
    assert [low for low, _ in ceilings] == [0.0] * 12
    assert waits[:4] == [0.5, 1, 2, 4]
    assert waits[-1] == LONGEST


def test_only_a_connection_that_lasted_starts_the_count_again():
    backoff = Backoff(lambda _, high: high)
    for i in range(5):
        backoff.failed(float(i))
    backoff.ready(10)
    assert backoff.failed(10 + STABLE_AFTER - 1) == 16, "two agents of one name must not fight at full speed"
    backoff.ready(100)
    assert backoff.failed(100 + STABLE_AFTER) == 0.5


def test_a_pause_does_not_outlast_a_command():
    assert LONGEST <= TTL_DEFAULT / 2


def test_a_link_that_flaps_and_brings_commands_is_not_waited_for_long():
    backoff = Backoff(lambda _, high: high)
    waits = []
    for i in range(20):
        backoff.ready(i * 100.0)
        backoff.worked()
        waits.append(backoff.failed(i * 100.0 + 5))
    assert max(waits) == AT_WORK_LONGEST


def test_connections_that_are_lost_again_and_again_within_seconds_are_told_of():
    backoff = Backoff(lambda _, high: high)
    flaps = []
    for i in range(SHORT_MANY):
        flaps.append(backoff.flaps)
        backoff.failed(i * 100.0)  # refused: that is another fault
        backoff.ready(i * 100.0 + 20)
        backoff.failed(i * 100.0 + 22)
    assert flaps == [False] * SHORT_MANY
    assert backoff.flaps
    for i in range(2 * SHORT_MANY):
        backoff.ready(1000.0 * i)
        backoff.failed(1000.0 * i + STABLE_AFTER)
    assert not backoff.flaps


# -- slots


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_places_are_never_taken_twice_nor_lost(steps):
    policies = {"a": Policy(), "b": Policy(concurrency=2, exclusive="g"), "c": Policy(exclusive="g")}
    slots, running = Slots(2), []
    for i, (action, start) in enumerate(steps):
        policy = policies[action]
        if start and slots.free(action, policy):
            slots.take(f"e{i}", action, policy)
            running.append((f"e{i}", action))
        elif not start and running:
            slots.release(running.pop(0)[0])
        actions = [a for _, a in running]
        assert len(slots) == len(running) <= 2
        assert actions.count("a") <= 1
        assert actions.count("b") + actions.count("c") <= 1
    for execution_id, _ in running:
        slots.release(execution_id)
    assert all(slots.free(a, p) for a, p in policies.items())


def test_an_overdue_call_makes_its_action_stuck_until_it_ends():
    slots, policy = Slots(9), Policy()
    slots.take("e1", "a", policy)
    assert not slots.stuck("a", policy)
    slots.overdue("e1")
    assert slots.stuck("a", policy)
    slots.release("e1", was_overdue=True)
    assert not slots.stuck("a", policy)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/min", ActionRate(10, 60)),
        ("1/30s", ActionRate(1, 30)),
        (" 5 / 2 h ", ActionRate(5, 7200)),
        ("1/d", ActionRate(1, 86400)),
    ],
)
def test_rates_are_read(text, rate):
    assert ActionRate.parse(text) == rate


@pytest.mark.parametrize("text", ["", "10", "0/min", "x/min", "1/0s", "1/week", "-1/s", "1.5/s"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(RegistrationError):
        ActionRate.parse(text)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50))
def test_a_rate_is_never_exceeded(pauses):
    slots, policy = Slots(9), make_policy(rate="3/min")
    now, allowed = 0.0, []
    for pause in pauses:
        now += pause
        if slots.within_rate("a", policy, now):
            allowed.append(now)
    for at in allowed:
        assert sum(at <= other < at + 60 - 1e-6 for other in allowed) <= 3 + 3, "a burst and a refill"
    assert len(allowed) <= 3 + now / 20 + 1e-6


# -- outbox


@given(st.lists(st.tuples(st.sampled_from("pacd"), st.integers(0, 9)), max_size=60))
def test_every_response_is_published_until_it_is_acknowledged(steps):
    outbox, put, connected, under_way = ResponseOutbox(window=3), {}, False, set()
    for step, i in steps:
        name = f"e{i}"
        if step == "p" and name not in put:
            put[name] = name.encode()
            out = outbox.put(name, name.encode())
        elif step == "a" and name in under_way:
            del put[name]
            under_way.discard(name)
            out = outbox.acknowledged(name)
        elif step == "c" and not connected:
            connected, out = True, outbox.connected()
        elif step == "d":
            connected, out = False, outbox.disconnected() or []
            under_way.clear()
        else:
            continue
        assert not out or connected
        for published, payload in out:
            assert published not in under_way
            assert put[published] == payload
            under_way.add(published)
        assert len(under_way) <= 3
        assert len(outbox) == len(put)
        assert not connected or len(under_way) == min(3, len(put))


# -- progress


def test_progress_waits_for_a_connection_and_its_turn():
    reporter = Reporter()
    assert reporter.say("e", 1, None, 10.0) == []
    assert reporter.due_times() == []
    assert len(reporter.connected(10.0)) == 1
    assert reporter.say("e", 2, "x" * 5000, 10.1) == []
    assert reporter.due_times() == [10.0 + INTERVAL]
    ((_, payload),) = reporter.due(10.0 + INTERVAL)
    assert b'"percent":2' in payload
    assert len(payload) < 1200
    reporter.say("e", 3, "\ud800", 20.0)
    reporter.drop("e")
    assert reporter.due(99.0) == []


# -- extras


def test_what_a_broker_closes_the_connection_over_is_given_up_after_two_times():
    extras = Extras()
    extras.asking(TOPICS)
    assert extras.lost() is None
    assert extras.wanted(TOPICS)
    extras.asking(TOPICS)
    assert extras.lost() == TOPICS
    assert not extras.wanted(TOPICS)
    assert extras.wanted(ANNOUNCEMENT)
    assert extras.lost() is None, "it was lost for another reason"


def test_an_answer_clears_the_suspicion():
    extras = Extras(announce=False)
    assert not extras.wanted(ANNOUNCEMENT)
    extras.asking(TOPICS)
    extras.lost()
    extras.asking(TOPICS)
    extras.answered()
    extras.asking(TOPICS)
    assert extras.lost() is None


# -- recovery


def entry(attempt=0, *, accepted=True):
    made = Entry()
    made.attempt = attempt
    made.accepted = Accepted("e", "a", b"{}", 1.0, 60.0, None) if accepted else None
    return made


@pytest.mark.parametrize("attempt", [0, 1, 2, 3])
@pytest.mark.parametrize("rebooted", [True, False])
@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("on_restart", ["fail", "rerun", "resume"])
def test_a_command_is_begun_again_only_if_that_is_harmless(attempt, rebooted, trusted, on_restart):
    settled = settle(entry(attempt), Policy(on_restart=on_restart), rebooted=rebooted, trusted=trusted)
    certainly_not_begun = attempt == 0 and trusted
    may_be_begun_again = on_restart != "fail" and attempt < 3
    assert isinstance(settled, int) == (certainly_not_begun or may_be_begun_again)


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("rebooted", [True, False])
@pytest.mark.parametrize("trusted", [True, False])
def test_what_reboots_is_never_begun_twice(attempt, rebooted, trusted):
    settled = settle(entry(attempt), Policy(reboots=True), rebooted=rebooted, trusted=trusted)
    assert isinstance(settled, bytes)
    assert (b"INTERRUPTED" if rebooted else b"NOT_REBOOTED") in settled


def test_what_is_not_known_any_more_is_ended():
    assert b"INTERRUPTED" in settle(entry(accepted=False), Policy(), rebooted=False, trusted=True)
    assert b"INTERRUPTED" in settle(entry(1), None, rebooted=False, trusted=True)
    assert b"INTERRUPTED" in settle(entry(), None, rebooted=False, trusted=False)
    assert b"UNKNOWN_ACTION" in settle(entry(), None, rebooted=False, trusted=True)
