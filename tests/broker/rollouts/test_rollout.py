"""Who gets a command when, and when to stop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker_support import make_execution
from thingctl_broker.rollouts.rollout import (
    FAILURES,
    MOVES,
    REFUSALS_MAX,
    Rollout,
    RolloutRecord,
    RolloutRules,
    State,
)
from thingctl_protocol.statuses import TERMINAL, Status

ENDS = sorted(TERMINAL)


def record(count=10, **rules):
    things = [f"t{i}" for i in range(count)]
    return RolloutRecord("c", "turnOn", "{}", 60, 0.0, "admin", things, count, RolloutRules(**rules))


def test_without_rules_all_go_out_at_once():
    rollout = Rollout(record(10))
    assert rollout.wait(0.0) == 0.0
    assert rollout.pop_due(0.0, 4) == ["t0", "t1", "t2", "t3"]
    assert rollout.pop_due(0.0, 100) == [f"t{i}" for i in range(4, 10)]
    assert (rollout.record.state, rollout.pending, rollout.live) == (State.FINISHED, 0, 10)
    assert rollout.wait(0.0) is None


def test_a_batch_is_how_many_run_at_once():
    rollout = Rollout(record(5, batch=2))
    assert rollout.pop_due(0.0, 100) == ["t0", "t1"]
    assert rollout.pop_due(9.0, 100) == []
    assert rollout.wait(9.0) is None
    rollout.ended(Status.SUCCEEDED)
    assert rollout.pop_due(9.0, 100) == ["t2"]


def test_a_rate_is_how_many_go_out_in_a_second():
    rollout = Rollout(record(10, rate=2.0))
    assert rollout.pop_due(0.0, 100) == ["t0"]
    assert rollout.pop_due(0.0, 100) == []
    assert rollout.wait(0.0) == pytest.approx(0.5)
    assert rollout.pop_due(0.5, 100) == ["t1"]
    assert rollout.pop_due(100.0, 100) == ["t2"]  # what was missed does not come all at once


def test_so_many_failures_and_it_stops():
    rollout = Rollout(record(10, batch=2, max_failures=2))
    rollout.pop_due(0.0, 100)
    rollout.ended(Status.FAILED)
    rollout.pop_due(0.0, 100)
    assert rollout.record.state is State.RUNNING
    rollout.ended(Status.TIMED_OUT)
    assert rollout.record.state is State.STOPPED
    assert (rollout.pop_due(0.0, 100), rollout.wait(0.0)) == ([], None)
    assert rollout.move(State.RUNNING)  # failures are counted anew
    assert rollout.pop_due(0.0, 1) == ["t3"]
    rollout.ended(Status.REJECTED)
    assert rollout.record.state is State.RUNNING


def test_whoever_is_refused_makes_room_and_is_counted():
    rollout = Rollout(record(REFUSALS_MAX + 5, batch=1))
    for _ in range(REFUSALS_MAX + 5):
        (thing,) = rollout.pop_due(0.0, 1)
        rollout.refuse(thing, "its queue is full")
    assert (rollout.record.refused, len(rollout.record.refusals)) == (REFUSALS_MAX + 5, REFUSALS_MAX)
    assert rollout.record.state is State.FINISHED


def test_what_is_put_back_goes_out_later():
    rollout = Rollout(record(3))
    taken = rollout.pop_due(0.0, 3)
    rollout.put_back([])
    rollout.put_back(taken[1:])
    assert (rollout.record.state, rollout.pending, rollout.live) == (State.RUNNING, 2, 1)
    assert rollout.pop_due(0.0, 3) == taken[1:]
    assert rollout.record.targeted == 3


def test_after_a_restart_nobody_gets_it_twice():
    kept = record(6)
    Rollout(kept).pop_due(0.0, 2)
    kept.state = State.RUNNING
    executions = [make_execution(thing=f"t{i}", command_id="c") for i in (0, 1, 4)]
    executions[0].cancel(0.0, 0.0, 1.0)
    executions[1].expire(1e9, 0.0)
    rollout = Rollout(kept, executions)
    assert (rollout.live, rollout.failed, rollout.pending) == (1, 1, 3)
    assert rollout.pop_due(0.0, 10) == ["t2", "t3", "t5"]
    assert rollout.record.targeted == 6


def test_after_a_restart_it_may_be_finished():
    assert Rollout(record(1), [make_execution(thing="t0")]).record.state is State.FINISHED


@given(st.sampled_from(State), st.sampled_from(State))
def test_only_moves_that_there_are(before, after):
    kept = record(2)
    kept.state = before
    if before is State.FINISHED:
        kept.sent = 2
    rollout = Rollout(kept)
    assert rollout.move(after) is (after in MOVES[before])
    assert rollout.record.state in ({after} if after in MOVES[before] else {before})


class Model(RuleBasedStateMachine):
    """Whatever happens: nobody twice, nobody forgotten, never beyond the bounds."""

    @initialize(
        count=st.integers(0, 30),
        rate=st.none() | st.sampled_from([0.5, 3.0, 50.0]),
        batch=st.none() | st.integers(1, 5),
        max_failures=st.none() | st.integers(1, 3),
    )
    def begin(self, count, rate, batch, max_failures):
        self.now = 100.0
        self.rollout = Rollout(record(count, rate=rate, batch=batch, max_failures=max_failures))
        self.names = {f"t{i}" for i in range(count)}
        self.live, self.gone, self.refused = [], [], []
        self.starts = []

    @rule(limit=st.integers(1, 10))
    def take(self, limit):
        running = self.rollout.record.state is State.RUNNING
        taken = self.rollout.pop_due(self.now, limit)
        assert len(taken) <= limit
        assert running or not taken
        self.live += taken
        self.starts += [self.now] * len(taken)

    @precondition(lambda self: self.live)
    @rule(status=st.sampled_from(ENDS))
    def end(self, status):
        self.gone.append(self.live.pop())
        self.rollout.ended(status)

    @precondition(lambda self: self.live)
    @rule()
    def refuse(self):
        self.refused.append(self.live.pop())
        self.rollout.refuse(self.refused[-1], "no")

    @precondition(lambda self: self.live and self.rollout.record.state is not State.CANCELED)
    @rule()
    def put_back(self):
        self.rollout.put_back([self.live.pop()])
        self.starts.pop()

    @rule(to=st.sampled_from([State.PAUSED, State.RUNNING, State.CANCELED]))
    def move(self, to):
        self.rollout.move(to)

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.4, 5.0]))
    def pass_time(self, seconds):
        wait = self.rollout.wait(self.now)
        if wait is not None and 0 < wait <= seconds:
            assert self.rollout.wait(self.now + wait) == pytest.approx(0.0, abs=1e-6)
            self.now += wait
        self.now += seconds

    @invariant()
    def it_holds(self):
        rollout, kept = self.rollout, self.rollout.record
        dealt = [*self.live, *self.gone, *self.refused]
        assert len(set(dealt)) == len(dealt)
        assert set(kept.things[kept.sent :]) == self.names - set(dealt)
        assert rollout.pending == len(self.names) - len(dealt)
        assert rollout.live == len(self.live)
        assert kept.rules.batch is None or rollout.live <= kept.rules.batch
        assert (kept.state is State.FINISHED) <= (rollout.pending == 0)
        if kept.rules.rate is not None:
            burst = max(1.0, kept.rules.rate / 10)
            for i, start in enumerate(self.starts):
                within = len(self.starts) - i
                assert within <= (self.now - start) * kept.rules.rate + burst + 1e-6


TestRollouts = Model.TestCase


def test_failures_are_the_ends_that_are_no_success_and_no_wish():
    assert {Status.SUCCEEDED, Status.CANCELED} == TERMINAL - FAILURES
